package health

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrTimeout is the cause of a context that [WithTimeout] made and whose
	// time ran out.
	ErrTimeout = errors.New("the database did not answer in time")

	// ErrNoView: no promise came with an accepted view, so the databases that
	// answered were never part of a set.
	ErrNoView = errors.New("no database that answered has ever held a view: run init first")
	// ErrNoQuorum: those that promised do not hold a majority of the votes.
	ErrNoQuorum = errors.New("the databases that promised do not hold a majority of the votes")
	// ErrStale: a newer epoch than the proposer's is under way or accepted.
	// Propose again with a higher one.
	ErrStale = errors.New("a newer epoch was promised or accepted")
	// ErrConflict: the answers contradict each other in a way that the rules
	// exclude; a database was restored, copied or changed by hand.
	ErrConflict = errors.New("the databases contradict each other about the view")
	// ErrLastMember: the change would leave no database in sync.
	ErrLastMember = errors.New("no database would be left that holds every acknowledged write")
	// ErrNeedHard: a member must promise hard, at the same epoch, before it can
	// have the place that it would get.
	ErrNeedHard = errors.New("a hard promise is needed")
	// ErrIntent: what was asked for cannot be had in this epoch.
	ErrIntent = errors.New("the change of view that was asked for is not possible")
)

// ViewError says which rule kept [Next] from a view and which members it is
// about. Err is one of the package's sentinels; errors.Is finds it.
type ViewError struct {
	// Epoch is the epoch that was to be proposed.
	Epoch int64
	Err   error
	// Members are those that the error is about: with ErrLastMember and
	// ErrNoQuorum those whose answer would help, with ErrNeedHard those to ask
	// for a hard promise.
	Members []MemberID
	// Hint says what to do.
	Hint string
	// hosts gives the members' addresses, in the order of Members.
	hosts []string
}

func (e *ViewError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "view of epoch %d: %v", e.Epoch, e.Err)
	for i, id := range e.Members {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%smember %d", sep, id)
		if i < len(e.hosts) && e.hosts[i] != "" {
			fmt.Fprintf(&b, " (%s)", e.hosts[i])
		}
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap returns the sentinel.
func (e *ViewError) Unwrap() error { return e.Err }

// TimeoutError is the result of work that ran into a deadline of ours, not of
// the client's: the probe's, the pool's, the mirror's. [Classify] calls it a
// failure of the database, which a bare context.DeadlineExceeded is not.
type TimeoutError struct{ Err error }

func (e *TimeoutError) Error() string { return ErrTimeout.Error() + ": " + e.Err.Error() }

// Unwrap gives the driver's error first, then ErrTimeout.
func (e *TimeoutError) Unwrap() []error { return []error{e.Err, ErrTimeout} }

// Timeout makes TimeoutError one of net's errors that tell of a time-out.
func (e *TimeoutError) Timeout() bool { return true }
