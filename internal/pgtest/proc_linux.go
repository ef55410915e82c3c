package pgtest

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent makes the process end when the thread that started it does.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }

// dieAtOnceWithParent is for processes that may be stopped then.
func dieAtOnceWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// process is one line of the process table.
type process struct {
	pid, parent int
	state       byte // R, S, D, T, Z … as in proc(5)
}

// processes lists what runs now.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		p, ok, err := readProcess(pid)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// readProcess reads one process; ok is false when it is gone.
func readProcess(pid int) (p process, ok bool, err error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, err
	}
	// The name, in parentheses, may hold anything: fields start after its end.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return process{}, false, nil
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return process{pid: pid, parent: parent, state: fields[0][0]}, err == nil, err
}

// processesIn lists what has data as its working directory, as every process of
// a server has.
func processesIn(data string) ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range all {
		cwd, err := os.Readlink("/proc/" + strconv.Itoa(p.pid) + "/cwd")
		if err != nil {
			continue // gone, a zombie, or another user's: not a server of ours
		}
		if strings.TrimSuffix(cwd, " (deleted)") == data {
			pids = append(pids, p.pid)
		}
	}
	return pids, nil
}
