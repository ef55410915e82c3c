package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/etcdtest"
	"github.com/pgdist/pgdist/internal/register"
)

// lodging is where a register may be.
type lodging struct {
	name string
	// address is "" in the members.
	address string
	etcd    *etcdtest.Cluster // nil: none
	path    string            // of a file; "": none
}

func lodgings(t *testing.T) []lodging {
	t.Helper()
	path := filepath.Join(t.TempDir(), "register.json")
	file, err := register.FileURL(path)
	if err != nil {
		t.Fatal(err)
	}
	e := etcdtest.Start(t, 1)
	return []lodging{{name: "members"}, {name: "file", address: file, path: path}, {name: "etcd", address: "etcd://" + e.Endpoints(), etcd: e}}
}

// move puts the rig's register where l says, while the program goes on.
func (r *rig) move(l lodging) *health.View {
	r.t.Helper()
	v, err := MoveRegister(r.ctx(), r.cfg, RegisterOptions{Address: l.address, Report: r.t.Logf})
	if err != nil {
		r.t.Fatal(err)
	}
	r.await("the program goes by the new list", func() bool { return r.set.View().Epoch >= v.Epoch && len(r.set.View().Former) == 0 })
	return v
}

func (r *rig) kill(ids ...health.MemberID) {
	r.t.Helper()
	for _, id := range ids {
		if err := r.server(id).Kill(); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) startAgain(ids ...health.MemberID) {
	r.t.Helper()
	for _, id := range ids {
		if err := r.server(id).StartAgain(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// What a set does does not depend on where its register is: leaders are lost and followers,
// programs come and propose at the same time, all is started again. Only how far it goes down
// does, and how many programs may use it.
func TestRegisters(t *testing.T) {
	for _, l := range lodgings(t) {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			r := newRig(t, 3, copied)
			stop := r.writers()
			v := r.move(l)
			t.Logf("%d writes while the register moved", stop())
			reg, elsewhere := v.Register()
			if elsewhere != (l.address != "") || elsewhere && (votesOfAll(v)[1] != 0 || !strings.HasPrefix(reg.Host, l.address)) || len(v.Data()) != 3 {
				t.Fatalf("after the move: %v, %+v", v, v.Members)
			}
			if st, err := Inspect(r.ctx(), r.cfg); err != nil || elsewhere && (st.Members[3].Role != "witness" || st.Members[3].Error != "" || len(st.Programs) != 1) {
				t.Errorf("status: %+v, %v", st, err)
			}
			r.otherPrograms(l)
			r.lossOfLeader()
			r.downToOne(l)
			r.allAgain(l)
			v, err := MoveRegister(r.ctx(), r.cfg, RegisterOptions{Report: t.Logf})
			if err != nil || len(v.Members) != 3 || votesOfAll(v)[1] != 1 || len(v.Former) != 0 {
				t.Errorf("back in the members: %v, %+v, %v", v, v.Members, err)
			}
			if l.path != "" {
				if left, err := filepath.Glob(l.path + "*"); err != nil || slices.Contains(left, l.path) {
					t.Errorf("of the file is left: %v, %v", left, err)
				}
			}
			r.do(r.client(), `INSERT INTO w (who, n) VALUES (99, 99)`)
			r.same()
		})
	}
}

// otherPrograms come: of a file they are refused, elsewhere they propose at the same time.
func (r *rig) otherPrograms(l lodging) {
	r.t.Helper()
	if l.path != "" {
		set, err := Open(r.ctx(), r.cfg)
		if !errors.Is(err, register.ErrLocked) || !strings.Contains(err.Error(), "process ") {
			r.t.Errorf("a second program at a file: %v, %v", set, err)
		}
		return
	}
	beside := *r
	beside.open()
	defer beside.set.Close()
	r.await("the programs know of each other", func() bool { return r.set.others.Load() == 1 && beside.set.others.Load() == 1 })
	var wg sync.WaitGroup
	for i, p := range []*rig{r, &beside} {
		wg.Go(func() {
			for n := range 3 {
				ids := p.set.View().InSync
				to := p.set.hostOf(ids[(n+i)%len(ids)])
				if _, err := p.set.Switchover(p.ctx(), to, ages); err != nil && !strings.Contains(err.Error(), "not in sync") {
					r.t.Errorf("program %d, switchover %d: %v", i, n, err)
				}
			}
		})
	}
	wg.Wait()
	r.inSync(3)
	beside.inSync(3)
	r.await("both go by one view", func() bool { return r.set.View().Epoch == beside.set.View().Epoch })
	if !r.set.View().Equal(beside.set.View()) {
		r.t.Errorf("one epoch, two views: %v and %v", r.set.View(), beside.set.View())
	}
	// What one acknowledges without a member, the other does not read there.
	out := r.set.View().Followers()[0]
	r.kill(out)
	r.inSync(2)
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (50, 1)`)
	if beside.set.Confirmed() && beside.set.View().Has(out) {
		r.t.Errorf("member %d is still read by another program", out)
	}
	r.startAgain(out)
	r.inSync(3)
}

func (r *rig) lossOfLeader() {
	r.t.Helper()
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (51, 1)`)
	lost := r.set.View().Leader
	r.kill(lost)
	r.inSync(2)
	if v := r.set.View(); v.Leader == lost {
		r.t.Fatalf("nobody else leads: %v", v)
	}
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (51, 2)`)
	r.startAgain(lost)
	r.inSync(3)
	r.same()
}

// downToOne loses two of three: with a register elsewhere the last one goes on, for reads and
// writes, also for a program that begins then.
func (r *rig) downToOne(l lodging) {
	r.t.Helper()
	v := r.set.View()
	r.kill(v.Leader)
	r.inSync(2)
	last := r.set.View().Followers()[0]
	r.kill(r.set.View().Leader)
	if l.address == "" {
		ctx, cancel := context.WithTimeout(r.ctx(), 2*time.Second)
		defer cancel()
		if _, err := r.set.WaitView(ctx, r.set.View().Epoch); err == nil {
			r.t.Errorf("one of three databases decided: %v", r.set.View())
		}
		if r.set.Confirmed() {
			r.t.Error("one of three databases is read")
		}
	} else {
		r.inSync(1)
		r.do(r.client(), `INSERT INTO w (who, n) VALUES (52, 1)`)
		if err := r.set.Current(r.ctx(), ages); err != nil || r.set.View().Leader != last {
			r.t.Errorf("the last database is not read: %v, %v", r.set.View(), err)
		}
		r.set.Close()
		r.open()
		r.do(r.client(), `INSERT INTO w (who, n) VALUES (52, 2)`)
		if l.etcd != nil { // without the register nothing goes on, and with it all does
			l.etcd.Kill(0)
			r.await("nothing is read while etcd is gone", func() bool { return !r.set.Confirmed() })
			l.etcd.Run(0)
			if err := r.set.Current(r.ctx(), ages); err != nil {
				r.t.Error(err)
			}
			r.do(r.client(), `INSERT INTO w (who, n) VALUES (52, 3)`)
		}
	}
	for id := range r.servers {
		if id := health.MemberID(id + 1); id != last {
			r.startAgain(id)
		}
	}
	r.inSync(3)
	r.same()
}

// allAgain is a loss of power everywhere.
func (r *rig) allAgain(l lodging) {
	r.t.Helper()
	r.set.Close()
	r.kill(1, 2, 3)
	if l.etcd != nil {
		l.etcd.Kill(0)
		l.etcd.Run(0)
		l.etcd.Await()
	}
	r.startAgain(1, 2, 3)
	r.open()
	r.inSync(3)
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (53, 1)`)
	r.same()
}

// A register that was put back to an earlier state, in a way that it cannot tell itself, is
// found out by any database that was in sync since, and decides nothing; what was acknowledged is
// still there when an operator has had the votes given back. One that is lost, or another set's, is not begun anew.
func TestRegisterPutBack(t *testing.T) {
	for _, l := range lodgings(t)[1:] {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			r := newRig(t, 3, copied)
			address := hostsOf(r.move(l).Members)[3]
			r.do(r.client(), `INSERT INTO w (who, n) VALUES (1, 1)`)
			reg, err := register.Open(address, register.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer reg.Close() //nolint:errcheck // the test ends
			old, err := reg.Look(r.ctx())
			if err != nil {
				t.Fatal(err)
			}
			put := func(s register.State) {
				t.Helper()
				s.Programs = nil
				if err := errors.Join(reg.Remove(r.ctx()), reg.Create(r.ctx(), s)); err != nil {
					t.Fatal(err)
				}
			}
			r.kill(3)
			r.inSync(2)
			r.do(r.client(), `INSERT INTO w (who, n) VALUES (2, 2)`) // which 3 lacks
			r.set.Close()
			r.startAgain(3)
			r.refused(*old, put)
			other := *old
			other.Set = "another"
			put(other)
			if _, err := Open(r.ctx(), r.cfg); err == nil || !strings.Contains(err.Error(), "belongs to set another") {
				t.Errorf("another set's register: %v", err)
			}
			if err := reg.Remove(r.ctx()); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(r.ctx(), r.cfg); !errors.Is(err, register.ErrMissing) || !strings.Contains(err.Error(), "pgdist force") {
				t.Errorf("a lost register: %v", err)
			}
			put(*old)
			r.forced(address)
		})
	}
}

// refused tries with all databases, and with one that was in sync alone.
func (r *rig) refused(old register.State, put func(register.State)) {
	r.t.Helper()
	for _, down := range [][]health.MemberID{nil, {1, 3}} {
		put(old)
		r.kill(down...)
		set, err := Open(r.ctx(), r.cfg)
		if !errors.Is(err, health.ErrConflict) || !strings.Contains(err.Error(), "pgdist force") {
			r.t.Errorf("a register that was put back, without %v: %v, %v", down, set, err)
		}
		r.startAgain(down...)
	}
}

