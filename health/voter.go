package health

import "slices"

// Voter is what a member says of itself when it is asked where it stands. Nothing is
// promised by saying it: it may be different by the time it is read.
type Voter struct {
	Member MemberID
	// Set is the set it belongs to.
	Set string
	// System is the cluster's system identifier as the server tells it; "" where that is no question.
	System string
	// Epoch is that of its fence, Accepted that of the view it accepted last.
	Epoch, Accepted int64
	// Leads tells that it holds the leader's role, Office the term it took it in.
	Leads  bool
	Office int64
	// Booted tells that it has not crashed since.
	Booted bool
}

// names tells whether the view means the server that answered: another under a member's address
// does not know what its seat has promised and accepted.
func (v *View) names(a Voter) bool {
	system := v.system(a.Member)
	return system == "" || a.System == "" || a.System == system
}

// Chosen tells whether a majority has accepted the view.
func (v *View) Chosen(voters []Voter) bool {
	var accepted []MemberID
	for _, a := range voters {
		if a.Set == v.Set && v.names(a) && a.Accepted == v.Epoch {
			accepted = append(accepted, a.Member)
		}
	}
	return v.Quorum(accepted)
}

// InOffice tells whether the view's leader has taken office and has not crashed since.
func (v *View) InOffice(voters []Voter) bool {
	for _, a := range voters {
		if a.Member == v.Leader {
			return v.names(a) && a.Leads && a.Booted && a.Office == v.Term
		}
	}
	return false
}

// InForce tells whether the view is chosen and every member it needs acts by it.
func (v *View) InForce(voters []Voter) bool {
	var accepted []MemberID
	for _, a := range voters {
		if v.names(a) && a.Accepted == v.Epoch && a.Epoch == v.Epoch {
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
