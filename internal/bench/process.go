//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ, 100 on every Linux that
// Go runs on.
const tick = 10 * time.Millisecond

// stat is what /proc/PID/stat says of a process.
type stat struct {
	pid, parent int
	own         time.Duration // processor time, user and system
	reaped      time.Duration // the same of children that it has waited for
}

// parseStat reads the text of /proc/PID/stat; see proc(5).
func parseStat(text []byte) (stat, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("not a process's stat: %q", text)
	}
	fields := strings.Fields(string(text[end+1:])) // from field 3, state
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("a process's stat is cut short: %q", text)
	}
	var errs []error
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		errs = append(errs, err)
		return n
	}
	st := stat{
		pid:    number(strings.TrimSpace(string(text[:open]))),
		parent: number(fields[1]),
		own:    time.Duration(number(fields[11])+number(fields[12])) * tick,
		reaped: time.Duration(number(fields[13])+number(fields[14])) * tick,
	}
	return st, errors.Join(errs...)
}

// processTable reads all processes.
func processTable() ([]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []stat
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, err
		}
		st, err := parseStat(text)
		if err != nil {
			return nil, err
		}
		all = append(all, st)
	}
	return all, nil
}

// treeTime sums the processor time of the processes and of their children, dead
// or alive.
func treeTime(all []stat, roots ...int) time.Duration {
	var sum time.Duration
	for _, st := range all {
		for _, root := range roots {
			switch root {
			case st.pid:
				sum += st.own + st.reaped
			case st.parent:
				sum += st.own
			}
		}
	}
	return sum
}

// processTime is a process's processor time; 0 is no process, which takes none.
func processTime(pid int) (time.Duration, error) {
	if pid == 0 {
		return 0, nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	st, err := parseStat(text)
	return st.own, err
}

// ownTime is this process's processor time.
func ownTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, os.NewSyscallError("getrusage", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// memoryOf reads a line of /proc/self/status, such as VmRSS or VmHWM, in bytes.
func memoryOf(name string) (int64, error) { return processMemory(os.Getpid(), name) }

// processMemory reads it of any process.
func processMemory(pid int, name string) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), name+":")
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		return kb << 10, err
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, name)
}

// resetPeak lets VmHWM begin anew at what is resident now; see proc(5).
func resetPeak() error { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }
