package history

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// told is a history as the tests write it: one line per operation's beginning or end,
// "process type f value".
func told(t *testing.T, text string) []Op {
	t.Helper()
	var ops []Op
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		parts := strings.SplitN(line, " ", 4)
		if len(parts) != 4 {
			t.Fatalf("%q has no four parts", line)
		}
		op := Op{Index: len(ops), F: parts[2], Value: json.RawMessage(parts[3]), Time: int64(len(ops))}
		if err := json.Unmarshal([]byte(parts[0]), &op.Process); err != nil {
			t.Fatal(err)
		}
		switch parts[1] {
		case "+": // began and ended at once
			op.Type = Invoke
			ops = append(ops, op)
			op.Index, op.Type = len(ops), OK
		default:
			op.Type = Type(parts[1])
		}
		ops = append(ops, op)
	}
	return ops
}

// names lists, once each, what was found.
func names(found []Violation) []string {
	set := map[string]bool{}
	for _, v := range found {
		set[v.Name] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// expect compares the names of what was found with those wanted, in order.
func expect(t *testing.T, found []Violation, err error, want ...string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if got := names(found); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q: %v", got, want, found)
	}
}

// random prints its seed.
func random(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// serial makes the history of clients each of whose operations happens at one moment
// between its beginning and its end, as a correct store's does. do is that moment: it
// returns the answer and how the operation ended; of Info it may have happened or not.
type serial struct {
	rng     *rand.Rand
	clients int
	ask     func(process int) (f string, value any)
	do      func(f string, value any) (Type, any)
}

func (s serial) run(n int) []Op {
	type busy struct {
		process int
		f       string
		value   any
		typ     Type
		got     any
		done    bool
	}
	r := NewRecorder()
	clients := make([]*busy, s.clients)
	ids := make([]int, s.clients)
	for i := range ids {
		ids[i] = r.Process()
	}
	for begun := 0; ; {
		i := s.rng.IntN(s.clients)
		c := clients[i]
		switch {
		case c == nil && begun < n:
			f, value := s.ask(ids[i])
			clients[i] = &busy{process: ids[i], f: f, value: value}
			r.Invoke(ids[i], f, value)
			begun++
		case c == nil:
			if !slices.ContainsFunc(clients, func(b *busy) bool { return b != nil }) {
				return r.Ops()
			}
		case !c.done:
			c.typ, c.got = s.do(c.f, c.value)
			c.done = true
		default:
			r.End(c.process, c.typ, c.f, c.got, nil)
			if c.typ == Info {
				ids[i] = r.Process()
			}
			clients[i] = nil
		}
	}
}
