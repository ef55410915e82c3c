package health

import (
	"fmt"
	"maps"
	"slices"
)

// Weights are the votes of n members in the order given at init: one each,
// and one more for the first if n is even, so that two halves never tie. Of
// two members the first therefore decides alone, and the second never.
func Weights(n int) []int {
	w := make([]int, n)
	for i := range w {
		w[i] = 1
	}
	if n > 0 && n%2 == 0 {
		w[0]++
	}
	return w
}

// NextID is the number that a member added to this view has.
func (v *View) NextID() MemberID {
	id := v.LastID
	for _, list := range [][]Member{v.Members, v.Former} {
		for _, m := range list {
			id = max(id, m.ID)
		}
	}
	return id + 1
}

// StandardVotes are the votes of [Weights] among these members, where the first
// that is no witness has the casting one.
func StandardVotes(members []Member) map[MemberID]int {
	votes := make(map[MemberID]int, len(members))
	first := MemberID(0)
	for _, m := range members {
		votes[m.ID] = 1
		if first == 0 && !m.Witness {
			first = m.ID
		}
	}
	if len(members)%2 == 0 && first != 0 {
		votes[first]++
	}
	return votes
}

// list makes the changes to the list of members.
func (s *step) list(next *View) error {
	if s.in.Settle && s.settled() {
		next.Former = nil
	}
	if !s.relisted() {
		return nil
	}
	if len(s.base.Former) > 0 {
		return s.fail(ErrIntent, "the voters are being changed; ask again once that is done")
	}
	before := slices.Clone(next.Members)
	if a := s.in.Add; a != nil {
		switch {
		case a.ID != s.base.NextID():
			return s.fail(ErrIntent, fmt.Sprintf("the next member has number %d, not %d: the list was changed meanwhile", s.base.NextID(), a.ID))
		case slices.ContainsFunc(before, func(m Member) bool { return m.Host == a.Host }):
			return s.fail(ErrIntent, a.Host+" is a member already")
		}
		next.Members = append(next.Members, *a)
		next.Removed = slices.DeleteFunc(next.Removed, func(h string) bool { return h == a.Host })
	}
	if id := s.in.Remove; id != 0 {
		m, _ := s.base.Member(id)
		next.Members = slices.DeleteFunc(next.Members, func(m Member) bool { return m.ID == id })
		next.Removed = append(next.Removed, m.Host)
		next.Removed = next.Removed[max(0, len(next.Removed)-MaxRemoved):]
		next.LastID = s.base.NextID() - 1
	}
	for i, m := range next.Members {
		if w, named := s.in.Votes[m.ID]; named {
			next.Members[i].Weight = w
		}
	}
	if !sameVotes(before, next.Members) {
		next.Former = before
	}
	if next.Former != nil && !next.Quorum(sortedKeys(s.promised)) {
		return s.fail(ErrNoQuorum, "those that will have a majority of the votes must answer", s.silent(next.Members)...)
	}
	return nil
}

// relisted tells whether the intent is about the list of members.
func (s *step) relisted() bool {
	return s.in.Add != nil || s.in.Remove != 0 || len(s.in.Votes) > 0
}

// settled tells whether the base is known to have been chosen: by those that promised.
func (s *step) settled() bool {
	var accepted []MemberID
	for id, p := range s.promised {
		if p.Accepted != nil && p.Accepted.Epoch == s.base.Epoch {
			accepted = append(accepted, id)
		}
	}
	return s.base.Quorum(accepted)
}

// sameVotes tells whether both lists have the same voters with the same votes.
func sameVotes(a, b []Member) bool {
	votes := func(list []Member) map[MemberID]int {
		out := map[MemberID]int{}
		for _, m := range list {
			if m.Weight > 0 {
				out[m.ID] = m.Weight
			}
		}
		return out
	}
	return maps.Equal(votes(a), votes(b))
}

// silent lists the voters among members that did not promise.
func (s *step) silent(members []Member) []MemberID {
	var ids []MemberID
	for _, m := range members {
		if _, ok := s.promised[m.ID]; !ok && m.Weight > 0 {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
