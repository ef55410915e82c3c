package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/etcdtest"
)

// kinds are the stores that must all keep the same promises; each gives an address at which
// nothing is.
func kinds(t *testing.T) map[string]string {
	t.Helper()
	e := etcdtest.Start(t, 1)
	file, err := FileURL(filepath.Join(t.TempDir(), "register [*].json"))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"file": file, "etcd": e.URL("pgdist/a-set")}
}

func open(t *testing.T, address string) *Register {
	t.Helper()
	r, err := Open(address, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var begun = State{Set: "s", Member: 4, ID: "id"}

// A register of either kind answers as a database does: an epoch is promised once, a view
// accepted for the newest promise alone, and all that outlives whoever asked.
func TestRegister(t *testing.T) {
	for kind, address := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			r := open(t, address)
			if _, err := r.Look(ctx(t)); !errors.Is(err, ErrMissing) {
				t.Fatalf("of nothing: %v", err)
			}
			if _, _, err := r.Promise(ctx(t), 1); !errors.Is(err, ErrMissing) {
				t.Fatalf("nothing promised: %v", err)
			}
			if err := r.Create(ctx(t), begun); err != nil {
				t.Fatal(err)
			}
			if err := open(t, address).Create(ctx(t), State{Set: "s", Member: 4, ID: "another"}); !errors.Is(err, ErrExists) {
				t.Fatalf("begun twice: %v", err)
			}
			promise := func(e int64, want bool) {
				t.Helper()
				if given, s, err := r.Promise(ctx(t), e); err != nil || given != want || given && s.Promised != e {
					t.Fatalf("promise %d: %v, %+v, %v", e, given, s, err)
				}
			}
			accept := func(e int64, view string, want bool) {
				t.Helper()
				if took, err := r.Accept(ctx(t), e, []byte(view)); err != nil || took != want {
					t.Fatalf("accept %d: %v, %v", e, took, err)
				}
			}
			accept(5, `{"a": 1}`, false)
			promise(5, true)
			promise(5, false)
			promise(4, false)
			accept(4, `{"a": 1}`, false)
			accept(5, `{"a": 1}`, true)
			accept(5, `{"a":1}`, true) // the same once more: its answer was lost
			accept(5, `{"a": 2}`, false)
			promise(7, true)
			accept(5, `{"a": 1}`, false)
			accept(6, `{"a": 1}`, false)
			other := open(t, address)
			s, err := other.Look(ctx(t))
			if err != nil || s.Set != "s" || s.Member != 4 || s.ID != "id" || s.Promised != 7 || s.Accepted != 5 || string(s.View) != `{"a":1}` {
				t.Fatalf("what another program finds: %+v, %v", s, err)
			}
			programs(t, r, other)
			if err := r.Remove(ctx(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Look(ctx(t)); !errors.Is(err, ErrMissing) {
				t.Fatalf("after the end: %v", err)
			}
		})
	}
}

// programs are put on the list, are alive as long as they live, and are taken off.
func programs(t *testing.T, r, other *Register) {
	t.Helper()
	me := Program{ID: "me", Name: "the test", Epoch: 3, Lease: time.Second}
	confirm := func(r *Register, p Program, known bool) (*State, []string) {
		t.Helper()
		s, got, alive, err := r.Confirm(ctx(t), p, true)
		if err != nil || got != known {
			t.Fatalf("confirm %s: known %v, %v", p.ID, got, err)
		}
		return s, alive
	}
	confirm(r, me, false)
	if err := errors.Join(r.Enrol(ctx(t), me), other.Enrol(ctx(t), Program{ID: "you", Epoch: 3, Lease: 2 * time.Second})); err != nil {
		t.Fatal(err)
	}
	me.Epoch, me.Lease = 5, 3*time.Second
	s, alive := confirm(r, me, true)
	if p := s.program("me"); p.Epoch != 5 || p.Lease != 3*time.Second || p.Name != "the test" || s.program("you") == nil || len(s.Programs) != 2 {
		t.Errorf("the list: %+v", s.Programs)
	}
	if slices.Sort(alive); !slices.Equal(alive, []string{"me", "you"}) {
		t.Errorf("alive: %v", alive)
	}
	me.Epoch = 4 // a late question takes nothing back
	if s, _ := confirm(r, me, true); s.program("me").Epoch != 5 {
		t.Errorf("the epoch fell: %+v", s.Programs)
	}
	_, before, err := r.load(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	confirm(r, me, true)
	if _, after, err := r.load(ctx(t)); err != nil || after != before {
		t.Errorf("a confirmation that brought nothing new was written down: %v, %v, %v", before, after, err)
	}
	if err := r.Dismiss(ctx(t), []string{"me", "you"}, 5); err != nil {
		t.Fatal(err)
	}
	if s, _ := confirm(r, me, true); len(s.Programs) != 1 {
		t.Errorf("after the dismissal of those below 5: %+v", s.Programs)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, alive := confirm(r, me, true); !slices.Equal(alive, []string{"me"}) {
		t.Errorf("alive: %v", alive)
	}
}

// However many ask at once, an epoch is promised to one of them, and one view is accepted
// for it; and what is accepted once stays until something newer is.
func TestContention(t *testing.T) {
	const programs, rounds = 4, 12
	for kind, address := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			first := open(t, address)
			if err := first.Create(ctx(t), begun); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			given, taken := map[int64]int{}, map[int64]string{}
			var wg sync.WaitGroup
			for i := range programs {
				r := open(t, address)
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				wg.Go(func() {
					for range rounds {
						s, err := r.Look(ctx(t))
						if err != nil {
							t.Error(err)
							return
						}
						e := s.Promised + 1 + rng.Int64N(2)
						got, _, err := r.Promise(ctx(t), e)
						if err != nil {
							t.Error(err)
							return
						}
						if !got {
							continue
						}
						view := fmt.Sprintf(`{"by":%d}`, i)
						took, err := r.Accept(ctx(t), e, []byte(view))
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						given[e]++
						if took {
							taken[e] = view
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			last := int64(0)
			for e, n := range given {
				if n != 1 {
					t.Errorf("epoch %d was promised %d times", e, n)
				}
			}
			for e := range taken {
				last = max(last, e)
			}
			if s, err := first.Look(ctx(t)); err != nil || s.Accepted != last || string(s.View) != taken[last] {
				t.Errorf("in the end: %+v, %v; the last that was accepted is %d, %s", s, err, last, taken[last])
			}
			if len(taken) == 0 {
				t.Error("nothing was accepted: the case is none")
			}
		})
	}
}

// Of two that have loaded the same version one replaces it; the other is told that it
// came too late.
func TestSwapComesTooLate(t *testing.T) {
	for kind, address := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			a, b := open(t, address), open(t, address)
			if err := a.Create(ctx(t), begun); err != nil {
				t.Fatal(err)
			}
			mine, at, err := a.load(ctx(t))
			if err != nil {
				t.Fatal(err)
			}
			if given, _, err := b.Promise(ctx(t), 9); !given || err != nil {
				t.Fatal(given, err)
			}
			mine.Promised = 3
			raw, err := mine.encode()
			if err != nil {
				t.Fatal(err)
			}
			if done, err := a.s.swap(ctx(t), at, raw); done || err != nil {
				t.Errorf("a version was put over a newer one: %v, %v", done, err)
			}
			if s, err := a.Look(ctx(t)); err != nil || s.Promised != 9 {
				t.Errorf("what was promised is forgotten: %+v, %v", s, err)
			}
		})
	}
}

// What is no state of a register, or one of another format, is refused and left alone.
func TestUnreadable(t *testing.T) {
	for kind, address := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			r := open(t, address)
			if err := r.Create(ctx(t), begun); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				state string
				want  error
			}{
				{`{"format":2,"set":"s","member":4,"id":"id","promised":0,"accepted":0}`, ErrFormat},
				{`{"format":1,"set":"","member":4,"id":"id","promised":0,"accepted":0}`, ErrDamaged},
				{`{"format":1,"set":"s","member":4,"id":"id","promised":1,"accepted":2,"view":{}}`, ErrDamaged},
				{`{"format":1,"set":"s","member":4,"id":"id","promised":2,"accepted":2}`, ErrDamaged},
				{`[]`, ErrDamaged},
			} {
				_, at, err := r.s.load(ctx(t))
				if err != nil {
					t.Fatal(err)
				}
				if done, err := r.s.swap(ctx(t), at, json.RawMessage(c.state)); !done || err != nil {
					t.Fatal(done, err)
				}
				if _, _, err := r.Promise(ctx(t), 9); !errors.Is(err, c.want) {
					t.Errorf("%s: %v instead of %v", c.state, err, c.want)
				}
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"file://host/a":                "absolute path",
		"file://a":                     "absolute path",
		"etcd://h:2379":                "hosts and prefix",
		"etcd:///p":                    "hosts and prefix",
		"etcd://h:2379,,i:2379/p":      "hosts and prefix",
		"etcd://user:secret@h:2379/p":  "etcd_user",
		"consul://h/p":                 "no kind of register",
		"etcd://h:2379,i:2379/pgdist/": "",
		"file:///var/lib/r.json":       "",
	} {
		_, err := Open(address, Config{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v instead of %q", address, err, want)
		}
	}
	if _, err := Open("etcd://h:2379/p", Config{Cert: "c", Password: "p"}); err == nil || !strings.Contains(err.Error(), "etcd_key") || !strings.Contains(err.Error(), "etcd_user") {
		t.Errorf("half a certificate and half a login: %v", err)
	}
}
