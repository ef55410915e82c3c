package main

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// listen takes host:port, or the path of a Unix socket, which who may use mode says. Clients of
// libpq look for DIRECTORY/.s.PGSQL.PORT.
func listen(address string, mode os.FileMode) (net.Listener, error) {
	if len(address) == 0 || address[0] != '/' {
		return net.Listen("tcp", address)
	}
	if err := clear(address); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", address)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(address, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// clear removes a socket that nobody listens at any more.
func clear(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("listen at %s: there is something that is no socket", path)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		return errors.Join(fmt.Errorf("listen at %s: another process does already", path), conn.Close())
	}
	return os.Remove(path)
}
