package health

import (
	"slices"
	"time"
)

// A distributor reads only while a majority has lately confirmed the view it goes by, and
// whoever acknowledges under a view waits until nobody can still go by one that came before.
// The arithmetic of that is here; DESIGN.md of internal/mirror says why, under "Reading".

// Mate is a distributor on a member's list, other than the one that asks.
type Mate struct {
	ID string
	// Epoch is of the view that it serves by.
	Epoch int64
	// Lease is how long it may do so unconfirmed.
	Lease time.Duration
}

// Confirmation is what one member answered to a distributor that asked whether its view
// is still the present one.
type Confirmation struct {
	Member MemberID
	// Promised and Accepted are the newest epochs that it has promised, and accepted a view of.
	Promised, Accepted int64
	// Known tells that the distributor was on its list.
	Known bool
	// Others are those on its list beside that one.
	Others []Mate
}

// Reader is what a distributor knows of itself when a round of confirmations has ended.
type Reader struct {
	// Lease is the one it is configured to take at a time.
	Lease time.Duration
	// Asked is what it let the members write down in this round: longer, if it believed to be alone.
	Asked time.Duration
	// Proposing is the epoch that it is having a view chosen for, Entered that of the view its
	// loop goes by already; 0 if none.
	Proposing, Entered int64
	// Minority tells that it may read on where no majority answers, if it is alone.
	Minority bool
}

// Conclusion is what a round of confirmations comes to.
type Conclusion struct {
	// Grant is for how long reads may go on, from before the round began; 0 is no new grant.
	Grant time.Duration
	// Confirmed tells that a majority goes by the view and has this distributor on its list.
	Confirmed bool
	// Newer tells that somebody has promised, or accepted, what this distributor has not heard of.
	Newer bool
	// Unsupported tells that a majority answers which has not accepted the view, though none
	// of it knows a newer one.
	Unsupported bool
}

// Conclude draws the conclusion of a round under v.
func Conclude(v *View, got []Confirmation, r Reader) Conclusion {
	var ids, yes, by []MemberID
	newest, alone := int64(0), true
	for _, a := range got {
		ids = append(ids, a.Member)
		newest = max(newest, a.Promised, a.Accepted)
		if a.Promised == v.Epoch && a.Accepted == v.Epoch {
			by = append(by, a.Member)
		}
		if a.Confirms(v) {
			yes = append(yes, a.Member)
		}
		alone = alone && a.Known && len(a.Others) == 0
	}
	switch {
	case v.Quorum(yes) && alone: // those who said yes have written Asked down
		return Conclusion{Confirmed: true, Grant: r.Asked}
	case v.Quorum(yes):
		return Conclusion{Confirmed: true, Grant: r.Lease}
	case v.Quorum(by): // all that is missing is its name on their lists
		return Conclusion{}
	}
	var out Conclusion
	if !v.Quorum(ids) && r.Minority && alone {
		out.Grant = r.Lease
	}
	switch {
	case newest > max(v.Epoch, r.Proposing, r.Entered):
		out.Newer = true
	case v.Quorum(ids) && newest <= r.Proposing && alone:
		// Whoever proposes is on the list before: it is this distributor that has
		// another view chosen, and it acknowledges nothing under that yet.
		out.Grant = r.Lease
	case v.Quorum(ids):
		out.Unsupported = true
	}
	return out
}

// Confirms tells whether the member goes by the view and has whoever asked on its list.
func (a Confirmation) Confirms(v *View) bool {
	return a.Known && a.Promised == v.Epoch && a.Accepted == v.Epoch
}

// Drained tells whether nobody reads by a view older than v any more, by a round in which a
// majority confirmed v; waited is the time from when this distributor first saw v to the
// round's beginning. lag are those that have not been heard to go by v but whose leases have run
// out: they are to be taken off the lists of a majority before anything is acknowledged.
func Drained(v *View, got []Confirmation, waited time.Duration) (lag []string, over bool) {
	last := map[string]int64{} // as the member knows it that has heard of it last
	for _, a := range got {
		for _, m := range a.Others {
			last[m.ID] = max(last[m.ID], m.Epoch)
		}
	}
	for id, epoch := range last {
		if epoch < v.Epoch {
			lag = append(lag, id)
		}
	}
	slices.Sort(lag)
	var longest time.Duration
	for _, a := range got {
		for _, m := range a.Others { // the longest that it has any member's word for
			if slices.Contains(lag, m.ID) {
				longest = max(longest, m.Lease)
			}
		}
	}
	// A twentieth is allowed to clocks that do not run alike.
	return lag, len(lag) == 0 || waited >= longest+longest/20+time.Millisecond
}

// Settled tells, once next was chosen, that nobody reads by an older view as it is: alone says
// that nobody but the proposer is on the lists that came with the promises. Otherwise next
// must leave nobody out that was read under old, the proposer's own view, of which nobody
// could know less (drained) and which next was based on: base is the newest epoch accepted
// among the promises.
func Settled(old, next *View, alone, drained bool, base int64) bool {
	if alone {
		return true
	}
	if old == nil || old.Epoch != base || !drained {
		return false
	}
	return !slices.ContainsFunc(old.InSync, func(id MemberID) bool { return !next.Has(id) })
}