// forced gives the votes back to the databases.
func (r *rig) forced(address string) {
	r.t.Helper()
	o := ForceOptions{Who: "the test", Report: r.t.Logf}
	if _, err := Force(r.ctx(), r.cfg, o); !errors.Is(err, ErrNotForced) || !strings.Contains(err.Error(), "it holds all that was acknowledged under the newest view") {
		r.t.Errorf("what it says it would do: %v", err)
	}
	o.Accept = true
	v, err := Force(r.ctx(), r.cfg, o)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(v.Members) != 3 || votesOfAll(v)[3] != 1 || v.Leader == 3 || !slices.Equal(v.Forced.Lost, []string{address}) {
		r.t.Errorf("forced: %v, %+v, %+v", v, v.Members, v.Forced)
	}
	r.open()
	r.inSync(3)
	var n int
	if err := r.client().QueryRow(r.ctx(), `SELECT count(*) FROM w WHERE who = 2`).Scan(&n); err != nil || n != 1 {
		r.t.Errorf("of what was acknowledged there are %d rows, %v", n, err)
	}
	r.same()
}

// Two databases and an etcd with a vote go on without either of the two.
func TestEtcdAsWitness(t *testing.T) {
	r := newRig(t, 2, copied)
	e := etcdtest.Start(t, 1)
	v, err := Add(r.ctx(), r.cfg, AddOptions{Member: MemberConfig{Register: "etcd://" + e.Endpoints() + "/shop"}, Witness: true, Votes: -1, Report: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if got := votesOfAll(v); got[1] != 1 || got[2] != 1 || got[3] != 1 || v.Members[2].Host != e.URL("shop") {
		t.Errorf("after the addition: %+v", v.Members)
	}
	r.await("the program knows of it", func() bool { return len(r.set.View().Members) == 3 && len(r.set.View().Former) == 0 })
	r.kill(1) // it had the casting vote
	r.inSync(1)
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (9, 9)`)
	r.startAgain(1)
	r.inSync(2)
	e.Kill(0) // the databases are a majority, too
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (9, 10)`)
	if err := r.set.Current(r.ctx(), ages); err != nil {
		t.Error(err)
	}
	e.Run(0)
	e.Await()
	for _, c := range []struct {
		host, want string
		witness    bool
	}{
		{"file:///tmp/register.json", "pgdist register DSN --file", true},
		{"etcd://" + e.Endpoints() + "/other", "it can only vote", false},
	} {
		if _, err := Add(r.ctx(), r.cfg, AddOptions{Member: MemberConfig{Register: c.host}, Witness: c.witness, Votes: -1, Report: t.Logf}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v instead of %q", c.host, err, c.want)
		}
	}
	v, err = Remove(r.ctx(), r.cfg, RemoveOptions{Host: e.URL("shop"), Report: t.Logf})
	if err != nil || len(v.Members) != 2 || votesOfAll(v)[1] != 2 {
		t.Errorf("after the removal: %v, %v", v, err)
	}
	if got, err := e.Client().Get(r.ctx(), "/shop"); err != nil || len(got.Kvs) != 0 {
		t.Errorf("what is left in etcd: %v, %v", got, err)
	}
	r.same()
}

// A file is no place for the register of a set that several programs use.
func TestFileForSeveralPrograms(t *testing.T) {
	r := newRig(t, 1, copied)
	beside := *r
	beside.open()
	r.await("the programs know of each other", func() bool { return r.set.others.Load() == 1 })
	path := filepath.Join(t.TempDir(), "register.json")
	address, err := register.FileURL(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MoveRegister(r.ctx(), r.cfg, RegisterOptions{Address: address, Report: t.Logf}); err == nil || !strings.Contains(err.Error(), "several programs") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made all the same: %v", err)
	}
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (1, 1)`)
}

// scripted is a voter that answers as a test wants.
type scripted struct {
	voter
	id   health.MemberID
	took bool
	log  *[]health.MemberID
}

func (s scripted) accept(context.Context, int64, []byte) (bool, error) {
	*s.log = append(*s.log, s.id)
	return s.took, nil
}

// Who has the majority alone accepts a view first, and if it does not nobody else does.
func TestRegisterAcceptsFirst(t *testing.T) {
	v := &health.View{Set: "s", Epoch: 3, Term: 3, Leader: 1, InSync: []health.MemberID{1, 2}, Members: []health.Member{{ID: 1}, {ID: 2}, {ID: 3, Host: "file:///r", Weight: 1, Witness: true}}}
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		took bool
		want []health.MemberID
	}{{true, []health.MemberID{3, 1, 2}}, {false, []health.MemberID{3}}} {
		var asked []health.MemberID
		var answers []answer
		for id := health.MemberID(1); id <= 3; id++ {
			m := &member{id: id}
			answers = append(answers, answer{m: m, c: scripted{id: id, took: c.took || id != 3, log: &asked}})
		}
		accepted, outbid, errs := acceptBy(t.Context(), v, body, answers)
		if !slices.Equal(asked, c.want) || len(accepted) != len(asked)-btoi(!c.took) || outbid == c.took || len(errs) > 0 {
			t.Errorf("if the register accepts is %v: asked %v, accepted %v, outbid %v, %v", c.took, asked, accepted, outbid, errs)
		}
	}
}
