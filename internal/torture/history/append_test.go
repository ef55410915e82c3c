package history

import (
	"encoding/json"
	"testing"
)

// Each anomaly, as small as it can be, and what must not be taken for one.
func TestAnomaliesOfLists(t *testing.T) {
	for _, c := range []struct {
		what, history string
		want          []string
	}{
		{"nothing", ``, nil},
		{"one after the other", `
			0 + txn [["append",1,1]]
			1 + txn [["r",1,[1]],["append",1,2]]
			0 + txn [["r",1,[1,2]],["r",2,null]]`, nil},
		{"side by side, either order will do", `
			0 invoke txn [["append",1,1]]
			1 invoke txn [["r",1,null]]
			0 ok txn [["append",1,1]]
			1 ok txn [["r",1,null]]`, nil},
		{"unknown, and seen", `
			0 invoke txn [["append",1,1]]
			0 info txn [["append",1,1]]
			1 + txn [["r",1,[1]]]`, nil},
		{"unknown, and not seen until later", `
			0 invoke txn [["append",1,1]]
			1 + txn [["r",1,null]]
			1 + txn [["r",1,[1]]]`, nil},
		{"dirty write", `
			0 invoke txn [["append",1,1],["append",2,1]]
			1 invoke txn [["append",1,2],["append",2,2]]
			0 ok txn [["append",1,1],["append",2,1]]
			1 ok txn [["append",1,2],["append",2,2]]
			2 + txn [["r",1,[1,2]],["r",2,[2,1]]]`, []string{"G0"}},
		{"aborted read", `
			0 invoke txn [["append",1,1]]
			1 invoke txn [["r",1,null]]
			0 fail txn [["append",1,1]]
			1 ok txn [["r",1,[1]]]`, []string{"G1a"}},
		{"intermediate read", `
			0 invoke txn [["append",1,1],["append",1,2]]
			1 invoke txn [["r",1,null]]
			0 ok txn [["append",1,1],["append",1,2]]
			1 ok txn [["r",1,[1]]]
			2 + txn [["r",1,[1,2]]]`, []string{"G-single", "G1b"}}, // it stands before and after what it read
		{"information flows in a circle", `
			0 invoke txn [["append",1,1],["r",2,null]]
			1 invoke txn [["append",2,1],["r",1,null]]
			0 ok txn [["append",1,1],["r",2,[1]]]
			1 ok txn [["append",2,1],["r",1,[1]]]`, []string{"G1c"}},
		{"read skew", `
			0 invoke txn [["r",1,null],["r",2,null]]
			1 + txn [["append",1,1],["append",2,1]]
			0 ok txn [["r",1,null],["r",2,[1]]]`, []string{"G-single"}},
		{"lost update", `
			0 invoke txn [["r",1,null],["append",1,1]]
			1 invoke txn [["r",1,null],["append",1,2]]
			0 ok txn [["r",1,null],["append",1,1]]
			1 ok txn [["r",1,null],["append",1,2]]
			2 + txn [["r",1,[1,2]]]`, []string{"G-single", "lost update"}},
		{"lost update whose second half nobody sees", `
			0 invoke txn [["r",1,null],["append",1,1]]
			1 invoke txn [["r",1,null],["append",1,2]]
			0 ok txn [["r",1,null],["append",1,1]]
			1 ok txn [["r",1,null],["append",1,2]]`, []string{"G2-item", "lost update"}},
		{"long fork", `
			0 invoke txn [["append",1,1]]
			1 invoke txn [["append",2,1]]
			2 invoke txn [["r",1,null],["r",2,null]]
			3 invoke txn [["r",1,null],["r",2,null]]
			2 ok txn [["r",1,[1]],["r",2,null]]
			3 ok txn [["r",1,null],["r",2,[1]]]
			0 ok txn [["append",1,1]]
			1 ok txn [["append",2,1]]
			4 + txn [["r",1,[1]],["r",2,[1]]]`, []string{"G-nonadjacent"}},
		{"write skew", `
			0 invoke txn [["r",1,null],["append",2,1]]
			1 invoke txn [["r",2,null],["append",1,1]]
			0 ok txn [["r",1,null],["append",2,1]]
			1 ok txn [["r",2,null],["append",1,1]]
			2 + txn [["r",1,[1]],["r",2,[1]]]`, []string{"G2-item"}},
		{"a process that reads what it wrote, and then less", `
			0 invoke txn [["append",1,1]]
			1 + txn [["r",1,[1]]]
			1 + txn [["r",1,null]]
			0 ok txn [["append",1,1]]`, []string{"G-single-process"}},
		{"the same by two processes", `
			0 invoke txn [["append",1,1]]
			1 + txn [["r",1,[1]]]
			2 + txn [["r",1,null]]
			0 ok txn [["append",1,1]]`, []string{"G-single-realtime"}},
		{"writes against the clock", `
			0 + txn [["append",1,1]]
			1 + txn [["append",1,2]]
			2 + txn [["r",1,[2,1]]]`, []string{"G0-realtime"}},
		{"a read that is late", `
			0 + txn [["append",1,1]]
			1 + txn [["r",1,null]]
			2 + txn [["r",1,[1]]]`, []string{"G-single-realtime", "lost append"}},
		{"acknowledged, and never seen", `
			0 + txn [["append",1,1]]
			1 + txn [["r",1,null]]`, []string{"G-single-realtime", "lost append"}},
		{"not what it had read before", `
			0 invoke txn [["r",1,null],["r",1,null]]
			1 + txn [["append",1,1]]
			0 ok txn [["r",1,null],["r",1,[1]]]`, []string{"G-single", "internal"}},
		{"not what it had appended itself", `
			0 + txn [["append",1,1],["r",1,null]]`, []string{"internal"}},
		{"twice", `
			0 + txn [["append",1,1]]
			1 + txn [["r",1,[1,1]]]`, []string{"duplicate elements"}},
		{"from nowhere", `
			1 + txn [["r",1,[1]]]`, []string{"unknown element"}},
		{"two stories", `
			0 invoke txn [["append",1,1]]
			1 invoke txn [["append",1,2]]
			2 + txn [["r",1,[1]]]
			3 + txn [["r",1,[2,1]]]
			0 ok txn [["append",1,1]]
			1 ok txn [["append",1,2]]`, []string{"incompatible order"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			found, err := CheckAppend(told(t, c.history))
			expect(t, found, err, c.want...)
		})
	}
}

