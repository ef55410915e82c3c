//go:build unix && !linux

package pgtest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent does nothing where the kernel has no such signal: what a dead
// test leaves is found by the next Launch.
func dieWithParent(*syscall.SysProcAttr) {}

// dieAtOnceWithParent does as little.
func dieAtOnceWithParent(*syscall.SysProcAttr) {}

// process is one line of the process table.
type process struct {
	pid, parent int
	state       byte
}

// processes lists what runs now.
func processes() ([]process, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,stat=").Output()
	if err != nil {
		return nil, opError("ps", err)
	}
	var all []process
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var p process
		var stat string
		if _, err := fmt.Sscan(lines.Text(), &p.pid, &p.parent, &stat); err != nil {
			return nil, opError("ps", err)
		}
		p.state = stat[0]
		all = append(all, p)
	}
	return all, nil
}

func readProcess(pid int) (process, bool, error) {
	all, err := processes()
	if err != nil {
		return process{}, false, err
	}
	for _, p := range all {
		if p.pid == pid {
			return p, true, nil
		}
	}
	return process{}, false, nil
}

// processesIn lists the postmaster named by the lock file in data, and its children.
func processesIn(data string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return nil, err
	}
	kids, err := children(pid)
	if err != nil {
		return nil, err
	}
	if p, ok, err := readProcess(pid); err != nil || !ok || p.state == 'Z' {
		return kids, err
	}
	return append(kids, pid), nil
}
