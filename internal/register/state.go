package register

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Format is the version of what is stored. A program reads no other: one that does not know
// what a field means must not write the state without it.
const Format = 1

// State is all that a voter remembers.
type State struct {
	// Set and Member say whose voter it is; ID, random, that it is this one and not another
	// of the same number.
	Set    string `json:"set"`
	Member int    `json:"member"`
	ID     string `json:"id"`
	// Promised is the newest epoch that it has promised, Accepted that of View, which it
	// accepted last; 0 is none.
	Promised int64           `json:"promised"`
	Accepted int64           `json:"accepted"`
	View     json.RawMessage `json:"view,omitempty"`
	// Programs are the distributors that use the set.
	Programs []Program `json:"programs,omitempty"`
}

// Program is a distributor: a program with the driver, a gateway, a command.
type Program struct {
	// ID is its name on the list: what comes after a dot changes while it runs.
	ID   string `json:"id"`
	Name string `json:"name"` // for people
	// Epoch is of the view that it serves by, Lease for how long it may do so unconfirmed.
	Epoch int64         `json:"epoch"`
	Lease time.Duration `json:"lease"`
	// Since is when it was put on the list.
	Since time.Time `json:"since"`
}

// life is the name under which it is known as alive.
func (p Program) life() string {
	id, _, _ := strings.Cut(p.ID, ".")
	return id
}

// promise raises the promised epoch to e; false if as much is promised already.
func (s *State) promise(e int64) bool {
	if e <= s.Promised {
		return false
	}
	s.Promised = e
	return true
}

// accept takes the view of epoch e; false if that is not the epoch that was promised
// last, or another view of it was accepted.
func (s *State) accept(e int64, view []byte) (bool, error) {
	var small bytes.Buffer
	if err := json.Compact(&small, view); err != nil {
		return false, err
	}
	if e == s.Accepted && e == s.Promised {
		return bytes.Equal(s.View, small.Bytes()), nil
	}
	if e != s.Promised || e < s.Accepted {
		return false, nil
	}
	s.Accepted, s.View = e, small.Bytes()
	return true, nil
}

// program is the one of that id, or nil.
func (s *State) program(id string) *Program {
	i := slices.IndexFunc(s.Programs, func(p Program) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return &s.Programs[i]
}

// enrol puts a program on the list. The epoch that it goes by never falls.
func (s *State) enrol(p Program) {
	if had := s.program(p.ID); had != nil {
		had.Epoch, had.Lease = max(had.Epoch, p.Epoch), p.Lease
		return
	}
	s.Programs = append(s.Programs, p)
}

// note writes down what a program goes by that asks for a confirmation: whether it is on
// the list, and whether that changed anything.
func (s *State) note(p Program) (known, changed bool) {
	had := s.program(p.ID)
	if had == nil {
		return false, false
	}
	changed = had.Epoch < p.Epoch || had.Lease != p.Lease
	had.Epoch, had.Lease = max(had.Epoch, p.Epoch), p.Lease
	return true, changed
}

// dismiss takes programs off the list that go by views older than epoch e.
func (s *State) dismiss(ids []string, e int64) (changed bool) {
	n := len(s.Programs)
	s.Programs = slices.DeleteFunc(s.Programs, func(p Program) bool { return p.Epoch < e && slices.Contains(ids, p.ID) })
	return len(s.Programs) != n
}

// decode reads a state. The error says what is wrong with it.
func decode(raw []byte) (*State, error) {
	var kept struct {
		Format int `json:"format"`
		State
	}
	if err := json.Unmarshal(raw, &kept); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if kept.Format != Format {
		return nil, fmt.Errorf("%w: format %d, this program knows %d", ErrFormat, kept.Format, Format)
	}
	s := kept.State
	if s.Set == "" || s.Member < 1 || s.ID == "" || s.Accepted > s.Promised || (s.Accepted > 0) != (len(s.View) > 0) {
		return nil, fmt.Errorf("%w: it says nothing that a register says", ErrDamaged)
	}
	return &s, nil
}

func (s *State) encode() ([]byte, error) {
	return json.Marshal(struct {
		Format int `json:"format"`
		*State
	}{Format, s})
}

// What a register that answers, but cannot be used, is.
var (
	// ErrMissing: nothing is stored there.
	ErrMissing = errors.New("there is no register")
	// ErrExists: something is stored there already.
	ErrExists = errors.New("there is a register already")
	// ErrDamaged: what is stored there is no state of a register.
	ErrDamaged = errors.New("the register is damaged")
	// ErrFormat: it was written by another version of pgdist.
	ErrFormat = errors.New("the register is of another format")
	// ErrCopied: it is a copy of a register, or was put back from a backup: what was promised
	// and accepted since is not in it.
	ErrCopied = errors.New("the register is a copy, or an older state of itself")
	// ErrLocked: another program uses it.
	ErrLocked = errors.New("another program uses the register, and only one may at a time")
)
