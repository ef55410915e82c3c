//go:build unix

package pgtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// StopMode is one of PostgreSQL's three ways to shut down.
type StopMode int

const (
	// Fast ends sessions and shuts down cleanly; the zero value.
	Fast StopMode = iota
	// Smart waits for clients to leave, then shuts down cleanly.
	Smart
	// Immediate ends at once; the next start recovers as after a crash.
	Immediate
)

// String returns pg_ctl's name of the mode.
func (m StopMode) String() string {
	switch m {
	case Fast:
		return "fast"
	case Smart:
		return "smart"
	case Immediate:
		return "immediate"
	}
	return fmt.Sprintf("StopMode(%d)", int(m))
}

func (m StopMode) signal() syscall.Signal {
	switch m {
	case Smart:
		return syscall.SIGTERM
	case Immediate:
		return syscall.SIGQUIT
	default:
		return syscall.SIGINT
	}
}

// StartAgain starts a server that is down, on the same data directory and port,
// and returns once it accepts queries. The error is ErrRunning when it is up.
func (s *Server) StartAgain() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.startLocked()
}

func (s *Server) startLocked() error {
	if s.closed {
		return s.opError("start", ErrClosed)
	}
	if s.runningLocked() {
		return s.opError("start", ErrRunning)
	}
	deadline := time.Now().Add(s.opts.startTimeout())
	for {
		proc, err := s.spawn()
		if err != nil {
			return s.opError("start", err)
		}
		s.proc, s.stopped = proc, nil
		err = s.waitReady(context.Background(), proc)
		if err == nil {
			s.opts.logf("pgtest: started %s, pid %d", s.Addr(), proc.pid)
			return nil
		}
		// Connections in TIME_WAIT or a stranger may hold the port for a moment.
		if !proc.ended() || time.Now().After(deadline) || !strings.Contains(s.LogTail(2048), "could not bind") {
			return err
		}
		time.Sleep(10 * pollEvery)
	}
}

// Kill is kill -9 of the whole server, as when its machine loses power, except
// that what the operating system holds is not lost. The server can be started
// again at once. Killing a server that is down does nothing.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.opError("kill", ErrClosed)
	}
	return s.killLocked()
}

func (s *Server) killLocked() error {
	if !s.runningLocked() {
		return nil
	}
	// A stopped postmaster starts no more children while they are counted.
	pids, err := s.freezeLocked()
	if err != nil {
		return s.opError("kill", err)
	}
	for _, pid := range pids {
		if err := signal(pid, syscall.SIGKILL); err != nil {
			return s.opError("kill", err)
		}
	}
	<-s.proc.done
	if err := waitGone(pids); err != nil {
		return s.opError("kill", err)
	}
	s.proc, s.stopped = nil, nil
	s.opts.logf("pgtest: killed %s", s.Addr())
	return removeSharedMemory(s.DataDir())
}

// freezeLocked stops the postmaster and returns it with all its children.
func (s *Server) freezeLocked() ([]int, error) {
	if err := signal(s.proc.pid, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	// The signal is on its way when kill returns: children counted before it
	// has arrived may not be all.
	err := poll(goneAfter, "the postmaster to stop", func() (bool, error) {
		p, ok, err := readProcess(s.proc.pid)
		return !ok || p.state == 'T' || p.state == 'Z', err
	})
	if err != nil {
		return nil, err
	}
	kids, err := children(s.proc.pid)
	return append([]int{s.proc.pid}, kids...), err
}

// KillPostmaster is kill -9 of the main process alone: its children end by
// themselves when they notice, and the server cannot be started before.
func (s *Server) KillPostmaster() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return s.opError("kill the postmaster of", ErrNotRunning)
	}
	kids, err := children(s.proc.pid)
	if err != nil {
		return s.opError("kill the postmaster of", err)
	}
	if err := signal(s.proc.pid, syscall.SIGKILL); err != nil {
		return s.opError("kill the postmaster of", err)
	}
	<-s.proc.done
	if err := waitGone(kids); err != nil {
		return s.opError("kill the postmaster of", err)
	}
	s.proc, s.stopped = nil, nil
	return removeSharedMemory(s.DataDir())
}

// KillBackend is kill -9 of one of the server's processes. PostgreSQL then ends
// all others and recovers from the crash; WaitReady waits for that.
func (s *Server) KillBackend(pid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return s.opError("kill a backend of", ErrNotRunning)
	}
	kids, err := children(s.proc.pid)
	if err != nil {
		return s.opError("kill a backend of", err)
	}
	if !slices.Contains(kids, pid) {
		return s.opError("kill a backend of", fmt.Errorf("process %d is not one of its own", pid))
	}
	return signal(pid, syscall.SIGKILL)
}

// Stop shuts the server down and waits, up to Options.StartTimeout, until it
// has ended. Stopping a server that is down does nothing.
func (s *Server) Stop(mode StopMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopLocked(mode)
}

func (s *Server) stopLocked(mode StopMode) error {
	if s.closed {
		return s.opError("stop", ErrClosed)
	}
	if !s.runningLocked() {
		return nil
	}
	if err := s.contLocked(); err != nil {
		return err
	}
	if err := signal(s.proc.pid, mode.signal()); err != nil {
		return s.opError("stop", err)
	}
	select {
	case <-s.proc.done:
	case <-time.After(s.opts.startTimeout()):
		return s.opError("stop "+mode.String(), errTimeout("the server to end; are clients still connected?", nil))
	}
	s.proc = nil
	s.opts.logf("pgtest: stopped %s (%s)", s.Addr(), mode)
	return nil
}

// Restart stops the server cleanly, ending its sessions, and starts it again.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stopLocked(Fast); err != nil {
		return err
	}
	return s.startLocked()
}

// SigStop freezes the server: connections stay open and new ones are taken by
// the kernel, but nobody answers. SigCont ends it.
func (s *Server) SigStop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return s.opError("freeze", ErrNotRunning)
	}
	pids, err := s.freezeLocked()
	if err != nil {
		return s.opError("freeze", err)
	}
	s.stopped = pids
	for _, pid := range pids {
		if err := signal(pid, syscall.SIGSTOP); err != nil {
			return s.opError("freeze", err)
		}
	}
	s.opts.logf("pgtest: froze %s", s.Addr())
	return nil
}

// SigCont lets a frozen server go on. It does nothing to one that runs.
func (s *Server) SigCont() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return s.opError("thaw", ErrNotRunning)
	}
	return s.contLocked()
}

func (s *Server) contLocked() error {
	for _, pid := range slices.Backward(s.stopped) {
		if err := signal(pid, syscall.SIGCONT); err != nil {
			return s.opError("thaw", err)
		}
	}
	if len(s.stopped) > 0 {
		s.opts.logf("pgtest: thawed %s", s.Addr())
	}
	s.stopped = nil
	return nil
}

func (s *Server) runningLocked() bool { return s.proc != nil && !s.proc.ended() }
