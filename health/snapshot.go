package health

import (
	"slices"
	"time"
)

// Status is what the board knows about one member at one moment.
type Status struct {
	ID   MemberID
	Host string
	// State of the breaker, and since when.
	State State
	Since time.Time
	// LastError is the last result that counted as a failure, and when; it
	// stays after the member has recovered. nil if there never was one.
	LastError   error
	LastErrorAt time.Time
	// Failures counts the failures in a row, including failed trials while the
	// breaker was not closed.
	Failures uint32
	// ProbeLatency is how long the last successful probe took; 0 before it.
	ProbeLatency time.Duration
	// Latency is a moving average over successful client work, brought up to
	// date with each probe; 0 before any.
	Latency time.Duration
}

// Snapshot is what the board knows about all members. It never changes.
type Snapshot struct {
	// Members are ordered by ID.
	Members []Status
}

// Member returns what is known about id.
func (s *Snapshot) Member(id MemberID) (Status, bool) {
	if i := s.index(id); i >= 0 {
		return s.Members[i], true
	}
	return Status{}, false
}

// State is the state of id's breaker; Open for a member that the board does
// not know.
func (s *Snapshot) State(id MemberID) State {
	if i := s.index(id); i >= 0 {
		return s.Members[i].State
	}
	return Open
}

func (s *Snapshot) index(id MemberID) int {
	// Members are few and numbered from 1: nearly always the first guess fits.
	if i := int(id) - 1; i >= 0 && i < len(s.Members) && s.Members[i].ID == id {
		return i
	}
	return slices.IndexFunc(s.Members, func(m Status) bool { return m.ID == id })
}

// Event is a transition of a member's breaker.
type Event struct {
	Member MemberID
	Change
}
