package health

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// world is a set of n members with everybody in sync under member 1.
func world(n int) *View {
	v := &View{Set: "s", Epoch: 5, Term: 3, Leader: 1}
	for i, w := range Weights(n) {
		id := MemberID(i + 1)
		v.Members = append(v.Members, Member{ID: id, Host: "h" + string(rune('0'+id)) + ":5432", Weight: w})
		v.InSync = append(v.InSync, id)
	}
	return v
}

func with(v *View, change func(*View)) *View {
	c := v.clone()
	change(c)
	return c
}

// hard and soft are promises of epoch 9 by members that have accepted v.
func hard(v *View, id MemberID) Promise {
	return Promise{Member: id, Epoch: 9, Hard: true, Accepted: v, Booted: true, Term: v.Term, Rank: PositionRank{Term: v.Term, Xmax: 100}}
}

func soft(v *View, id MemberID) Promise {
	p := hard(v, id)
	p.Hard = false
	return p
}

func crashed(p Promise) Promise { p.Booted = false; return p }

func amiss(p Promise) Promise { p.Amiss = true; return p }

func rank(p Promise, term int64, xmax uint64) Promise {
	p.Rank = PositionRank{Term: term, Xmax: xmax}
	return p
}

func TestWeights(t *testing.T) {
	for n, want := range map[int][]int{0: {}, 1: {1}, 2: {2, 1}, 3: {1, 1, 1}, 4: {2, 1, 1, 1}, 5: {1, 1, 1, 1, 1}} {
		if got := Weights(n); !slices.Equal(got, want) {
			t.Errorf("Weights(%d) = %v, want %v", n, got, want)
		}
	}
}

func TestViewQuorum(t *testing.T) {
	two, even := world(2), with(world(2), func(v *View) { v.Members[0].Weight = 1 })
	witness := with(world(3), func(v *View) { v.Members[1].Weight = 0 })
	for _, tt := range []struct {
		view *View
		ids  []MemberID
		want bool
	}{
		{two, []MemberID{1}, true},
		{two, []MemberID{2}, false},
		{even, []MemberID{1}, false},
		{even, []MemberID{1, 2}, true},
		{world(3), []MemberID{3, 3, 3}, false},
		{world(3), []MemberID{2, 3}, true},
		{world(4), []MemberID{2, 3}, false},
		{world(4), []MemberID{1, 4}, true},
		{world(4), []MemberID{2, 3, 4}, true},
		{witness, []MemberID{1, 2}, false},
		{witness, []MemberID{1, 3}, true},
		{world(3), nil, false},
	} {
		if got := tt.view.Quorum(tt.ids); got != tt.want {
			t.Errorf("%v of %+v: %v", tt.ids, tt.view.Members, got)
		}
	}
}

