package health

import (
	"cmp"
	"fmt"
	"slices"
)

// Promise is what a member answered when it was asked to promise an epoch: to
// accept no view of an older one from then on.
type Promise struct {
	Member MemberID
	// Epoch is the one promised. [Next] wants exactly the one it works for.
	Epoch int64
	// Hard tells that the member promised under the exclusive fence, so that
	// its role and its open transactions are over. A soft promise raises the
	// epoch only; it is enough for a leader that is kept.
	Hard bool
	// Accepted is the newest view that the member has accepted; nil if none.
	Accepted *View
	// Booted tells that the member's boot row is present: it has not crashed
	// since it took office. It counts only for the leader of the view that the
	// next one is based on.
	Booted bool
	// Term is the term of the member's position; for messages.
	Term int64
	// Rank is how far the member's data has come.
	Rank PositionRank
	// Amiss tells that the member is known to hold other bytes than its leader did: it
	// is to be left out and put right, and leads only if nobody else can.
	Amiss bool
	// System is the cluster's system identifier as the server that answered tells it;
	// "" where that is no question. A promise of a server that is not the one the newest
	// view names counts for nothing.
	System string
}

// PositionRank orders members by how far their data has come: by term, then
// by xmax of the snapshot. Members that are in sync hold all that was
// acknowledged whatever their rank, so ranks decide between them about the
// unacknowledged rest and nothing else.
type PositionRank struct {
	Term int64
	Xmax uint64
}

// Compare is negative if r is behind other, positive if ahead.
func (r PositionRank) Compare(other PositionRank) int {
	return cmp.Or(cmp.Compare(r.Term, other.Term), cmp.Compare(r.Xmax, other.Xmax))
}

// Intent is what a proposer wants of the next view. The zero value wants the
// present one again, less those that did not promise.
type Intent struct {
	// Exclude are members to leave out of the in-sync set.
	Exclude []MemberID
	// Join is a member to take into the in-sync set; 0 for none. It must have
	// promised hard, have been brought up to date from the leader after both
	// promised this epoch, and the leader must be one that is kept.
	Join MemberID
	// Leader is the wanted leader; 0 to keep the present one or elect one.
	Leader MemberID
	// DropLeader tells that the present leader failed or lost its boot row. It
	// leads again, in a new term, only if nobody else can.
	DropLeader bool
	// Add is a database to put on the list of members, not in sync; nil for none.
	// Its ID must be [View.NextID] of the view that is changed.
	Add *Member
	// Remove is a member to take off the list; 0 for none. It leaves the in-sync
	// set with it, and the leader's office.
	Remove MemberID
	// Votes are what members are to have from now on; who is not named keeps his.
	Votes map[MemberID]int
	// Settle ends a change of votes: the list before goes, if the view that has it is
	// known to have been chosen. Whoever wants it must know that nobody reads by a view
	// older than that one: such a reader is registered with the voters before alone.
	Settle bool
}

// Next computes the one view that may be proposed at epoch e after these
// promises. It is pure: same promises, same intent, same view. Errors are of
// type [*ViewError]; nothing was changed by them, and the promises hold.
//
// It keeps these rules, for the reasons given under "Agreement" in the design:
//   - The base is the accepted view of the highest epoch among the promises,
//     which must come from a majority by that view's weights, and from the servers that it names.
//   - In sync are those that were in sync in the base, promised and are not
//     excluded, and the joiner; except for a leader that is kept, only who
//     promised hard, and is not known to differ.
//   - The leader is kept, and its term with it, if it promised softly, has not crashed,
//     and neither the intent nor an exclusion takes the office from it.
//   - Otherwise the leader is the one wanted, else the most advanced, among
//     the base's in-sync members that promised hard; its term is e. A leader that
//     crashed or is dropped comes after all others, and only before those that are known
//     to differ.
//   - The last member is never excluded.
//   - Votes are given and taken by a view that has the list before as well
//     ([View.Former]) and is decided on by majorities of both (joint consensus: Ongaro,
//     "Consensus: Bridging Theory and Practice", section 4.3; two lists that differ by
//     one member only are not safe here, as they are not there: whoever finds one
//     of two changes that nobody chose could go on from it). The list before goes
//     by [Intent.Settle], if those that promised show that this view was chosen; until
//     then nobody else is added or removed.
func Next(e int64, promises []Promise, in Intent) (*View, error) {
	s := &step{epoch: e, in: in, promised: make(map[MemberID]Promise, len(promises))}
	promises = recognised(promises)
	if err := s.collect(promises); err != nil {
		return nil, err
	}
	if err := s.checkIntent(); err != nil {
		return nil, err
	}
	next := s.base.clone()
	next.Epoch = e
	if err := s.list(next); err != nil {
		return nil, err
	}
	if s.kept() {
		next.InSync = s.inSync(s.base.Leader)
	} else {
		leader, err := s.elect()
		if err != nil {
			return nil, err
		}
		next.Leader, next.Term = leader, e
		next.InSync = s.inSync(leader)
	}
	return next, nil
}

// step is one call of Next.
type step struct {
	epoch    int64
	in       Intent
	promised map[MemberID]Promise
	base     *View
}

// collect finds the base and checks that the promises are a majority for it.
func (s *step) collect(promises []Promise) error {
	for _, p := range promises {
		if _, twice := s.promised[p.Member]; twice {
			return s.fail(ErrConflict, "two promises of one member were counted", p.Member)
		}
		if p.Epoch > s.epoch {
			return s.fail(ErrStale, "propose again with a higher epoch", p.Member)
		}
		if p.Epoch < s.epoch {
			return s.fail(ErrConflict, fmt.Sprintf("the promise is for epoch %d", p.Epoch), p.Member)
		}
		s.promised[p.Member] = p
		if err := s.consider(p); err != nil {
			return err
		}
	}
	if s.base == nil {
		return s.fail(ErrNoView, "")
	}
	if err := s.base.Validate(); err != nil {
		return s.fail(ErrConflict, err.Error())
	}
	if err := s.remembers(); err != nil {
		return err
	}
	if !s.base.Quorum(sortedKeys(s.promised)) {
		silent := append(s.silent(s.base.Members), s.silent(s.base.Former)...)
		slices.Sort(silent)
		return s.fail(ErrNoQuorum, "bring enough of those that did not answer back", slices.Compact(silent)...)
	}
	return nil
}

// consider makes p's accepted view the base if it is the newest.
func (s *step) consider(p Promise) error {
	v := p.Accepted
	if v == nil {
		return nil
	}
	if v.Epoch >= s.epoch {
		return s.fail(ErrStale, fmt.Sprintf("epoch %d is accepted already; propose again with a higher one", v.Epoch), p.Member)
	}
	if s.base == nil {
		s.base = v
		return nil
	}
	if v.Set != s.base.Set {
		return s.fail(ErrConflict, "its view is of another set", p.Member)
	}
	if v.Epoch == s.base.Epoch && !v.Equal(s.base) {
		return s.fail(ErrConflict, fmt.Sprintf("two views of epoch %d: %v, and %v", v.Epoch, s.base, v), p.Member)
	}
	if v.Epoch > s.base.Epoch {
		s.base = v
	}
	return nil
}

func (s *step) checkIntent() error {
	known := func(id MemberID) bool { _, ok := s.base.Member(id); return ok }
	for _, id := range append(slices.Clone(s.in.Exclude), s.in.Join, s.in.Leader, s.in.Remove) {
		if id != 0 && !known(id) {
			return s.fail(ErrIntent, "the set has no such member", id)
		}
	}
	for id, votes := range s.in.Votes {
		if a := s.in.Add; !known(id) && (a == nil || a.ID != id) || votes < 0 {
			return s.fail(ErrIntent, "the set has no such member, or it was given less than no votes", id)
		}
	}
	for _, id := range []MemberID{s.in.Join, s.in.Leader} {
		if m, _ := s.base.Member(id); m.Witness {
			return s.fail(ErrIntent, "a witness holds no data", id)
		}
	}
	for _, id := range []MemberID{s.in.Join, s.in.Leader} {
		if id != 0 && s.excluded(id) {
			return s.fail(ErrIntent, "it is to be excluded at the same time", id)
		}
	}
	join := s.in.Join
	if join == 0 || (join == s.base.Leader && s.kept()) {
		return nil
	}
	if !s.promised[join].Hard {
		return s.fail(ErrNeedHard, "a member joins under the exclusive fence", join)
	}
	if !s.kept() && !s.base.Has(join) {
		return s.fail(ErrIntent, "the leader it was brought up to date from is not kept; settle the leader first, then join", join)
	}
	return nil
}

