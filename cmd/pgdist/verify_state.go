package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/pgdist/pgdist/internal/mirror"
)

// stateFormat begins every state file, so that no other file is overwritten.
const stateFormat = "pgdist verify state 1"

// stateHead is the first line of a state file; a mirror.Proven for each table
// found equal follows, a line each, written at once: an interruption of whatever
// kind loses at most the last line.
type stateHead struct {
	Format string `json:"format"`
	Set    string `json:"set"`
}

// verifyState is what a run of verify leaves to the next.
type verifyState struct {
	name  string
	known map[string]mirror.Proven

	mu  sync.Mutex
	f   *os.File
	err error
}

// openVerifyState begins a state file anew, or goes on with one.
func openVerifyState(name, set string, resume bool) (*verifyState, error) {
	s := &verifyState{name: name, known: map[string]mirror.Proven{}}
	size, err := s.read(set, resume)
	if err != nil {
		return nil, fmt.Errorf("--state: %w", err)
	}
	if s.f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("--state: %w", err)
	}
	if !resume {
		size, s.known = 0, map[string]mirror.Proven{}
	}
	if err = s.f.Truncate(size); err == nil {
		_, err = s.f.Seek(size, 0)
	}
	if err == nil && size == 0 {
		err = s.write(stateHead{stateFormat, set})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--state: %w", err), s.f.Close())
	}
	return s, nil
}

// read takes in what is there and returns the length of what is whole. A file
// that is not there is empty.
func (s *verifyState) read(set string, resume bool) (size int64, err error) {
	raw, err := os.Open(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer raw.Close() //nolint:errcheck // it was only read
	r := bufio.NewReader(raw)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil { // the end, or a line cut off
			if size == 0 && len(line) > 0 {
				return 0, fmt.Errorf("%s is no state file of pgdist verify", s.name)
			}
			return size, nil
		}
		if size == 0 {
			var head stateHead
			if err := json.Unmarshal(line, &head); err != nil || head.Format != stateFormat {
				return 0, fmt.Errorf("%s is no state file of pgdist verify", s.name)
			}
			if resume && head.Set != set {
				return 0, fmt.Errorf("%s is of another set, %s", s.name, head.Set)
			}
		} else {
			var p mirror.Proven
			if err := json.Unmarshal(line, &p); err != nil {
				return size, nil // what follows is worth nothing either
			}
			s.known[p.Table] = p
		}
		size += int64(len(line))
	}
}

// add notes a table. What goes wrong is told by close.
func (s *verifyState) add(p mirror.Proven) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = s.write(p)
	}
}

func (s *verifyState) write(v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = s.f.Write(append(line, '\n'))
	}
	return err
}

func (s *verifyState) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.err, s.f.Close()); err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	return nil
}