func TestNext(t *testing.T) {
	v := world(3)
	alone := with(v, func(v *View) { v.InSync = []MemberID{1} })
	newer := with(v, func(v *View) { v.Epoch, v.Term, v.Leader, v.InSync = 7, 7, 2, []MemberID{2, 3} })
	two := world(2)
	tests := []struct {
		name     string
		promises []Promise
		in       Intent
		leader   MemberID
		term     int64
		inSync   []MemberID
	}{
		{"nothing changes", []Promise{soft(v, 1), hard(v, 2), hard(v, 3)}, Intent{}, 1, 3, []MemberID{1, 2, 3}},
		{"who does not promise is out", []Promise{soft(v, 1), hard(v, 3)}, Intent{}, 1, 3, []MemberID{1, 3}},
		{"a soft follower is out: nothing fences it", []Promise{soft(v, 1), soft(v, 2), hard(v, 3)}, Intent{}, 1, 3, []MemberID{1, 3}},
		{"a hard leader takes office anew: its role is over", []Promise{hard(v, 1), hard(v, 2), hard(v, 3)}, Intent{}, 1, 9, []MemberID{1, 2, 3}},
		{"exclusion", []Promise{soft(v, 1), hard(v, 2), hard(v, 3)}, Intent{Exclude: []MemberID{2}}, 1, 3, []MemberID{1, 3}},
		{"down to the leader", []Promise{soft(v, 1), hard(v, 2), hard(v, 3)}, Intent{Exclude: []MemberID{2, 3}}, 1, 3, []MemberID{1}},
		{"leader silent", []Promise{hard(v, 2), hard(v, 3)}, Intent{}, 2, 9, []MemberID{2, 3}},
		{"the most advanced leads", []Promise{rank(hard(v, 2), 3, 100), rank(hard(v, 3), 3, 101)}, Intent{}, 3, 9, []MemberID{2, 3}},
		{"the term ranks before xmax", []Promise{rank(hard(v, 2), 3, 1), rank(hard(v, 3), 2, 999)}, Intent{}, 2, 9, []MemberID{2, 3}},
		{"never the one with most data", []Promise{hard(with(v, func(v *View) { v.InSync = []MemberID{1, 2} }), 2),
			rank(hard(with(v, func(v *View) { v.InSync = []MemberID{1, 2} }), 3), 4, 999)}, Intent{}, 2, 9, []MemberID{2}},
		{"the newest accepted view is the base", []Promise{hard(v, 1), hard(newer, 3)}, Intent{}, 3, 9, []MemberID{3}},
		{"its order does not matter", []Promise{hard(newer, 3), hard(v, 1)}, Intent{}, 3, 9, []MemberID{3}},
		{"a member without a view promises too", []Promise{soft(v, 1), {Member: 2, Epoch: 9, Hard: true}}, Intent{}, 1, 3, []MemberID{1, 2}},
		{"crashed leader, another is there", []Promise{rank(crashed(hard(v, 1)), 3, 999), hard(v, 2)}, Intent{}, 2, 9, []MemberID{1, 2}},
		{"crashed leader, soft: out", []Promise{crashed(soft(v, 1)), hard(v, 2)}, Intent{}, 2, 9, []MemberID{2}},
		{"crashed leader alone leads a new term", []Promise{crashed(hard(alone, 1)), hard(alone, 2)}, Intent{}, 1, 9, []MemberID{1}},
		{"dropped leader, another is there", []Promise{rank(hard(v, 1), 3, 999), hard(v, 2)}, Intent{DropLeader: true}, 2, 9, []MemberID{1, 2}},
		{"dropped leader is the last", []Promise{hard(alone, 1), hard(alone, 2)}, Intent{DropLeader: true}, 1, 9, []MemberID{1}},
		{"excluded leader", []Promise{hard(v, 1), hard(v, 2)}, Intent{Exclude: []MemberID{1}}, 2, 9, []MemberID{2}},
		{"wanted leader", []Promise{hard(v, 1), hard(v, 2), hard(v, 3)}, Intent{Leader: 3}, 3, 9, []MemberID{1, 2, 3}},
		{"wanted leader, the old one soft: out", []Promise{soft(v, 1), hard(v, 2), hard(v, 3)}, Intent{Leader: 3}, 3, 9, []MemberID{2, 3}},
		{"the present leader is wanted", []Promise{soft(v, 1), hard(v, 2)}, Intent{Leader: 1}, 1, 3, []MemberID{1, 2}},
		{"a follower's crash does not matter", []Promise{soft(v, 1), crashed(hard(v, 2))}, Intent{}, 1, 3, []MemberID{1, 2}},
		{"who differs does not lead, and is out", []Promise{rank(amiss(hard(v, 2)), 3, 999), hard(v, 3)}, Intent{}, 3, 9, []MemberID{3}},
		{"who differs is out under a leader that is kept", []Promise{soft(v, 1), amiss(hard(v, 2)), hard(v, 3)}, Intent{}, 1, 3, []MemberID{1, 3}},
		{"a leader that crashed leads before one that differs", []Promise{crashed(hard(v, 1)), amiss(hard(v, 2))}, Intent{}, 1, 9, []MemberID{1}},
		{"a leader that was dropped, too", []Promise{hard(v, 1), amiss(hard(v, 2))}, Intent{DropLeader: true}, 1, 9, []MemberID{1}},
		{"who differs leads if nobody else can", []Promise{amiss(hard(v, 2)), amiss(hard(v, 3))}, Intent{}, 2, 9, []MemberID{2}},
		{"a leader that is kept may differ", []Promise{amiss(soft(v, 1)), hard(v, 3)}, Intent{}, 1, 3, []MemberID{1, 3}},
		{"a joiner has been put right", []Promise{soft(alone, 1), amiss(hard(alone, 3))}, Intent{Join: 3}, 1, 3, []MemberID{1, 3}},
		{"join", []Promise{soft(alone, 1), hard(alone, 3)}, Intent{Join: 3}, 1, 3, []MemberID{1, 3}},
		{"join of one who is in sync", []Promise{soft(v, 1), hard(v, 3)}, Intent{Join: 3}, 1, 3, []MemberID{1, 3}},
		{"join of the kept leader", []Promise{soft(v, 1), hard(v, 3)}, Intent{Join: 1}, 1, 3, []MemberID{1, 3}},
		{"a promise alone does not join", []Promise{soft(alone, 1), hard(alone, 3)}, Intent{}, 1, 3, []MemberID{1}},
		{"two members, the first has the casting vote", []Promise{soft(two, 1)}, Intent{}, 1, 3, []MemberID{1}},
		{"no leader yet", []Promise{hard(with(v, func(v *View) { v.Leader = 0 }), 2), hard(with(v, func(v *View) { v.Leader = 0 }), 3)}, Intent{}, 2, 9, []MemberID{2, 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.promises[0].Accepted.clone()
			got, err := Next(9, tt.promises, tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if got.Leader != tt.leader || got.Term != tt.term || !slices.Equal(got.InSync, tt.inSync) {
				t.Errorf("got %v, want leader %d term %d in sync %v", got, tt.leader, tt.term, tt.inSync)
			}
			if got.Epoch != 9 || got.Set != "s" || !slices.Equal(got.Members, before.Members) {
				t.Errorf("the rest of the view changed: %+v", got)
			}
			if !tt.promises[0].Accepted.Equal(before) {
				t.Error("an accepted view was changed in place")
			}
		})
	}
}

func TestNextErrors(t *testing.T) {
	v, two := world(3), world(2)
	at := func(p Promise, epoch int64) Promise { p.Epoch = epoch; return p }
	other := with(v, func(v *View) { v.Leader = 2 })
	stranger := with(v, func(v *View) { v.Set, v.Epoch = "t", 6 })
	tests := []struct {
		name     string
		promises []Promise
		in       Intent
		want     error
		names    []MemberID
	}{
		{"nobody", nil, Intent{}, ErrNoView, nil},
		{"no view", []Promise{{Member: 1, Epoch: 9, Hard: true}}, Intent{}, ErrNoView, nil},
		{"a minority", []Promise{soft(v, 1)}, Intent{}, ErrNoQuorum, []MemberID{2, 3}},
		{"half, without the casting vote", []Promise{hard(two, 2)}, Intent{}, ErrNoQuorum, []MemberID{1}},
		{"a stranger has no vote", []Promise{soft(v, 1), hard(v, 4)}, Intent{}, ErrNoQuorum, []MemberID{2, 3}},
		{"promised to a newer epoch", []Promise{soft(v, 1), at(hard(v, 2), 10)}, Intent{}, ErrStale, []MemberID{2}},
		{"promised to an older epoch only", []Promise{soft(v, 1), at(hard(v, 2), 8)}, Intent{}, ErrConflict, []MemberID{2}},
		{"accepted newer", []Promise{soft(v, 1), hard(with(v, func(v *View) { v.Epoch = 10 }), 2)}, Intent{}, ErrStale, []MemberID{2}},
		{"accepted the same", []Promise{soft(v, 1), hard(with(v, func(v *View) { v.Epoch = 9 }), 2)}, Intent{}, ErrStale, []MemberID{2}},
		{"one answer counted twice", []Promise{soft(v, 1), soft(v, 1)}, Intent{}, ErrConflict, []MemberID{1}},
		{"two views of one epoch", []Promise{soft(v, 1), hard(other, 2)}, Intent{}, ErrConflict, []MemberID{2}},
		{"another set", []Promise{soft(v, 1), hard(stranger, 2)}, Intent{}, ErrConflict, []MemberID{2}},
		{"a damaged view", []Promise{soft(with(v, func(v *View) { v.InSync = []MemberID{2} }), 1), hard(earlier(v), 2)}, Intent{}, ErrConflict, nil},
		{"nobody in sync answers", []Promise{hard(with(v, func(v *View) { v.InSync = []MemberID{1} }), 2), hard(earlier(v), 3)}, Intent{}, ErrLastMember, []MemberID{1}},
		{"the last is not excluded", []Promise{soft(v, 1), hard(v, 2)}, Intent{Exclude: []MemberID{1, 2}}, ErrLastMember, []MemberID{1, 2, 3}},
		{"a new leader must be hard", []Promise{soft(v, 2), soft(v, 3)}, Intent{}, ErrNeedHard, []MemberID{2, 3}},
		{"the wanted leader must be hard", []Promise{hard(v, 1), soft(v, 2), hard(v, 3)}, Intent{Leader: 2}, ErrNeedHard, []MemberID{2}},
		{"a crashed leader must be hard", []Promise{crashed(soft(two, 1))}, Intent{}, ErrNeedHard, []MemberID{1}},
		{"a joiner, soft", []Promise{soft(v, 1), soft(v, 2)}, Intent{Join: 2}, ErrNeedHard, []MemberID{2}},
		{"a joiner that did not answer", []Promise{soft(v, 1), hard(v, 2)}, Intent{Join: 3}, ErrNeedHard, []MemberID{3}},
		{"joining under a new leader", []Promise{hard(with(v, func(v *View) { v.InSync = []MemberID{1, 2} }), 2), hard(earlier(v), 3)}, Intent{Join: 3}, ErrIntent, []MemberID{3}},
		{"join and exclude", []Promise{soft(v, 1), hard(v, 2)}, Intent{Join: 2, Exclude: []MemberID{2}}, ErrIntent, []MemberID{2}},
		{"lead and exclude", []Promise{soft(v, 1), hard(v, 2)}, Intent{Leader: 2, Exclude: []MemberID{2}}, ErrIntent, []MemberID{2}},
		{"wanted leader does not answer", []Promise{hard(v, 1), hard(v, 2)}, Intent{Leader: 3}, ErrIntent, []MemberID{3}},
		{"wanted leader has crashed", []Promise{crashed(hard(v, 1)), hard(v, 2)}, Intent{Leader: 1}, ErrIntent, []MemberID{1}},
		{"wanted leader is dropped", []Promise{hard(v, 1), hard(v, 2)}, Intent{Leader: 1, DropLeader: true}, ErrIntent, []MemberID{1}},
		{"unknown member", []Promise{soft(v, 1), hard(v, 2)}, Intent{Exclude: []MemberID{7}}, ErrIntent, []MemberID{7}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Next(9, tt.promises, tt.in)
			var ve *ViewError
			if got != nil || !errors.Is(err, tt.want) || !errors.As(err, &ve) {
				t.Fatalf("got %v, %v; want %v", got, err, tt.want)
			}
			if ve.Epoch != 9 || !slices.Equal(ve.Members, tt.names) {
				t.Errorf("names %v, want %v (%v)", ve.Members, tt.names, err)
			}
		})
	}
}

