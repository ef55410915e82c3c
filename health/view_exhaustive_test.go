package health

import (
	"errors"
	"slices"
	"testing"
)

// TestNextEverySmallWorld goes through every set of two and three members:
// every in-sync set and leader, every combination of silent, soft and hard
// promises, a leader that crashed or not, and every intent, and holds the
// result against the rules as the design words them.
func TestNextEverySmallWorld(t *testing.T) {
	views, refusals := 0, 0
	for n := 2; n <= 3; n++ {
		forEachBase(n, func(base *View) {
			forEachPromises(base, func(promises []Promise) {
				forEachIntent(n, func(in Intent) {
					if t.Failed() {
						return
					}
					v, err := Next(9, promises, in)
					if err != nil {
						refusals++
						checkRefusal(t, base, promises, in, err)
						return
					}
					views++
					checkNext(t, base, v, promises, in)
				})
			})
		})
	}
	t.Logf("%d views, %d refusals", views, refusals)
	if views < 10_000 || refusals < 10_000 {
		t.Errorf("only %d views and %d refusals: the worlds are not what they should be", views, refusals)
	}
}

func forEachBase(n int, f func(*View)) {
	for _, inSync := range subsets(n) {
		for _, leader := range inSync {
			f(with(world(n), func(v *View) { v.InSync, v.Leader = inSync, leader }))
		}
	}
}

func forEachPromises(base *View, f func([]Promise)) {
	n := len(base.Members)
	total := 1
	for range n {
		total *= 3
	}
	for code := range total {
		for _, booted := range []bool{true, false} {
			var promises []Promise
			for i, rest := 0, code; i < n; i, rest = i+1, rest/3 {
				if rest%3 == 0 {
					continue
				}
				id := MemberID(i + 1)
				promises = append(promises, Promise{Member: id, Epoch: 9, Hard: rest%3 == 2, Accepted: base,
					Booted: booted && id == base.Leader, Rank: PositionRank{Term: 3, Xmax: uint64(10 * (n - i))}})
			}
			f(promises)
		}
	}
}

func forEachIntent(n int, f func(Intent)) {
	for _, exclude := range append(subsets(n), nil) {
		for join := range n + 1 {
			for leader := range n + 1 {
				for _, drop := range []bool{false, true} {
					f(Intent{Exclude: exclude, Join: MemberID(join), Leader: MemberID(leader), DropLeader: drop})
				}
			}
		}
	}
}

// subsets lists the non-empty ones of members 1 to n.
func subsets(n int) [][]MemberID {
	var all [][]MemberID
	for bits := 1; bits < 1<<n; bits++ {
		var ids []MemberID
		for i := range n {
			if bits>>i&1 == 1 {
				ids = append(ids, MemberID(i+1))
			}
		}
		all = append(all, ids)
	}
	return all
}

func checkNext(t *testing.T, base, v *View, promises []Promise, in Intent) {
	t.Helper()
	said := map[MemberID]Promise{}
	for _, p := range promises {
		said[p.Member] = p
	}
	must := func(ok bool, rule string) {
		if !ok {
			t.Fatalf("%s\nbase %v\npromises %+v\nintent %+v\ngot %v", rule, base, promises, in, v)
		}
	}
	kept := v.Leader == base.Leader && v.Term == base.Term
	boss := said[v.Leader]
	must(v.Validate() == nil, "the view is well formed")
	must(base.Quorum(sortedKeys(said)), "no view without a majority")
	must(v.Epoch == 9, "a fresh epoch")
	must(v.Term == base.Term || v.Term == 9, "a term is the old one or begins now")
	must(v.Has(v.Leader), "the leader is in sync")
	must(base.Has(v.Leader), "the leader comes from the old in-sync set")
	must(boss.Epoch == 9, "the leader promised")
	must(!slices.Contains(in.Exclude, v.Leader), "the leader is not excluded")
	must(kept || v.Term == 9, "a new leader has a new term")
	must(kept || boss.Hard, "whoever takes office is fenced")
	must(!kept || (boss.Booted && !in.DropLeader), "a leader that crashed or was dropped loses its term")
	must(in.Leader == 0 || in.Leader == v.Leader, "the wanted leader leads")
	for _, id := range v.InSync {
		must(base.Has(id) || id == in.Join, "in sync: only old ones and the joiner")
		must(!slices.Contains(in.Exclude, id), "in sync: nobody excluded")
		must(said[id].Hard || (kept && id == v.Leader), "in sync: hard, or the leader that is kept")
		must(base.Has(id) || kept, "nobody joins while the leader changes")
	}
	for _, id := range base.InSync {
		must(v.Has(id) || !said[id].Hard || slices.Contains(in.Exclude, id), "nobody is left out without a reason")
		last := id == base.Leader
		fit := said[id].Hard && !slices.Contains(in.Exclude, id)
		fallen := in.DropLeader || !said[base.Leader].Booted
		must(v.Term == base.Term || v.Leader != base.Leader || last || !fit || !fallen, "a fallen leader leads again only if nobody else can")
		rivals := kept || in.Leader != 0 || last || !fit || v.Leader == base.Leader
		must(rivals || said[id].Rank.Compare(boss.Rank) <= 0, "the most advanced is elected")
	}
	must(in.Join == 0 || v.Has(in.Join), "the joiner joined")
	calm := boss.Booted && !boss.Hard && !in.DropLeader
	must(kept || !calm || v.Leader != base.Leader, "a leader in good health keeps its term")
}

// checkRefusal makes sure that a view was refused for a reason.
func checkRefusal(t *testing.T, base *View, promises []Promise, in Intent, err error) {
	t.Helper()
	said := map[MemberID]Promise{}
	for _, p := range promises {
		said[p.Member] = p
	}
	fit := slices.DeleteFunc(slices.Clone(base.InSync), func(id MemberID) bool {
		return said[id].Epoch == 0 || slices.Contains(in.Exclude, id)
	})
	quorum := base.Quorum(sortedKeys(said))
	ok := false
	switch {
	case errors.Is(err, ErrNoView):
		ok = len(promises) == 0
	case errors.Is(err, ErrNoQuorum):
		ok = !quorum
	case errors.Is(err, ErrLastMember):
		ok = quorum && len(fit) == 0
	case errors.Is(err, ErrNeedHard):
		ok = quorum && (in.Join != 0 && !said[in.Join].Hard || slices.ContainsFunc(fit, func(id MemberID) bool { return !said[id].Hard }))
	case errors.Is(err, ErrIntent):
		ok = quorum && (in.Leader != 0 || in.Join != 0)
	}
	if !ok {
		t.Fatalf("refused without a reason: %v\nbase %v\npromises %+v\nintent %+v", err, base, promises, in)
	}
}
