package history

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRegisters(t *testing.T) {
	for _, c := range []struct {
		what, history string
		want          []string
	}{
		{"in order", "0 + write [1,5]\n1 + read [1,5]\n1 + cas [1,[5,6]]\n0 + read [1,6]\n0 + read [2,null]", nil},
		{"either way", "0 invoke write [1,5]\n1 + read [1,null]\n1 + read [1,5]\n0 ok write [1,5]", nil},
		{"unknown, late", "0 invoke write [1,5]\n0 info write [1,5]\n1 + read [1,null]\n1 + read [1,5]", nil},
		{"unknown, never", "0 + write [1,1]\n2 invoke cas [1,[1,5]]\n2 info cas [1,[1,5]]\n1 + write [1,7]\n1 + read [1,7]", nil},
		{"failed", "0 invoke write [1,5]\n0 fail write [1,5]\n1 + read [1,null]", nil},
		{"stale", "0 + write [1,5]\n1 + read [1,null]", []string{"not linearizable"}},
		{"back and forth", "0 invoke write [1,5]\n1 + read [1,5]\n1 + read [1,null]", []string{"not linearizable"}},
		{"of a failed write", "0 invoke write [1,5]\n0 fail write [1,5]\n1 + read [1,5]", []string{"not linearizable"}},
		{"two who both won", "0 + write [1,1]\n1 + cas [1,[1,2]]\n2 + cas [1,[1,3]]", []string{"not linearizable"}},
		{"from nowhere", "0 + read [1,9]", []string{"not linearizable"}},
		{"an unknown one seen and then not", "0 + write [1,1]\n2 invoke cas [1,[1,5]]\n2 info cas [1,[1,5]]\n1 + read [1,5]\n1 + read [1,1]", []string{"not linearizable"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			found, err := CheckRegisters(told(t, c.history), time.Minute)
			expect(t, found, err, c.want...)
		})
	}
}

func TestRandomRegisters(t *testing.T) {
	rng := random(t)
	held := map[int64]*int64{}
	s := serial{rng: rng, clients: 8}
	s.ask = func(int) (string, any) {
		key, n, old := int64(rng.IntN(3)), int64(rng.IntN(5)), int64(rng.IntN(5))
		switch rng.IntN(3) {
		case 0:
			return "write", []any{key, n}
		case 1:
			return "cas", []any{key, []int64{old, n}}
		}
		return "read", []any{key, nil}
	}
	s.do = func(f string, value any) (Type, any) {
		v := value.([]any)
		key := v[0].(int64)
		switch f {
		case "read":
			return OK, []any{key, held[key]}
		case "write":
			n := v[1].(int64)
			held[key] = &n
		case "cas":
			on := v[1].([]int64)
			if held[key] == nil || *held[key] != on[0] {
				return Fail, value
			}
			held[key] = &on[1]
		}
		if rng.IntN(20) == 0 {
			return Info, value
		}
		return OK, value
	}
	found, err := CheckRegisters(s.run(300), time.Minute)
	expect(t, found, err)
}

func TestSet(t *testing.T) {
	for _, c := range []struct {
		what, history   string
		session, strict []string
	}{
		{"in order", "0 + add 1\n1 + read [1]\n0 + add 2\n1 + read [2,1]", nil, nil},
		{"unknown", "0 invoke add 1\n0 info add 1\n1 + read []\n1 + read [1]", nil, nil},
		{"lost", "0 + add 1\n1 + read []", []string{"lost element"}, []string{"lost element"}},
		{"failed, and there", "0 invoke add 1\n0 fail add 1\n1 + read [1]", []string{"failed element"}, []string{"failed element"}},
		{"seen, then undone", "0 invoke add 1\n1 + read [1]\n0 fail add 1\n1 + read []", nil, []string{"failed element", "unseen element"}},
		{"seen, then not yet", "0 invoke add 1\n1 + read [1]\n2 + read []\n0 ok add 1", nil, []string{"unseen element"}},
		{"from nowhere", "1 + read [1]", []string{"unknown element"}, []string{"unknown element"}},
		{"ahead of time", "1 + read [1]\n0 + add 1", []string{"unknown element"}, []string{"unknown element"}},
		{"twice", "0 + add 1\n1 + read [1,1]", []string{"duplicate element"}, []string{"duplicate element"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			found, err := CheckSet(told(t, c.history), Session)
			expect(t, found, err, c.session...)
			found, err = CheckSet(told(t, c.history), Strict)
			expect(t, found, err, c.strict...)
		})
	}
}