// earlier is the view before v, as a member shows it that missed v.
func earlier(v *View) *View { return with(v, func(v *View) { v.Epoch, v.Term = 1, 1 }) }

func TestViewErrorSaysWhatToDo(t *testing.T) {
	v := with(world(3), func(v *View) { v.InSync = []MemberID{1} })
	_, err := Next(9, []Promise{hard(v, 2), hard(v, 3)}, Intent{})
	for _, part := range []string{"epoch 9", "member 1 (h1:5432)", "bring one of them back"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestViewValidate(t *testing.T) {
	if err := world(3).Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*View){
		"term after epoch":      func(v *View) { v.Term = 6 },
		"leader not in sync":    func(v *View) { v.InSync = []MemberID{2} },
		"nobody in sync":        func(v *View) { v.InSync, v.Leader = nil, 0 },
		"in sync out of order":  func(v *View) { v.InSync = []MemberID{2, 1} },
		"in sync twice":         func(v *View) { v.InSync = []MemberID{1, 1} },
		"in sync, no member":    func(v *View) { v.InSync = []MemberID{1, 4} },
		"members out of order":  func(v *View) { slices.Reverse(v.Members) },
		"no votes":              func(v *View) { v.Members[0].Weight, v.Members[1].Weight, v.Members[2].Weight = 0, 0, 0 },
		"fewer than zero votes": func(v *View) { v.Members[0].Weight = -1 },
	} {
		if err := with(world(3), change).Validate(); !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A server that was put in a member's place knows what its seat promised since; the one it
// replaced does not, and may come back under the old address.
func TestNextForgetsReplacedServers(t *testing.T) {
	was := with(world(3), func(v *View) {
		for i := range v.Members {
			v.Members[i].System = "first"
		}
	})
	now := with(was, func(v *View) { v.Epoch, v.Members[2].System = 7, "second" })
	of := func(p Promise, system string) Promise { p.System = system; return p }
	first, second := of(hard(was, 3), "first"), of(hard(now, 3), "second")
	v, err := Next(9, []Promise{of(soft(now, 1), "first"), first}, Intent{})
	if !errors.Is(err, ErrNoQuorum) {
		t.Errorf("a majority with a server that was replaced: %v, %v", v, err)
	}
	v, err = Next(9, []Promise{of(soft(was, 1), "first"), second}, Intent{})
	if err != nil || !v.Has(3) || v.Members[2].System != "second" {
		t.Errorf("the server that took its place: %v, %v", v, err)
	}
	// The newest view counts only if it comes from a server that has a seat.
	alien := of(hard(with(now, func(v *View) { v.Epoch, v.Leader = 8, 2 }), 3), "third")
	v, err = Next(9, []Promise{of(soft(now, 1), "first"), of(hard(now, 2), "first"), alien}, Intent{})
	if err != nil || v.Leader != 1 || v.Has(3) {
		t.Errorf("a server that is in no view: %v, %v", v, err)
	}
}
