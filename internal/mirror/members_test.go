package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// another launches a server more, empty, and tells how it is connected to.
func (r *rig) another() MemberConfig {
	r.t.Helper()
	s := pgtest.Set(r.t, 1, pgtest.Options{})[0]
	conn, err := pgconn.ParseConfig(s.DSN())
	if err != nil {
		r.t.Fatal(err)
	}
	r.servers = append(r.servers, s)
	return MemberConfig{Conn: conn}
}

// votesOfAll are the votes of a view's members, by number.
func votesOfAll(v *health.View) map[health.MemberID]int {
	out := map[health.MemberID]int{}
	for _, m := range v.Members {
		out[m.ID] = m.Weight
	}
	return out
}

func (r *rig) await(what string, f func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(ages); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("in vain: %s; the view is %v", what, r.set.View())
		}
	}
}

// A set grows by a member and loses its first leader while two programs use it that are
// configured with the members of the beginning.
func TestMembersComeAndGo(t *testing.T) {
	r := newRig(t, 3, copied)
	beside := *r
	beside.open()
	stop := r.writers()
	fourth := r.another()
	v, err := Add(r.ctx(), r.cfg, AddOptions{Member: fourth, Votes: -1, Jobs: 2, Wait: ages, Report: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if got := votesOfAll(v); len(got) != 4 || got[1] != 2 || got[4] != 1 || !v.Has(4) || len(v.Former) != 0 {
		t.Errorf("after the addition: %v, votes %v", v, got)
	}
	r.await("both programs have heard of the fourth member", func() bool { return r.set.View().Has(4) && beside.set.View().Has(4) })
	if v, err := Add(r.ctx(), r.cfg, AddOptions{Member: fourth, Votes: -1, Jobs: 2, Report: t.Logf}); err != nil || len(v.Members) != 4 {
		t.Errorf("added once more: %v, %v", v, err)
	}
	t.Logf("%d writes", stop())
	r.same()

	v, err = Remove(r.ctx(), r.cfg, RemoveOptions{Host: r.server(1).Addr(), Wait: ages, Report: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if got := votesOfAll(v); len(got) != 3 || got[2] != 1 || got[4] != 1 || v.Has(1) || v.Leader == 1 || len(v.Former) != 0 || !slices.Equal(v.Removed, []string{r.server(1).Addr()}) {
		t.Errorf("after the removal: %v, votes %v, removed %v", v, got, v.Removed)
	}
	r.await("both programs have heard of the removal", func() bool {
		_, a := r.set.View().Member(1)
		_, b := beside.set.View().Member(1)
		return !a && !b
	})
	r.await("the program knows three members", func() bool { return len(r.set.members.all()) == 3 })
	r.inSync(3)
	r.same()
	beside.set.Close()

	// A program that is configured as in the beginning finds its way; so does a copy.
	r.set.Close()
	r.open()
	r.inSync(3)
	if st, err := Inspect(r.ctx(), r.cfg); err != nil || len(st.Members) != 3 || st.Members[2].Host != r.server(4).Addr() || st.Members[2].Error != "" {
		t.Errorf("status: %+v, %v", st, err)
	}
	// With 2, 3 and 4 a majority outlives the loss of one.
	if err := r.server(r.set.View().Leader).Kill(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (9, 9)`)
	r.same()
}

// What cannot be a member is refused by name, and leaves the set as it was.
func TestAddRefuses(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE w (id int PRIMARY KEY)`)
	epoch := r.set.View().Epoch
	other := newRig(t, 1, `CREATE TABLE w (id int PRIMARY KEY)`)
	alias := *r.cfg.Members[1].Conn
	alias.Host = "localhost"
	third := r.another()
	down := r.another()
	if err := r.servers[3].Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		member MemberConfig
		want   string
	}{
		{other.cfg.Members[0], "belongs to another set"},
		{MemberConfig{Conn: &alias}, "member 2 of the set already"},
		{down, "is the server running"},
	} {
		if _, err := Add(r.ctx(), r.cfg, AddOptions{Member: c.member, Votes: -1, Report: t.Logf}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v instead of %q", err, c.want)
		}
	}
	// A database that holds tables is not dropped unasked: it is on the list, and is
	// taken off again.
	r.servers[2].Exec(t, `CREATE TABLE precious (id int)`)
	_, err := Add(r.ctx(), r.cfg, AddOptions{Member: third, Votes: -1, Report: t.Logf})
	if err == nil || !strings.Contains(err.Error(), "holds 1 tables") || !strings.Contains(err.Error(), "pgdist remove") {
		t.Errorf("%v instead of a question", err)
	}
	if _, err := Remove(r.ctx(), r.cfg, RemoveOptions{Host: third.Host(), Report: t.Logf}); err != nil {
		t.Error(err)
	}
	if v := r.set.View(); len(v.InSync) != 2 {
		t.Errorf("the set was disturbed: %v since epoch %d", v, epoch)
	}
	if _, err := Remove(r.ctx(), r.cfg, RemoveOptions{Host: "nowhere:5432"}); err == nil || !strings.Contains(err.Error(), "no member has this address") {
		t.Errorf("removing a stranger: %v", err)
	}
	if err := r.server(2).Kill(); err != nil {
		t.Fatal(err)
	}
	r.inSync(1)
	if _, err := Remove(r.ctx(), r.cfg, RemoveOptions{Host: r.server(1).Addr()}); !errors.Is(err, health.ErrLastMember) {
		t.Errorf("removing the last one in sync: %v", err)
	}
	if err := r.server(2).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	r.same()
}

// A database in which a member was that pgdist knows no more (it did not answer when it was taken
// off the list, say) becomes a witness, as an empty one does.
func TestWitnessInAFormerMember(t *testing.T) {
	r := newRig(t, 3, copied)
	third := r.cfg.Members[2]
	if _, err := Remove(r.ctx(), r.cfg, RemoveOptions{Host: third.Host(), Keep: true, Report: t.Logf}); err != nil {
		t.Fatal(err)
	}
	v, err := Add(r.ctx(), r.cfg, AddOptions{Member: third, Witness: true, Votes: -1, Report: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if w := v.Members[len(v.Members)-1]; !w.Witness || w.Weight != 1 || w.Host != third.Host() {
		t.Errorf("the view is %v", v)
	}
	r.server(3).Exec(t, `CREATE TABLE anything (k int)`) // it is in no event trigger's way
	r.ack()
	r.same()
}

// Two databases and a witness go on without either of the two; it holds nothing, and
// leaves as it came.
func TestWitness(t *testing.T) {
	r := newRig(t, 2, copied)
	third := r.another()
	third.Conn.Database = "votes" // which is made
	v, err := Add(r.ctx(), r.cfg, AddOptions{Member: third, Witness: true, Votes: -1, Report: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if got := votesOfAll(v); got[1] != 1 || got[2] != 1 || got[3] != 1 || v.Has(3) {
		t.Errorf("after the addition: %v, votes %v", v, got)
	}
	cfg := r.cfg
	cfg.Members = append(slices.Clone(cfg.Members), third) // its database has another name
	r.set.Close()
	r.cfg = cfg
	r.open()
	r.inSync(2)
	if err := r.server(1).Kill(); err != nil { // it had the casting vote
		t.Fatal(err)
	}
	r.inSync(1)
	if v := r.set.View(); v.Leader != 2 {
		t.Errorf("nobody leads: %v", v)
	}
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (9, 9)`)
	if err := r.server(1).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	if err := r.server(2).Kill(); err != nil {
		t.Fatal(err)
	}
	r.inSync(1)
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (9, 10)`)
	if err := r.server(2).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	r.same()
	st, err := Inspect(r.ctx(), r.cfg)
	if err != nil || st.Members[2].Role != "witness" || st.Members[2].Error != "" {
		t.Errorf("status: %+v, %v", st, err)
	}
	if st := r.set.Status(); st.Members[2].State != textWitness {
		t.Errorf("status of the program: %+v", st.Members[2])
	}
	if _, err := r.set.Switchover(r.ctx(), third.Host(), time.Second); err == nil {
		t.Error("the witness was made the leader")
	}
	if v, err = Remove(r.ctx(), r.cfg, RemoveOptions{Host: third.Host(), Report: t.Logf}); err != nil || len(v.Members) != 2 || votesOfAll(v)[1] != 2 {
		t.Errorf("after the removal: %v, %v", v, err)
	}
	c, err := dial(r.ctx(), third.Conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.where(r.ctx()); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("of pgdist is left at the witness: %v", err)
	}
}

// Who is left of a set whose majority is lost leads when an operator forces it, and not
// before; those that were given up come back as new members.
func TestForce(t *testing.T) {
	r := newRig(t, 3, copied)
	o := ForceOptions{Who: "the test", Report: t.Logf}
	if _, err := Force(r.ctx(), r.cfg, o); !errors.Is(err, ErrNotForced) || !strings.Contains(err.Error(), "a majority answers") {
		t.Errorf("a set that works was forced: %v", err)
	}
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (1, 1)`)
	err := r.set.inLoop(r.ctx(), func(context.Context) error { // nobody is elected in between
		return errors.Join(r.server(1).Kill(), r.server(2).Kill())
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Force(r.ctx(), r.cfg, o)
	if !errors.Is(err, ErrNotForced) || !strings.Contains(err.Error(), r.server(1).Addr()+" or "+r.server(2).Addr()) || !strings.Contains(err.Error(), "--accept-data-loss") {
		t.Errorf("what it says it would do: %v", err)
	}
	if v := r.set.View(); v.Leader == 3 {
		t.Fatalf("it was done all the same: %v", v)
	}
	o.Accept = true
	v, err := Force(r.ctx(), r.cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if v.Leader != 3 || len(v.Members) != 1 || v.Forced == nil || v.Forced.Who != "the test" || len(v.Forced.Lost) != 2 {
		t.Errorf("forced: %v, %+v", v, v.Forced)
	}
	// The program goes on by itself.
	r.await("the program goes by the forced view", func() bool { return r.set.View().Epoch >= v.Epoch })
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (3, 3)`)
	// Old members that are back are not used, though they would be a majority.
	for _, id := range []health.MemberID{1, 2} {
		if err := r.server(id).StartAgain(); err != nil {
			t.Fatal(err)
		}
	}
	r.set.Close()
	r.open()
	if v := r.set.View(); v.Leader != 3 || len(v.InSync) != 1 {
		t.Fatalf("after the others have come back: %v", v)
	}
	for _, i := range []int{0, 1} {
		ctx, cancel := context.WithTimeout(r.ctx(), time.Minute)
		v, err = Add(ctx, r.cfg, AddOptions{Member: r.cfg.Members[i], Votes: -1, Jobs: 2, Wait: ages, Report: t.Logf, Confirm: func(string) error { return nil }})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := votesOfAll(v); len(got) != 3 || got[4] != 1 || got[5] != 1 || len(v.InSync) != 3 || v.Forced == nil {
		t.Errorf("in the end: %v, votes %v", v, got)
	}
	r.inSync(3)
	pgtest.SameBytes(t, r.servers...)
}

// Who finds an empty database and nobody else is not sent to make a new set of it.
func TestInitHint(t *testing.T) {
	answer := func(port uint16, err error) answerOf {
		return answerOf{cfg: MemberConfig{Conn: &pgconn.Config{Host: "h", Port: port}}, err: err}
	}
	if got := initHint([]answerOf{answer(1, ErrNotInstalled), answer(2, ErrNotInstalled)}); got != "run: pgdist init DSN" {
		t.Error(got)
	}
	got := initHint([]answerOf{answer(1, ErrNotInstalled), answer(2, health.ErrTimeout), answer(3, io.ErrUnexpectedEOF)})
	if !strings.HasPrefix(got, "bring back h:2, h:3, which") {
		t.Error(got)
	}
}

// A flush that failed at several members has the view of another program adopted because of one of them, which
// has removed another: that ended the program that pgdist is part of.
func TestFailedAtAMemberThatWasRemoved(t *testing.T) {
	r := newRig(t, 2, basics)
	gone := health.MemberID(99)
	err := r.set.inLoop(r.ctx(), func(ctx context.Context) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		return r.set.react(ctx, map[health.MemberID]error{gone: errors.New("it was lost")}, nil)
	})
	if err != nil {
		t.Error(err)
	}
	if v := r.set.View(); len(v.InSync) != 2 {
		t.Errorf("left out: %v", v)
	}
	r.same()
}