func TestWeakerLevelsAllowMore(t *testing.T) {
	skew := told(t, `
		0 invoke txn [["r",1,null],["append",2,1]]
		1 invoke txn [["r",2,null],["append",1,1]]
		0 ok txn [["r",1,null],["append",2,1]]
		1 ok txn [["r",2,null],["append",1,1]]
		2 + txn [["r",1,[1]],["r",2,[1]]]`)
	lost := told(t, `
		0 invoke txn [["r",1,null],["append",1,1]]
		1 invoke txn [["r",1,null],["append",1,2]]
		0 ok txn [["r",1,null],["append",1,1]]
		1 ok txn [["r",1,null],["append",1,2]]
		2 + txn [["r",1,[1,2]]]`)
	gone := told(t, `
		0 + txn [["append",1,1]]
		1 + txn [["r",1,null]]`)
	for _, c := range []struct {
		ops  []Op
		want [3]bool // found, by level
	}{{skew, [3]bool{true, false, false}}, {lost, [3]bool{true, true, false}}, {gone, [3]bool{true, true, true}}} {
		found, err := CheckAppend(c.ops)
		if err != nil {
			t.Fatal(err)
		}
		for level, want := range c.want {
			if left := Weaker(found, Level(level)); (len(left) > 0) != want {
				t.Errorf("level %d of %q: %v", level, names(found), left)
			}
		}
	}
}

// What no workload can have recorded is an error, not a finding.
func TestImpossibleHistories(t *testing.T) {
	for what, history := range map[string]string{
		"a number twice":           "0 + txn [[\"append\",1,1]]\n1 + txn [[\"append\",1,1]]",
		"an end without beginning": "0 ok txn []",
		"two at a time":            "0 invoke txn []\n0 invoke txn []",
		"on after unknown":         "0 invoke txn []\n0 info txn []\n0 invoke txn []",
		"another end":              "0 invoke txn []\n0 ok read []",
		"no such thing":            "0 + frobnicate []",
		"no such step":             "0 + txn [[\"w\",1,1]]",
		"a step too short":         "0 + txn [[\"r\",1]]",
		"no such type":             "0 invoke txn []\n0 done txn []",
	} {
		if found, err := CheckAppend(told(t, history)); err == nil {
			t.Errorf("%s: %v, and no error", what, found)
		}
	}
}

// store is a map of lists that executes transactions one by one.
func store(s *serial) {
	lists := map[int64][]int64{}
	next := int64(0)
	s.ask = func(int) (string, any) {
		var steps [][3]any
		for range 1 + s.rng.IntN(4) {
			key := int64(s.rng.IntN(4))
			if s.rng.IntN(2) == 0 {
				next++
				steps = append(steps, [3]any{"append", key, next})
			} else {
				steps = append(steps, [3]any{"r", key, nil})
			}
		}
		return "txn", steps
	}
	s.do = func(_ string, value any) (Type, any) {
		how := s.rng.IntN(20)
		var got [][3]any
		for _, step := range value.([][3]any) {
			key := step[1].(int64)
			switch {
			case step[0] == "r":
				step[2] = append([]int64(nil), lists[key]...)
			case how != 0:
				lists[key] = append(lists[key], step[2].(int64))
			}
			got = append(got, step)
		}
		switch how {
		case 0:
			return Fail, value
		case 1:
			return Info, value
		}
		return OK, got
	}
}

