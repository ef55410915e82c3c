//go:build unix

package pgtest

import (
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// postmaster is one run of a server's main process.
type postmaster struct {
	pid  int
	done chan struct{} // closed when the process has been waited for
	err  error         // how it ended; valid once done is closed
}

// spawn starts the server program. The kernel ties "die with the parent" to the
// thread that forked, so that thread is kept for the life of the process.
func (s *Server) spawn() (*postmaster, error) {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := s.acc.command(s.dir, filepath.Join(s.bin, "postgres"), "-D", s.DataDir())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(cmd.Env, s.env...)
	dieWithParent(cmd.SysProcAttr)

	p := &postmaster{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	return p, errors.Join(<-started, log.Close())
}

func (p *postmaster) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "log") }

// LogTail returns up to the last n bytes of the server's log, cut at a line.
func (s *Server) LogTail(n int64) string {
	f, err := os.Open(s.logPath())
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(info.Size()-n, 0)
	buf, err := io.ReadAll(io.NewSectionReader(f, from, n))
	if err != nil {
		return ""
	}
	text := string(buf)
	if from > 0 {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text
}

func escape(database string) string { return url.PathEscape(database) }
