package health

// Stand is a member's promise, and what only its database tells about how far it
// has come: P is a position.
type Stand[P comparable] struct {
	Promise
	// Place is the position of its data.
	Place P
	// Crashed tells that a crash has emptied its UNLOGGED tables.
	Crashed bool
}

// Propose is [Next], and what only positions can tell at an election: the most
// advanced takes office (within tells whether all that a has seen, b has seen; positions
// lie on a chain), of equals one whose UNLOGGED tables no crash has emptied, and whoever
// has what the new leader lacks, the old leader with its tail first of all, is
// not in sync until that is undone.
//
// own is the view that the proposer goes by. Whom it means to drop is the leader of
// that one: another proposer may have put somebody else into office since, or the same in
// a new term, and then nobody is dropped. Nor is a change of votes ended but the one of that view:
// of another the proposer does not know that nobody reads by a view from before it.
func Propose[P comparable](e int64, stands []Stand[P], in Intent, own *View, within func(a, b P) (bool, error)) (*View, error) {
	promises := make([]Promise, len(stands))
	at := make(map[MemberID]Stand[P], len(stands))
	for i, s := range stands {
		promises[i], at[s.Member] = s.Promise, s
	}
	base := own
	for _, p := range recognised(promises) {
		if p.Accepted != nil && p.Accepted.Epoch > base.Epoch {
			base = p.Accepted
		}
	}
	in.DropLeader = in.DropLeader && base.Term == own.Term
	in.Settle = in.Settle && base.Epoch == own.Epoch
	next, err := Next(e, promises, in)
	if err != nil || next.Term != e {
		return next, err
	}
	best := next.Leader
	for _, id := range next.InSync {
		if id == base.Leader && (in.DropLeader || !at[id].Booted) || in.Leader != 0 {
			continue // it comes last, or another was wished for
		}
		if ahead, err := within(at[best].Place, at[id].Place); err != nil {
			return nil, err
		} else if ahead && (at[best].Place != at[id].Place || at[best].Crashed && !at[id].Crashed) {
			best = id
		}
	}
	if best != next.Leader {
		in.Leader = best
		if next, err = Next(e, promises, in); err != nil {
			return nil, err
		}
	}
	var fit []MemberID
	for _, id := range next.InSync {
		if ok, err := within(at[id].Place, at[next.Leader].Place); err != nil {
			return nil, err
		} else if ok {
			fit = append(fit, id)
		}
	}
	next.InSync = fit
	return next, nil
}

// recognised leaves out promises of servers that are not the ones the newest view among
// the promises names: a server that was replaced does not know what its seat has promised
// since. Which view is the newest may change by that.
func recognised(promises []Promise) []Promise {
	for {
		var base *View
		for _, p := range promises {
			if p.Accepted != nil && (base == nil || p.Accepted.Epoch > base.Epoch) {
				base = p.Accepted
			}
		}
		if base == nil {
			return promises
		}
		known := make([]Promise, 0, len(promises))
		for _, p := range promises {
			if system := base.system(p.Member); system == "" || p.System == "" || p.System == system {
				known = append(known, p)
			}
		}
		if len(known) == len(promises) {
			return promises
		}
		promises = known
	}
}

// system is the server that the view names for a member, or that the view before named for
// one who is being removed; "" if none is named.
func (v *View) system(id MemberID) string {
	for _, list := range [][]Member{v.Members, v.Former} {
		for _, m := range list {
			if m.ID == id {
				return m.System
			}
		}
	}
	return ""
}
