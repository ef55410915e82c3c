package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgdist/pgdist/gateway"
)

// A restart in place: the process waits for the transactions that are open, stops in a moment
// between transactions, closes the set, and then executes its program anew, which gets the sockets
// that it has listened at all the time, and the connections of clients with all that is to be known
// of their sessions. Who connects meanwhile waits. The number of the process stays, so that whoever
// looks after it notices nothing; and at no time are there two that use the set.

// socketsVariable tells the program that is executed anew which sockets it has.
const socketsVariable = "PGDIST_SOCKETS"

// socket is one that is listened at.
type socket struct {
	net.Listener `json:"-"`
	FD           int    `json:"fd"`
	Address      string `json:"address"` // as it was configured; "" is systemd's
	Admin        bool   `json:"admin"`
}

// restart is what serve ends with if the program is to be executed anew.
type restart struct {
	program string
	sockets []socket
	files   []*os.File
	keeps   bool // the program can go on with clients
	clients *gateway.Handover
}

func (*restart) Error() string { return "to be executed anew" }

// handedOver are the sockets that this program had before it was executed anew.
func handedOver() (list []socket, err error) {
	text := os.Getenv(socketsVariable)
	if text == "" {
		return nil, nil
	}
	if err := os.Unsetenv(socketsVariable); err != nil { // none of a child's business
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("%s: %w", socketsVariable, err)
	}
	var errs []error
	for i := range list {
		s := &list[i]
		unix.CloseOnExec(s.FD)
		f := os.NewFile(uintptr(s.FD), "socket")
		var err error
		s.Listener, err = net.FileListener(f)
		errs = append(errs, err, f.Close()) // the listener has a copy of its own
		if u, ok := s.Listener.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(s.Address != "")
		}
	}
	return list, errors.Join(errs...)
}

// take returns the socket for an address out of list.
func take(list *[]socket, address string, admin bool) (socket, bool) {
	i := slices.IndexFunc(*list, func(s socket) bool { return s.Address == address && s.Admin == admin })
	if i < 0 {
		return socket{}, false
	}
	s := (*list)[i]
	*list = slices.Delete(*list, i, i+1)
	return s, true
}

// checkTimeout bounds how long the program may take to tell its version.
const checkTimeout = 20 * time.Second

// prepareRestart makes sure, while all still runs, that the program can be executed anew, with the
// configuration as it is now.
func (r *gatewayRun) prepareRestart(ctx context.Context) (*restart, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	out, err := exec.CommandContext(limited, program, "version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s version: %w: %s", program, err, out)
	}
	if _, config, err := r.read(); err != nil {
		return nil, err
	} else if err := config.Validate(); err != nil {
		return nil, err
	}
	again := &restart{program: program, keeps: takesClients(string(out))}
	for _, s := range r.sockets {
		l, ok := s.Listener.(interface{ File() (*os.File, error) })
		if !ok {
			return nil, errors.Join(fmt.Errorf("the socket at %s cannot be handed over: %T", s.Addr(), s.Listener), again.close())
		}
		f, err := l.File()
		if err != nil {
			return nil, errors.Join(err, again.close())
		}
		again.files = append(again.files, f)
		if s.FD, err = descriptor(f); err != nil {
			return nil, errors.Join(err, again.close())
		}
		again.sockets = append(again.sockets, s)
	}
	for _, s := range r.sockets { // the path stays
		if u, ok := s.Listener.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
	}
	return again, nil
}

// descriptor is a file's number. Fd would have its calls wait in the kernel, and those of all copies: of the socket
// that is still accepted from, too, which nothing but another client would end then.
func descriptor(f *os.File) (int, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = c.Control(func(have uintptr) { fd = int(have) })
	return fd, err
}

func (again *restart) close() error {
	var errs []error
	for _, f := range again.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// exec executes the program anew. It returns only if that fails.
func (again *restart) exec() error {
	text, err := json.Marshal(again.sockets)
	if err != nil {
		return err
	}
	for _, s := range again.sockets {
		if _, err := unix.FcntlInt(uintptr(s.FD), unix.F_SETFD, 0); err != nil { // it stays open
			return fmt.Errorf("handing a socket over: %w", err)
		}
	}
	environment := append(os.Environ(), socketsVariable+"="+string(text))
	if again.clients != nil {
		f, err := again.clients.File()
		if err != nil {
			return errors.Join(fmt.Errorf("handing clients over: %w", err), again.clients.Close())
		}
		defer f.Close()
		environment = append(environment, fmt.Sprintf("%s=%d", clientsVariable, f.Fd()))
	}
	signal.Ignore(syscall.SIGHUP) // until the program listens for it
	err = syscall.Exec(again.program, os.Args, environment)
	return errors.Join(fmt.Errorf("executing %s: %w", again.program, err), again.clients.Close())
}

// loginsTime bounds how long log-ins that are under way may hold a restart up, while those who
// connect wait.
const loginsTime = 5 * time.Second

// restartNow brings the gateway to the point where the program can be executed anew. Its error is a
// restart then, and nil if everything goes on as it was.
func (r *gatewayRun) restartNow(ctx context.Context) error {
	again, err := r.prepareRestart(ctx)
	if err != nil {
		r.log.Error("no restart: everything goes on as it was", "error", err)
		return nil
	}
	r.log.Info("restart", "program", again.program)
	r.notify(reloading())
	r.mu.Lock()
	drain := r.live.drain
	r.mu.Unlock()
	end := time.Now().Add(drain)
	if again.keeps { // else clients that go on meanwhile are sent away no later for it
		early, cancel := context.WithDeadline(ctx, end.Add(-drain/2))
		err := r.server.Settle(early)
		cancel()
		if ctx.Err() != nil { // it is to end: that comes first
			for _, s := range r.sockets {
				if u, ok := s.Listener.(*net.UnixListener); ok {
					u.SetUnlinkOnClose(s.Address != "")
				}
			}
			return again.close()
		}
		if err != nil {
			r.log.Info("restart: there are long transactions, and from here on clients wait for them", "left", time.Until(end))
		}
	}
	stop, cancel := context.WithDeadline(context.WithoutCancel(ctx), end)
	defer cancel()
	held, cancelHeld := context.WithTimeout(stop, min(loginsTime, drain/4))
	defer cancelHeld()
	if err := r.server.Hold(held); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return errors.Join(err, again.close(), r.server.Close())
	}
	if again.keeps {
		again.clients, err = r.server.HandOver(stop)
		r.log.Info("restart: clients to go on with", "clients", again.clients.Len())
	} else {
		r.log.Warn("restart: the program does not take clients of this one's: they are sent away", "format", gateway.HandoverFormat)
		err = r.server.Shutdown(stop)
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		r.log.Warn("closing before the restart", "error", err) // there is nothing left to go back to
	}
	if ctx.Err() != nil { // it is to end altogether
		return errors.Join(r.unlink(), again.close(), again.clients.Close(), context.Canceled)
	}
	return again
}

// unlink removes the paths of sockets that are closed and that nobody is to listen at any more.
func (r *gatewayRun) unlink() error {
	var errs []error
	for _, s := range r.sockets {
		if _, ok := s.Listener.(*net.UnixListener); ok && s.Address != "" {
			errs = append(errs, os.Remove(s.Address))
		}
	}
	return errors.Join(errs...)
}
