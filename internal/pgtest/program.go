//go:build unix

package pgtest

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
)

// Program is a process that a test starts, stops and kills as it does servers. It dies
// with the test.
type Program struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
	err  error         // how it ended; valid once done is closed
}

// StartProgram starts cmd, which must not have been started.
func StartProgram(cmd *exec.Cmd) (*Program, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // a terminal's ^C is for the test alone
	dieAtOnceWithParent(cmd.SysProcAttr)
	p := &Program{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() { // the kernel ties "die with the parent" to the thread that forked
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, opError("start a program", err)
	}
	return p, nil
}

// Done is closed when the program has ended.
func (p *Program) Done() <-chan struct{} { return p.done }

// Err tells how it ended, once Done is closed; nil if by itself and in peace.
func (p *Program) Err() error { return p.err }

// Kill is kill -9. It returns when the program is gone; killing one that is does nothing.
func (p *Program) Kill() error {
	if p.Ended() {
		return nil
	}
	err := signal(p.cmd.Process.Pid, syscall.SIGKILL)
	if err == nil {
		<-p.done
	}
	return err
}

// Ended tells whether it is gone.
func (p *Program) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// SigStop freezes it; SigCont ends that.
func (p *Program) SigStop() error { return p.signal("freeze", syscall.SIGSTOP) }

// SigCont lets a frozen program go on.
func (p *Program) SigCont() error { return p.signal("thaw", syscall.SIGCONT) }

// Dump has a Go program say what all its goroutines do, and end.
func (p *Program) Dump() error { return p.signal("dump", syscall.SIGQUIT) }

func (p *Program) signal(op string, sig syscall.Signal) error {
	if p.Ended() {
		return opError(op+" a program", errors.Join(ErrNotRunning, p.err))
	}
	return signal(p.cmd.Process.Pid, sig)
}
