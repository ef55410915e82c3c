package mirror

import (
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// soon shortens the pauses between copies.
func soon(t *testing.T) {
	old := copyPauses
	copyPauses.calm, copyPauses.first, copyPauses.busy = 10*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond
	t.Cleanup(func() { copyPauses = old })
}

// reopen opens the set again, with other settings.
func (r *rig) reopen(change func(*Config)) {
	r.t.Helper()
	r.set.Close()
	change(&r.cfg)
	r.open()
}

// A running program copies a member afresh whose server was replaced by an empty one, that
// lost its place, or whose copy was broken off, while clients write; what is of unknown
// origin it leaves alone.
func TestCopiesUnasked(t *testing.T) {
	soon(t)
	var told, logged heard
	r := newRig(t, 3, copied)
	r.reopen(func(c *Config) {
		c.AutoResync, c.Notice = true, told.add
		c.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(testWriter{t}, &logged), nil))
	})
	second, err := Open(r.ctx(), r.cfg) // that may copy, too
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	stop := r.writers()
	before := r.set.View()
	r.replace(3)
	r.back(before)
	for deadline := time.Now().Add(ages); !told.has(r.server(3).Addr() + " was copied afresh from " + r.server(2).Addr()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("told: %q", told.text()) // a moment after it is in sync
		}
	}

	// Nothing helps but a copy.
	before = r.set.View()
	if err := r.set.expel(r.ctx(), before, 3, []wound{{}}, "test"); err != nil {
		t.Fatal(err)
	}
	r.back(before)

	// What somebody has put in its place is not overwritten, but a copy that was broken off is.
	copyAt := func(at int64) {
		for _, s := range []*Set{r.set, second} {
			s.members.get(3).copyAt.Store(at)
		}
	}
	noCopies := func() { // while it is empty
		copyAt(later(ages))
		r.await("no copy is under way", func() bool { return !r.set.copies.Load() && !second.copies.Load() })
		copyAt(later(ages)) // one that has just ended says when the next may begin
	}
	noCopies()
	r.replace(3)
	r.server(3).Exec(t, `CREATE TABLE strange (x int)`)
	r.inSync(2)
	copyAt(monotonic())
	refusal := "holds 1 tables, which will be lost"
	r.await("a program looks whether it may copy there", func() bool { return logged.has(refusal) || r.set.View().Has(3) })
	r.server(3).Exec(t, `SELECT count(*) FROM strange`)
	if !logged.has(refusal) {
		t.Errorf("a strange database: %+v, %v", r.set.members.get(3).note.Load(), r.set.View())
	}
	noCopies()
	r.server(3).Exec(t, `DROP TABLE strange`)
	script, err := scripts("01", "08") // as far as a copy has come when it copies rows
	if err != nil {
		t.Fatal(err)
	}
	r.server(3).Exec(t, script+`; CREATE TABLE half (x int)`)
	copyAt(later(time.Second)) // it is asked what it is before it is copied
	for _, s := range []*Set{r.set, second} {
		s.members.get(3).retry.Store(0)
	}
	r.inSync(3)
	second.Close()
	t.Logf("%d writes", stop())
	r.same()
}

// A program copies the member by which its configuration finds the set, though that names no other.
func TestCopiesTheOnlyOneConfigured(t *testing.T) {
	soon(t)
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY); INSERT INTO w VALUES (1)`)
	r.reopen(func(c *Config) { c.AutoResync, c.Members = true, c.Members[2:] })
	r.inSync(3)
	before := r.set.View()
	r.replace(3)
	r.do(r.client(), `INSERT INTO w VALUES (2)`) // which notices, had the other server come between two probes
	r.back(before)
	r.same()
}

// Two programs do not copy to one server at once.
func TestCopiesOneAtATime(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY); INSERT INTO w SELECT generate_series(1, 1000)`)
	r.replace(3)
	r.do(r.client(), `INSERT INTO w VALUES (0)`) // which notices, had the other server come between two probes
	r.inSync(2)
	var once sync.Once
	var second error
	res, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) {
		yes(o)
		o.Progress = func(ResyncProgress) {
			once.Do(func() {
				_, second = r.resync(r.ctx(), 3, yes)
				st, err := Inspect(r.ctx(), r.cfg)
				if err != nil || !strings.HasPrefix(st.Members[2].State, claimName) {
					t.Errorf("status while it is copied: %+v, %v", st, err)
				}
			})
		}
	})
	if !errors.Is(second, ErrBeingCopied) {
		t.Errorf("the second copy: %v", second)
	}
	if err != nil || !res.InSync {
		t.Fatalf("the first copy: %+v, %v", res, err)
	}
	r.same()
}

// Who may not copy says so once, and what to run.
func TestCopiesNeedRights(t *testing.T) {
	soon(t)
	var told heard
	a := trial{schema: `CREATE TABLE w (id int PRIMARY KEY); CREATE ROLE mirrors LOGIN`, config: func(c *Config) { c.AutoResync, c.Notice = true, told.add }}.bare(t, ground(t, 2, nil))
	if _, err := Init(a.ctx(), a.cfg, InitOptions{Mirror: "mirrors"}); err != nil {
		t.Fatal(err)
	}
	for i := range a.cfg.Members {
		a.cfg.Members[i].Conn.User = "mirrors"
	}
	a.open()
	if err := a.set.expel(a.ctx(), a.set.View(), 2, []wound{{}}, "test"); err != nil {
		t.Fatal(err)
	}
	want := "must be copied by hand: run: pgdist resync DSN --member " + a.server(2).Addr()
	a.await(want, func() bool { return told.has(want) })
	if n := a.set.members.get(2).note.Load(); n.Text != textLost || !errors.Is(n.Err, errNeedsSuperuser) {
		t.Errorf("%+v", n)
	}
	a.await("status tells", func() bool {
		st, err := Inspect(a.ctx(), a.cfg)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(st.Members[1].Error, "could not be copied afresh") && strings.Contains(st.Members[1].Error, "superuser")
	})
}

// A member whose server refuses, time and again, what the leader's did, is copied afresh;
// before, and where no copy is made, it is tried again, for somebody may have mended it.
func TestCopiesWhoCannotRepeat(t *testing.T) {
	soon(t)
	var told heard
	a := trial{schema: `CREATE TABLE w (id int PRIMARY KEY)`, config: func(c *Config) { c.Notice = told.add }}.on(t, ground(t, 3, nil))
	c := a.client()
	clash := func(name string) {
		a.spoil(3, `CREATE TABLE `+name+` (other text)`)
		a.ddl(c, `CREATE TABLE `+name+` (k int PRIMARY KEY)`)
		a.do(c, `INSERT INTO `+name+` VALUES (1)`)
		m := a.set.members.get(3)
		a.await("it is said to be lost", func() bool {
			m.retry.Store(0) // no pauses
			return m.note.Load().Text == textLost
		})
		m.tries.Store(0)
		if n := a.set.members.get(3).note.Load(); !errors.Is(n.Err, ErrPlaceLost) || !strings.Contains(n.Err.Error(), "already exists") {
			t.Errorf("why it is lost: %v", n.Err)
		}
	}
	clash("mended")
	a.spoil(3, `DROP TABLE mended`)
	a.whole()
	a.same()
	clash("copied")
	a.set.Close()
	a.cfg.AutoResync = true
	a.open()
	a.await("it is copied", func() bool { return told.has(a.server(3).Addr() + " was copied afresh") })
	a.whole()
	a.same()
}
