//go:build unix

package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	pollEvery = 10 * time.Millisecond
	goneAfter = 20 * time.Second // how long a SIGKILLed process may need
)

// children lists the live child processes of pid.
func children(pid int) ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var kids []int
	for _, p := range all {
		if p.parent == pid && p.state != 'Z' {
			kids = append(kids, p.pid)
		}
	}
	return kids, nil
}

// signal sends sig; that the process is gone is no error.
func signal(pid int, sig syscall.Signal) error {
	err := syscall.Kill(pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return os.NewSyscallError("kill "+strconv.Itoa(pid), err)
}

// waitGone waits until none of the processes runs; a zombie does not run.
func waitGone(pids []int) error {
	return poll(goneAfter, "processes to end", func() (bool, error) {
		for _, pid := range pids {
			p, ok, err := readProcess(pid)
			if err != nil {
				return false, err
			}
			if ok && p.state != 'Z' && p.state != 'X' {
				return false, nil
			}
		}
		return true, nil
	})
}

// poll asks until the answer is yes, the question fails, or the time is over.
func poll(limit time.Duration, what string, ask func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := ask()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return errTimeout(what, nil)
		}
		time.Sleep(pollEvery)
	}
}

// removeSharedMemory frees the segment that a killed server left, named on the
// seventh line of its lock file, and the lock file. Nobody may be attached.
func removeSharedMemory(data string) error {
	path := filepath.Join(data, "postmaster.pid")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if lines := strings.Split(string(text), "\n"); len(lines) > 6 {
		if ids := strings.Fields(lines[6]); len(ids) == 2 {
			// An error says that the server freed it, or never got so far.
			_ = exec.Command("ipcrm", "-m", ids[1]).Run()
		}
	}
	return os.Remove(path)
}
