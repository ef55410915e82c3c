//go:build unix

package mirror

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// claimDir locks a directory, and tells whether nobody else has, and it is still there. The kernel
// gives the lock back when the program ends, however that comes about.
func claimDir(dir string) (key *os.File, free bool, err error) {
	key, err = os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	switch err = unix.Flock(int(key.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, false, key.Close()
	case err != nil:
		return nil, false, errors.Join(err, key.Close())
	}
	mine, err := key.Stat()
	if err != nil {
		return nil, false, errors.Join(err, key.Close())
	}
	// A link is somebody's who wants what it leads to removed.
	if now, err := os.Lstat(dir); err != nil || !os.SameFile(mine, now) {
		return nil, false, key.Close()
	}
	return key, true, nil
}
