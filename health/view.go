package health

import (
	"fmt"
	"slices"
	"strings"
)

// MemberID names one database of the set. It is the member's place in the
// list given at init, counted from 1, is stored in the database itself and
// never changes, whatever the order of hosts in a DSN.
type MemberID int

// Member is what a view records about one database: facts fixed at init, by
// which a database is recognised wherever its address leads.
type Member struct {
	ID MemberID `json:"id"`
	// Host is "host:port" as given at init; a hint for messages only.
	Host string `json:"host"`
	// System is the cluster's system identifier, as pg_control_system() tells it.
	System string `json:"system"`
	// Weight is the number of votes the member has about views.
	Weight int `json:"weight"`
}

// View says who leads and who may be read and must be written. A View is
// immutable once published: whoever changes it makes a copy.
type View struct {
	// Set is the random id given to the set at init.
	Set string `json:"set"`
	// Epoch numbers the view; every change is a fresh, higher epoch.
	Epoch int64 `json:"epoch"`
	// Term is the epoch in which the present leader took office.
	Term int64 `json:"term"`
	// Leader is where writes run first; 0 if there is none.
	Leader MemberID `json:"leader"`
	// InSync lists, in ascending order, the members that hold every
	// acknowledged write, the leader among them.
	InSync []MemberID `json:"in_sync"`
	// Members are all databases of the set, ordered by ID.
	Members []Member `json:"members"`
}

// Has tells whether the member is in sync.
func (v *View) Has(id MemberID) bool { return slices.Contains(v.InSync, id) }

// Followers lists the in-sync members other than the leader.
func (v *View) Followers() []MemberID {
	out := make([]MemberID, 0, len(v.InSync))
	for _, id := range v.InSync {
		if id != v.Leader {
			out = append(out, id)
		}
	}
	return out
}

// Member returns what the view records about id.
func (v *View) Member(id MemberID) (Member, bool) {
	for _, m := range v.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// Quorum tells whether the members given hold a majority of the votes.
func (v *View) Quorum(ids []MemberID) bool {
	all, have := 0, 0
	for _, m := range v.Members {
		all += m.Weight
		if slices.Contains(ids, m.ID) {
			have += m.Weight
		}
	}
	return 2*have > all
}

func (v *View) clone() *View {
	c := *v
	c.InSync = slices.Clone(v.InSync)
	c.Members = slices.Clone(v.Members)
	return &c
}

func (v *View) String() string {
	if v == nil {
		return "no view"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d term %d leader %d in sync %v of %d", v.Epoch, v.Term, v.Leader, v.InSync, len(v.Members))
	return b.String()
}
