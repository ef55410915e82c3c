package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstFD is where the sockets begin that systemd hands over (sd_listen_fds(3)).
const firstFD = 3

// inherited are the listening sockets that systemd opened for this process. Those named
// admin (FileDescriptorName) are for metrics, all others for clients.
func inherited() (clients, admins []net.Listener, err error) {
	pid, n := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} { // none of a child's business
		if err := os.Unsetenv(name); err != nil {
			return nil, nil, err
		}
	}
	count, err := strconv.Atoi(n)
	if n == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil, nil
	}
	if err != nil || count < 0 || count > 1000 {
		return nil, nil, fmt.Errorf("LISTEN_FDS=%s is no number of sockets", n)
	}
	var errs []error
	for i := range count {
		unix.CloseOnExec(firstFD + i)
		f := os.NewFile(uintptr(firstFD+i), "socket")
		l, err := net.FileListener(f)
		errs = append(errs, err, f.Close()) // the listener has a copy of its own
		if err != nil {
			continue
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // it is systemd's
		}
		if i < len(names) && names[i] == "admin" {
			admins = append(admins, l)
		} else {
			clients = append(clients, l)
		}
	}
	return clients, admins, errors.Join(errs...)
}

// notify tells systemd about the state of this process, if it wants to know (sd_notify(3)).
func (r *gatewayRun) notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' { // abstract
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		r.log.Warn("systemd is not told", "state", state, "error", err)
	}
}

// reloading is the state of a process that reads its configuration again; systemd wants
// to know since when.
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}