func TestBank(t *testing.T) {
	for _, c := range []struct {
		what, history string
		want          []string
	}{
		{"in order", "0 + transfer [1,2,5]\n1 + read [[1,5],[2,15]]", nil},
		{"made", "1 + read [[1,10],[2,15]]", []string{"wrong total"}},
		{"overdrawn", "1 + read [[1,-1],[2,21]]", []string{"overdrawn"}},
		{"one gone", "1 + read [[2,20]]", []string{"wrong accounts"}},
		{"one twice", "1 + read [[2,10],[2,10]]", []string{"wrong accounts"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			found, err := CheckBank(told(t, c.history), 2, 20)
			expect(t, found, err, c.want...)
		})
	}
}

func TestLongFork(t *testing.T) {
	for _, c := range []struct {
		what, history   string
		session, strict []string
	}{
		{"one chain", "0 + write 1\n1 + read [[1,1],[2,0]]\n0 + write 2\n1 + read [[2,1],[1,1]]", nil, nil},
		{"fork", "0 invoke write 1\n1 invoke write 2\n2 + read [[1,1],[2,0]]\n3 + read [[1,0],[2,1]]\n0 ok write 1\n1 ok write 2", []string{"long fork"}, []string{"long fork"}},
		{"of what was undone", "0 invoke write 1\n1 invoke write 2\n2 + read [[1,1],[2,0]]\n3 + read [[1,0],[2,1]]\n0 fail write 1\n1 ok write 2", nil, []string{"long fork"}},
		{"of different keys", "0 + write 1\n1 + write 2\n2 + read [[1,1],[3,0]]\n3 + read [[1,0],[2,1]]", nil, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			found, err := CheckLongFork(told(t, c.history), Session)
			expect(t, found, err, c.session...)
			found, err = CheckLongFork(told(t, c.history), Strict)
			expect(t, found, err, c.strict...)
		})
	}
}

func TestCounters(t *testing.T) {
	for _, c := range []struct {
		what, history   string
		session, strict []string
	}{
		{"in order", "0 + write [1,1]\n0 + read [1,1]\n1 + read [1,1]\n1 + read [2,0]", nil, nil},
		{"not what I wrote", "0 + write [1,1]\n0 + read [1,0]", []string{"stale read"}, []string{"stale read"}},
		{"not what he wrote", "0 + write [1,1]\n1 + read [1,0]", []string{"stale read"}, []string{"stale read"}},
		{"back", "0 invoke write [1,1]\n1 + read [1,1]\n1 + read [1,0]", nil, []string{"lost sight"}},
		{"failed, passed over", "0 invoke write [1,1]\n0 fail write [1,1]\n0 + write [1,2]\n1 + read [1,2]", nil, nil},
		{"failed, and there", "0 invoke write [1,1]\n0 fail write [1,1]\n1 + read [1,1]", []string{"failed value"}, []string{"failed value"}},
		{"from nowhere", "1 + read [1,1]", []string{"unknown value"}, []string{"unknown value"}},
		{"ahead of time", "1 + read [1,1]\n0 + write [1,1]", []string{"unknown value"}, []string{"unknown value"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			found, err := CheckCounters(told(t, c.history), Session)
			expect(t, found, err, c.session...)
			found, err = CheckCounters(told(t, c.history), Strict)
			expect(t, found, err, c.strict...)
		})
	}
	for what, history := range map[string]string{
		"one left out":        "0 + write [1,2]",
		"on after an unknown": "0 invoke write [1,1]\n0 info write [1,1]\n1 + write [1,2]",
	} {
		if _, err := CheckCounters(told(t, history), Session); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// A history that was written and read again is the same.
func TestLines(t *testing.T) {
	r := NewRecorder()
	p := r.Process()
	r.Invoke(p, "read", []any{1, nil})
	r.End(p, Fail, "read", []any{1, nil}, cmpError("gone"))
	q := r.Process()
	r.Invoke(q, "write", []any{1, 2})
	r.End(q, Info, "write", []any{1, 2}, nil)
	var b bytes.Buffer
	if err := Write(&b, r.Ops()); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b.Bytes(), []byte("\n")); n != 4 {
		t.Errorf("%d lines of four operations", n)
	}
	got, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Ops(), got); diff != "" {
		t.Error(diff)
	}
	if _, err := Read(bytes.NewBufferString("{\"index\":0}\n{")); err == nil {
		t.Error("half a line is read without an error")
	}
}

type cmpError string

func (e cmpError) Error() string { return string(e) }
