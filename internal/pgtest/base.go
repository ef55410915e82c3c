//go:build unix

package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const serverPrefix = "server-"

// baseDir is where this user's templates, locks and servers live.
func baseDir() (string, error) { return ownDir(os.TempDir()) }

// serversDir is where servers live: in memory if $PGDIST_IN_MEMORY is set and there is
// room, else in base.
func serversDir(base string) (string, error) {
	if os.Getenv("PGDIST_IN_MEMORY") == "" || !roomInMemory() {
		return base, nil
	}
	return ownDir(memory)
}

// ownDir is a directory of this user's below one that is everybody's, like /tmp. It is
// created on demand.
func ownDir(of string) (string, error) {
	dir := filepath.Join(of, fmt.Sprintf("pgdist-pgtest-%d", os.Geteuid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a directory of this user: remove it, or set TMPDIR to another place", dir)
	}
	return dir, os.Chmod(dir, 0o755) // whatever the umask: the server's user must pass through
}

// lockFile takes an exclusive lock that ends with this process at the latest.
// Without wait, ok tells whether it was free.
func lockFile(path string, wait bool) (f *os.File, ok bool, err error) {
	f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, err
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return f, true, nil
	}
	if cerr := f.Close(); cerr != nil {
		return nil, false, cerr
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("lock %s: %w", path, err)
}

// newServerDir makes a locked directory for one server and clears away those
// whose owners died.
func newServerDir(base string, acc account) (dir string, lock *os.File, err error) {
	guard, _, err := lockFile(filepath.Join(base, "servers.lock"), true)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, guard.Close()) }()
	if err := sweep(base); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(base, serverPrefix); err != nil {
		return "", nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", nil, err
	}
	if acc.switched {
		if err := os.Chown(dir, acc.uid, acc.gid); err != nil {
			return "", nil, err
		}
	}
	lock, ok, err := lockFile(filepath.Join(base, lockName(dir)), false)
	if err == nil && !ok {
		err = fmt.Errorf("lock of the new directory %s is taken", dir)
	}
	return dir, lock, err
}

func lockName(dir string) string { return "lock-" + filepath.Base(dir) }

// sweep removes the servers of processes that ended without Close: their lock
// is free. The caller holds the guard, so none is half made.
func sweep(base string) error {
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), serverPrefix) {
			continue
		}
		dir := filepath.Join(base, entry.Name())
		lock, free, err := lockFile(filepath.Join(base, lockName(dir)), false)
		if err != nil {
			return err
		}
		if !free {
			continue
		}
		if err := discard(dir, lock); err != nil {
			return fmt.Errorf("remove a dead test's server in %s: %w", dir, err)
		}
	}
	return nil
}

// discard ends whatever still runs in a server's directory and removes it
// together with its shared memory and its lock.
func discard(dir string, lock *os.File) error {
	data := filepath.Join(dir, "data")
	pids, err := processesIn(data)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := signal(pid, syscall.SIGKILL); err != nil {
			return err
		}
	}
	if err := waitGone(pids); err != nil {
		return err
	}
	if err := removeSharedMemory(data); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	err = os.Remove(lock.Name())
	if errors.Is(err, os.ErrNotExist) { // Close and a sweep met
		err = nil
	}
	return errors.Join(err, lock.Close())
}
