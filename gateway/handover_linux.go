package gateway

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memory is a file that exists in memory only, and for nobody who is not given it: what is written
// there is as good as passwords.
func memory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// duplicate is duplicate's for a socket.
func (s *socket) duplicate() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return -1, os.ErrClosed
	}
	return unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
}
