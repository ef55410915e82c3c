package health

import (
	"errors"
	"testing"
)

// byRegister is a view of three databases and a register that has all votes, at an epoch.
func byRegister(epoch int64) *View {
	v := &View{Set: "s", Epoch: epoch, Term: 1, Leader: 1, InSync: []MemberID{1, 2}}
	for id := MemberID(1); id <= 3; id++ {
		v.Members = append(v.Members, Member{ID: id, Host: "db:5432"})
	}
	v.Members = append(v.Members, Member{ID: 4, Host: "file:///register.json", Weight: 1, Witness: true})
	return v
}

func promisesOf(e int64, accepted map[MemberID]*View) []Promise {
	var out []Promise
	for id := MemberID(1); id <= 4; id++ {
		if v, asked := accepted[id]; asked {
			out = append(out, Promise{Member: id, Epoch: e, Hard: id != 1, Booted: id == 1, Accepted: v})
		}
	}
	return out
}

// A register decides alone, down to the last database in sync, and nothing without it.
func TestRegisterDecidesAlone(t *testing.T) {
	v := byRegister(7)
	if m, there := v.Register(); !there || m.ID != 4 {
		t.Fatalf("the register is %+v, %v", m, there)
	}
	next, err := Next(8, promisesOf(8, map[MemberID]*View{2: v, 4: v}), Intent{DropLeader: true})
	if err != nil || next.Leader != 2 || len(next.InSync) != 1 {
		t.Errorf("with one database: %v, %v", next, err)
	}
	if next, err := Next(8, promisesOf(8, map[MemberID]*View{1: v, 2: v, 3: v}), Intent{}); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("without the register: %v, %v", next, err)
	}
	if next, err := Next(8, promisesOf(8, map[MemberID]*View{3: v, 4: v}), Intent{DropLeader: true}); !errors.Is(err, ErrLastMember) {
		t.Errorf("with a database that was not in sync: %v, %v", next, err)
	}
}

// A register that has accepted less than a database decides nothing: it was put back.
func TestForgetfulRegister(t *testing.T) {
	old, v := byRegister(6), byRegister(7)
	old.InSync = []MemberID{1, 2, 3}
	for _, who := range []MemberID{1, 2, 3} { // one that knows is enough
		all := map[MemberID]*View{1: old, 2: old, 3: old, 4: old}
		all[who] = v
		if next, err := Next(8, promisesOf(8, all), Intent{}); !errors.Is(err, ErrConflict) {
			t.Errorf("member %d has accepted more than the register: %v, %v", who, next, err)
		}
	}
	if next, err := Next(8, promisesOf(8, map[MemberID]*View{1: v, 2: v, 4: nil}), Intent{}); !errors.Is(err, ErrConflict) {
		t.Errorf("a register that has accepted nothing: %v, %v", next, err)
	}
	// The register may know more than anybody.
	if next, err := Next(8, promisesOf(8, map[MemberID]*View{1: old, 2: old, 3: old, 4: v}), Intent{}); err != nil || next.Has(3) {
		t.Errorf("a register that knows more: %v, %v", next, err)
	}
	// While the votes move, both lists' deciders have accepted what anybody has.
	moving := byRegister(7)
	moving.Former = []Member{{ID: 1, Weight: 1}, {ID: 2, Weight: 1}, {ID: 3, Weight: 1}}
	if next, err := Next(8, promisesOf(8, map[MemberID]*View{1: moving, 2: old, 3: old, 4: old}), Intent{}); !errors.Is(err, ErrConflict) {
		t.Errorf("while the votes move: %v, %v", next, err)
	}
	moving.Former = byRegister(6).Members
	moving.Members = []Member{{ID: 1, Host: "db:5432", Weight: 1}, {ID: 2, Host: "db:5432", Weight: 1}, {ID: 3, Host: "db:5432", Weight: 1}}
	if next, err := Next(8, promisesOf(8, map[MemberID]*View{1: moving, 2: moving, 3: moving, 4: old}), Intent{}); !errors.Is(err, ErrConflict) {
		t.Errorf("while the votes move back: %v, %v", next, err)
	}
	if next, err := Next(8, promisesOf(8, map[MemberID]*View{1: moving, 2: moving, 4: moving}), Intent{Settle: true}); err != nil || len(next.Former) != 0 {
		t.Errorf("while the votes move back, in order: %v, %v", next, err)
	}
	// A database with a casting vote is no register: programs of before asked it in any order.
	two := &View{Set: "s", Epoch: 7, Term: 1, Leader: 1, InSync: []MemberID{1, 2}, Members: []Member{{ID: 1, Host: "a:5432", Weight: 2}, {ID: 2, Host: "b:5432", Weight: 1}}}
	before := two.clone()
	before.Epoch = 6
	if _, err := Next(8, promisesOf(8, map[MemberID]*View{1: before, 2: two}), Intent{}); err != nil {
		t.Errorf("two databases: %v", err)
	}
	if got := two.Decisive(); len(got) != 1 || got[0] != 1 {
		t.Errorf("of two databases %v decide alone", got)
	}
}

// A view by a register is gone by only once every member in sync has accepted it.
func TestBorne(t *testing.T) {
	v := byRegister(7)
	for _, c := range []struct {
		accepted []MemberID
		want     bool
	}{{[]MemberID{1, 2, 4}, true}, {[]MemberID{1, 3, 4}, false}, {[]MemberID{4}, false}} {
		if got := v.Borne(c.accepted); got != c.want {
			t.Errorf("accepted by %v: %v", c.accepted, got)
		}
	}
	v.Members[3].Weight = 0
	v.Members[0].Weight, v.Members[1].Weight, v.Members[2].Weight = 1, 1, 1
	if !v.Borne([]MemberID{1, 3}) {
		t.Error("databases that vote need a majority, no more")
	}
}
