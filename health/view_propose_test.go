package health

import "testing"

// upTo orders positions that are numbers.
func upTo(a, b int) (bool, error) { return a <= b, nil }

func stands(at map[MemberID]int, promises ...Promise) []Stand[int] {
	var out []Stand[int]
	for _, p := range promises {
		out = append(out, Stand[int]{Promise: p, Place: at[p.Member]})
	}
	return out
}

// The most advanced takes office, and who has what it lacks is not in sync.
func TestProposeGoesByPositions(t *testing.T) {
	v := world(3)
	crowd := []Promise{crashed(hard(v, 1)), hard(v, 2), hard(v, 3)}
	got, err := Propose(9, stands(map[MemberID]int{1: 9, 2: 5, 3: 7}, crowd...), Intent{}, v, upTo)
	if err != nil || got.Leader != 3 || got.Has(1) || !got.Has(2) {
		t.Errorf("after a crash of the leader, with a tail: %v, %v", got, err)
	}
	got, err = Propose(9, stands(map[MemberID]int{1: 9, 2: 5, 3: 7}, crowd...), Intent{Leader: 2}, v, upTo)
	if err != nil || got.Leader != 2 || got.Has(3) || got.Has(1) {
		t.Errorf("one that is behind was wished for: %v, %v", got, err)
	}
}

// A proposer means the leader and the change of votes that it has seen.
func TestProposeMeansWhatItSaw(t *testing.T) {
	own := world(3)
	now := with(own, func(v *View) { v.Epoch, v.Term = 7, 7 })
	at := map[MemberID]int{1: 9, 2: 9, 3: 9}
	got, err := Propose(9, stands(at, soft(now, 1), hard(now, 2), hard(now, 3)), Intent{DropLeader: true}, own, upTo)
	if err != nil || got.Leader != 1 || got.Term != 7 {
		t.Errorf("a leader that took office since was dropped: %v, %v", got, err)
	}
	joint := with(own, func(v *View) { v.Former = v.Members })
	later := with(joint, func(v *View) { v.Epoch = 7 })
	for _, tt := range []struct {
		name string
		own  *View
		want bool
	}{{"a change of votes that it has not seen", joint, true}, {"the one that it has seen", later, false}} {
		got, err := Propose(9, stands(at, soft(later, 1), hard(later, 2), hard(later, 3)), Intent{Settle: true}, tt.own, upTo)
		if err != nil || (len(got.Former) > 0) != tt.want {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}
