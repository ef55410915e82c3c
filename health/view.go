package health

import (
	"fmt"
	"slices"
	"strings"
	"time"
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
	// Witness tells that the member only votes: it holds none of the set's data,
	// is never in sync and never leads.
	Witness bool `json:"witness,omitempty"`
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
	// Former are the members before votes were last given or taken. While they are
	// here every decision needs a majority of their votes, too: somebody may not
	// have heard of the change. They go once a view that has both was chosen.
	Former []Member `json:"former,omitempty"`
	// LastID is the highest number that any member was given, if it has been removed
	// since: numbers are not used again, for what a removed member promised is not known.
	LastID MemberID `json:"last_id,omitempty"`
	// Removed are addresses of members that were removed, the latest last, so that a
	// configuration that names one is understood. At most [MaxRemoved].
	Removed []string `json:"removed,omitempty"`
	// Forced tells of the last view that an operator had chosen against the rules.
	Forced *Forced `json:"forced,omitempty"`
}

// MaxRemoved is how many addresses of removed members a view keeps.
const MaxRemoved = 32

// Forced records that an operator has let data go to have a leader again.
type Forced struct {
	// Epoch is the first view without the members that were given up.
	Epoch int64 `json:"epoch"`
	// At is when, by the clock of the operator's machine, and Who the operator, as
	// far as the machine knows.
	At  time.Time `json:"at"`
	Who string    `json:"who"`
	// Why is what kept the set from having a leader, and names who could have helped.
	Why string `json:"why"`
	// Lost are the addresses of the members that were given up.
	Lost []string `json:"lost"`
}

// Has tells whether the member is in sync.
func (v *View) Has(id MemberID) bool { return slices.Contains(v.InSync, id) }

// Data lists the members that hold, or are to hold, the set's data.
func (v *View) Data() []Member {
	return slices.DeleteFunc(slices.Clone(v.Members), func(m Member) bool { return m.Witness })
}

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

// Quorum tells whether the members given hold a majority of the votes; while votes
// are being given or taken, of those before and of those after.
func (v *View) Quorum(ids []MemberID) bool {
	return majority(v.Members, ids) && (len(v.Former) == 0 || majority(v.Former, ids))
}

func majority(voters []Member, ids []MemberID) bool {
	all, have := 0, 0
	for _, m := range voters {
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
	c.Former = slices.Clone(v.Former)
	c.Removed = slices.Clone(v.Removed)
	return &c
}

func (v *View) String() string {
	if v == nil {
		return "no view"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d term %d leader %d in sync %v of %d", v.Epoch, v.Term, v.Leader, v.InSync, len(v.Members))
	if len(v.Former) > 0 {
		b.WriteString(", changing its voters")
	}
	return b.String()
}
