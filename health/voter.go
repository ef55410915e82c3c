package health

import "slices"

// Voter is what a member says of itself when it is asked where it stands. Nothing is
// promised by saying it: it may be different by the time it is read.
type Voter struct {
	Member MemberID
	// Set is the set it belongs to.
	Set string
	// Epoch is that of its fence, Accepted that of the view it accepted last.
	Epoch, Accepted int64
	// Leads tells that it holds the leader's role, Office the term it took it in.
	Leads  bool
	Office int64
	// Booted tells that it has not crashed since.
	Booted bool
}

// Chosen tells whether a majority has accepted the view.
func (v *View) Chosen(voters []Voter) bool {
	var accepted []MemberID
	for _, a := range voters {
		if a.Set == v.Set && a.Accepted == v.Epoch {
			accepted = append(accepted, a.Member)
		}
	}
	return v.Quorum(accepted)
}

// InOffice tells whether the view's leader has taken office and has not crashed since.
func (v *View) InOffice(voters []Voter) bool {
	for _, a := range voters {
		if a.Member == v.Leader {
			return a.Leads && a.Booted && a.Office == v.Term
		}
	}
	return false
}

// InForce tells whether the view is chosen and every member it needs acts by it.
func (v *View) InForce(voters []Voter) bool {
	var accepted []MemberID
	for _, a := range voters {
		if a.Accepted == v.Epoch && a.Epoch == v.Epoch {
			accepted = append(accepted, a.Member)
		} else if v.Has(a.Member) {
			return false
		}
		if v.Has(a.Member) && a.Leads != (a.Member == v.Leader) {
			return false
		}
	}
	return v.Quorum(accepted) && v.InOffice(voters) && !slices.ContainsFunc(v.InSync, func(id MemberID) bool { return !slices.Contains(accepted, id) })
}
