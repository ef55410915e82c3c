package health

import (
	"fmt"
	"slices"
	"strings"
)

// A register that is kept elsewhere than in the databases, in a file or in etcd, is a witness
// whose Host is a URL. Where it has the majority of the votes alone, no database can tell
// what it has forgotten, should it be put back from a backup: hence two rules. It accepts
// every view before any database does ([View.Decisive]). So a database that has accepted a
// newer view than the register has knows that the register is not what it was, and
// nothing is decided by it ([ErrConflict]).

// Register tells of a voter that is no database but a register in a file or in etcd.
func (m Member) Register() bool { return strings.Contains(m.Host, "://") }

// Register is the one that has the majority of the votes alone; false if there is none.
func (v *View) Register() (Member, bool) {
	for _, id := range decisive(v.Members) {
		if m, _ := v.Member(id); m.Register() {
			return m, true
		}
	}
	return Member{}, false
}

// Decisive lists those that have a majority of the votes alone, in the list of members or in
// the one before. They accept a view first, and nobody else does unless they have.
func (v *View) Decisive() []MemberID {
	ids := append(decisive(v.Members), decisive(v.Former)...)
	slices.Sort(ids)
	return slices.Compact(ids)
}

func decisive(list []Member) []MemberID {
	for _, m := range list {
		if majority(list, []MemberID{m.ID}) {
			return []MemberID{m.ID}
		}
	}
	return nil
}

// Borne tells, where a register is decisive, that every member in sync has accepted the
// view: as long as one of them answers, a register that has forgotten it is found out. Where none is, it is true.
func (v *View) Borne(accepted []MemberID) bool {
	if !v.byRegister() {
		return true
	}
	return !slices.ContainsFunc(v.InSync, func(id MemberID) bool { return !slices.Contains(accepted, id) })
}

func (v *View) byRegister() bool {
	for _, list := range [][]Member{v.Members, v.Former} {
		for _, id := range decisive(list) {
			if slices.ContainsFunc(list, func(m Member) bool { return m.ID == id && m.Register() }) {
				return true
			}
		}
	}
	return false
}

// Forgetful lists the decisive registers that have accepted less than the view, though
// somebody else has accepted that; accepted is the epoch that each voter has accepted last.
func (v *View) Forgetful(accepted map[MemberID]int64) []MemberID {
	var out []MemberID
	for _, id := range v.Decisive() {
		m, listed := v.Member(id)
		if !listed {
			i := slices.IndexFunc(v.Former, func(m Member) bool { return m.ID == id })
			m = v.Former[i]
		}
		if have, asked := accepted[id]; m.Register() && asked && have < v.Epoch {
			out = append(out, id)
		}
	}
	return out
}

// remembers refuses a base that a decisive register has not accepted.
func (s *step) remembers() error {
	accepted := map[MemberID]int64{}
	for id, p := range s.promised {
		accepted[id] = 0
		if p.Accepted != nil {
			accepted[id] = p.Accepted.Epoch
		}
	}
	if ids := s.base.Forgetful(accepted); len(ids) > 0 {
		return s.fail(ErrConflict, fmt.Sprintf("the register has not accepted the view of epoch %d, which a database has accepted after it: it was put back from a backup or copied, and nobody knows what it has forgotten; put the original back, or run: pgdist force DSN", s.base.Epoch), ids...)
	}
	return nil
}