func (s *step) excluded(id MemberID) bool {
	return id == s.in.Remove || slices.Contains(s.in.Exclude, id)
}

// kept tells whether the leader stays in office.
func (s *step) kept() bool {
	leader := s.base.Leader
	p, promised := s.promised[leader]
	wanted := s.in.Leader == 0 || s.in.Leader == leader
	// A hard promise has ended its role: it may be elected, but stays in no office.
	return promised && !p.Hard && p.Booted && wanted && !s.in.DropLeader && !s.excluded(leader)
}

// eligible lists the old in-sync members that promised and are not excluded.
func (s *step) eligible() []MemberID {
	var ids []MemberID
	for _, id := range s.base.InSync {
		if _, ok := s.promised[id]; ok && !s.excluded(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// elect finds the leader of a new term.
func (s *step) elect() (MemberID, error) {
	all := s.eligible()
	if len(all) == 0 {
		return 0, s.fail(ErrLastMember, "bring one of them back, or do not exclude it", s.base.InSync...)
	}
	candidates := s.best(all)
	if s.in.Leader != 0 {
		if !slices.Contains(candidates, s.in.Leader) {
			return 0, s.fail(ErrIntent, "it did not promise, is not in sync, has crashed while others have not, or is known to differ from the leader", s.in.Leader)
		}
		candidates = []MemberID{s.in.Leader}
	}
	hard := slices.DeleteFunc(slices.Clone(candidates), func(id MemberID) bool { return !s.promised[id].Hard })
	if len(hard) == 0 {
		return 0, s.fail(ErrNeedHard, "whoever takes office must be fenced first", candidates...)
	}
	return slices.MaxFunc(hard, func(a, b MemberID) int {
		return cmp.Or(s.promised[a].Rank.Compare(s.promised[b].Rank), cmp.Compare(b, a))
	}), nil
}

// best leaves of those that could lead the ones that should.
func (s *step) best(all []MemberID) []MemberID {
	for _, avoid := range []func(MemberID) bool{
		func(id MemberID) bool { return s.promised[id].Amiss || s.comesLast(id) },
		func(id MemberID) bool { return s.promised[id].Amiss },
	} {
		if left := slices.DeleteFunc(slices.Clone(all), avoid); len(left) > 0 {
			return left
		}
	}
	return all
}

// comesLast tells of a leader that may take office again only if nobody else can.
func (s *step) comesLast(id MemberID) bool {
	return id == s.base.Leader && (s.in.DropLeader || !s.promised[id].Booted)
}

// inSync lists who will be in sync under leader. Whoever promised softly may
// still have transactions open, and unless it is the leader that is kept, nothing would fence them.
// Whoever differs from the leader is out: should it have been impossible to leave it out
// when that was found, it is now. A joiner has been put right since it promised.
func (s *step) inSync(leader MemberID) []MemberID {
	ids := slices.DeleteFunc(s.eligible(), func(id MemberID) bool {
		p := s.promised[id]
		return id != leader && (!p.Hard || p.Amiss)
	})
	if join := s.in.Join; join != 0 && !slices.Contains(ids, join) {
		ids = append(ids, join)
	}
	slices.Sort(ids)
	return ids
}

func (s *step) fail(err error, hint string, ids ...MemberID) error {
	e := &ViewError{Epoch: s.epoch, Err: err, Members: slices.Clone(ids), Hint: hint}
	for _, id := range ids {
		host := ""
		if s.base != nil {
			m, _ := s.base.Member(id)
			host = m.Host
		}
		e.hosts = append(e.hosts, host)
	}
	return e
}

func sortedKeys(m map[MemberID]Promise) []MemberID {
	ids := make([]MemberID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