// Histories of a store that executes transactions one by one are without fault, and
// each of many ways to spoil one is noticed.
func TestGeneratedLists(t *testing.T) {
	rng := random(t)
	tried := map[string]int{}
	for range 15 {
		s := serial{rng: rng, clients: 8}
		store(&s)
		ops := s.run(200)
		found, err := CheckAppend(ops)
		expect(t, found, err)
		if t.Failed() {
			return
		}
		for name, spoil := range spoilers {
			bad := spoil(rng.IntN, ops)
			if bad == nil {
				continue // there is no place for it in this history
			}
			tried[name]++
			if found, err := CheckAppend(bad); err != nil || len(found) == 0 {
				t.Errorf("%s was not noticed (%v)", name, err)
			}
		}
	}
	for name := range spoilers {
		if tried[name] < 3 {
			t.Errorf("%s was tried only %d times", name, tried[name])
		}
	}
}

// spoilers falsify a history; nil if it has no place for that.
var spoilers = map[string]func(pick func(int) int, ops []Op) []Op{
	"an acknowledged element that a later read lacks": func(pick func(int) int, ops []Op) []Op {
		return change(pick, ops, late, func(list []int64) []int64 { return list[:len(list)-1] })
	},
	"two elements that change places": func(pick func(int) int, ops []Op) []Op {
		return change(pick, ops, shorter, func(list []int64) []int64 {
			i := pick(len(list) - 1)
			list[i], list[i+1] = list[i+1], list[i]
			return list
		})
	},
	"an element twice": func(pick func(int) int, ops []Op) []Op {
		return change(pick, ops, shorter, func(list []int64) []int64 { return append(list, list[pick(len(list))]) })
	},
	"an element of nobody": func(pick func(int) int, ops []Op) []Op {
		return change(pick, ops, late, func(list []int64) []int64 { return append(list, 1<<40) })
	},
	"a list that was never so": func(pick func(int) int, ops []Op) []Op {
		return change(pick, ops, shorter, func(list []int64) []int64 { return list[1:] })
	},
}

// seen is a read of a history that is to be falsified.
type seen struct {
	list    []int64
	late    bool // the last element had been acknowledged when the transaction began
	longest int  // the longest list read of the key
}

func late(s seen) bool    { return s.late }
func shorter(s seen) bool { return len(s.list) >= 2 && len(s.list) < s.longest }

func numbers(text json.RawMessage) (list []int64) {
	if err := json.Unmarshal(text, &list); err != nil {
		panic(err)
	}
	return list
}

func text(list []int64) json.RawMessage {
	out, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return out
}

// change falsifies one of the reads that fit, if there is one.
func change(pick func(int) int, ops []Op, fits func(seen) bool, f func(list []int64) []int64) []Op {
	begun := map[int]int{}   // process → index
	acked := map[int64]int{} // element → index
	longest := map[string]int{}
	type place struct {
		op, step int
		key      string
		seen
	}
	var places []place
	for i, op := range ops {
		if op.Type == Invoke {
			begun[op.Process] = i
		}
		if op.Type != OK {
			continue
		}
		for at, s := range steps(op) {
			if string(s[0]) == `"append"` {
				acked[numbers(json.RawMessage("[" + string(s[2]) + "]"))[0]] = i
				continue
			}
			p := place{i, at, string(s[1]), seen{list: numbers(s[2])}}
			if n := len(p.list); n > 0 {
				when, ok := acked[p.list[n-1]]
				p.late = ok && when < begun[op.Process]
			}
			longest[p.key] = max(longest[p.key], len(p.list))
			places = append(places, p)
		}
	}
	var fit []place
	for _, p := range places {
		p.longest = longest[p.key]
		if fits(p.seen) {
			fit = append(fit, p)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	p := fit[pick(len(fit))]
	changed := steps(ops[p.op])
	changed[p.step][2] = text(f(p.list))
	value, err := json.Marshal(changed)
	if err != nil {
		panic(err)
	}
	out := append([]Op(nil), ops...)
	out[p.op].Value = value
	return out
}

func steps(op Op) (out [][3]json.RawMessage) {
	if err := json.Unmarshal(op.Value, &out); err != nil {
		panic(err)
	}
	return out
}
