//go:build unix

package pgtest

import (
	"os"
	"path/filepath"
)

// LoseData kills the server and starts it on a data directory as initdb makes it, as when
// its machine, or its disk, was replaced: another cluster, empty, answers at the same
// address. What troubles it had stay.
func (s *Server) LoseData() error {
	if err := s.loseData(); err != nil {
		return err
	}
	if err := s.StartAgain(); err != nil {
		return err
	}
	return s.createDatabases()
}

func (s *Server) loseData() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.opError("lose the data of", ErrClosed)
	}
	if err := s.killLocked(); err != nil {
		return err
	}
	base, err := baseDir()
	if err != nil {
		return s.opError("lose the data of", err)
	}
	tmpl, err := template(base, s.bin, s.acc, s.opts.InitArgs)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(s.DataDir()); err != nil {
		return s.opError("lose the data of", err)
	}
	if err := copyTemplate(tmpl, s.DataDir(), s.acc); err != nil {
		return err
	}
	return appendFile(filepath.Join(s.DataDir(), "postgresql.conf"), s.opts.conf(s.port))
}
