//go:build unix

package register

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Locks are flock(2)'s: the kernel gives them back when their holder ends, however that
// comes about. Each is of a file of its own, which is not replaced as the register is.

func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// lock opens a file and locks it, if nobody else has: nil, nil if somebody has.
func lock(path string) (*os.File, error) {
	for {
		k, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(k.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, k.Close()
		}
		if err != nil {
			return nil, errors.Join(err, k.Close())
		}
		// It may have been removed between the two.
		mine, err := k.Stat()
		if err != nil {
			return nil, errors.Join(err, k.Close())
		}
		if now, err := os.Stat(path); err == nil && os.SameFile(mine, now) {
			return k, nil
		}
		if err := k.Close(); err != nil {
			return nil, err
		}
	}
}

// exclusive waits until no other process replaces the file.
func (f *file) exclusive(ctx context.Context) (over func(), err error) {
	for {
		k, err := lock(f.path + ".swap")
		if err != nil {
			return nil, f.fail("lock", err)
		}
		if k != nil {
			return func() { k.Close() }, nil //nolint:errcheck // which gives the lock back
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return nil, f.fail("lock", err)
		}
	}
}

// hold is the lock of the one program that has clients.
func (f *file) hold(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held != nil {
		return nil
	}
	k, err := lock(f.path + ".lock")
	if err != nil {
		return f.fail("lock", err)
	}
	if k == nil {
		who, err := os.ReadFile(f.path + ".lock")
		if err != nil {
			return f.fail("lock", err)
		}
		return &Error{Op: "lock", URL: f.url, Err: fmt.Errorf("%w: it is %s", ErrLocked, strings.TrimSpace(string(who))), Hint: "end that one, or keep the register in etcd or in the members: pgdist register"}
	}
	if err := k.Truncate(0); err != nil {
		return errors.Join(f.fail("lock", err), k.Close())
	}
	if _, err := k.WriteAt([]byte(name+"\n"), 0); err != nil {
		return errors.Join(f.fail("lock", err), k.Close())
	}
	f.held = k
	return nil
}

// appear locks a sign of life, under another name first: who finds one that is not locked
// takes its owner for dead.
func (f *file) appear(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.present[id] != nil {
		return nil
	}
	k, err := lock(f.path + signOf + id + ".new")
	if err != nil || k == nil {
		return f.fail("write", errors.Join(err, errors.New("a sign of life cannot be locked")))
	}
	if err := os.Rename(k.Name(), f.path+signOf+id); err != nil {
		return errors.Join(f.fail("write", err), k.Close())
	}
	f.present[id] = k
	return nil
}

func (f *file) alive(context.Context) ([]string, error) {
	signs, err := filepath.Glob(quoteGlob(f.path) + signOf + "*")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range signs {
		if strings.HasSuffix(name, ".new") {
			continue
		}
		k, err := lock(name)
		if err != nil {
			return nil, f.fail("read", err)
		}
		if k == nil {
			out = append(out, strings.TrimPrefix(name, f.path+signOf))
			continue
		}
		if err := errors.Join(os.Remove(name), k.Close()); err != nil {
			return nil, f.fail("read", err)
		}
	}
	return out, nil
}
