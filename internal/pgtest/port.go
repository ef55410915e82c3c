//go:build unix

package pgtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Ports are taken from below the range that kernels hand to outgoing
// connections, or a client could occupy the port of a server that is down.
const (
	firstPort = 15000
	lastPort  = 31999
)

// reservePort picks a free TCP port and keeps other test processes of this
// user off it until the lock is closed, also while the server is down.
func reservePort(base string, want int) (port int, lock *os.File, err error) {
	for range 200 {
		port = want
		if want == 0 {
			port = firstPort + rand.IntN(lastPort-firstPort+1)
		}
		lock, ok, err := lockFile(filepath.Join(base, fmt.Sprintf("port-%d", port)), false)
		if err != nil {
			return 0, nil, err
		}
		if ok {
			if err := portFree(port); err == nil {
				return port, lock, nil
			} else if cerr := lock.Close(); cerr != nil || want != 0 {
				return 0, nil, errors.Join(err, cerr)
			}
		}
		if want != 0 {
			return 0, nil, fmt.Errorf("port %d is in use by another server", want)
		}
	}
	return 0, nil, fmt.Errorf("no free port between %d and %d", firstPort, lastPort)
}

func portFree(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	return l.Close()
}

// Port is a TCP port of this machine for a server of another kind. It is kept off other
// tests until this one ends.
func Port(t testing.TB) int {
	t.Helper()
	base, err := baseDir()
	if err != nil {
		t.Fatal(err)
	}
	port, lock, err := reservePort(base, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	})
	return port
}

// DieWithParent makes a process that is started with attr end with the thread that starts
// it, where the system can do so.
func DieWithParent(attr *syscall.SysProcAttr) { dieWithParent(attr) }
