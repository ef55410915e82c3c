package mirror

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// beside opens the arena's set as another program, which has links of its own.
func (a *arena) beside(change func(*Config)) (*arena, map[health.MemberID]*pgtest.Link) {
	a.t.Helper()
	b := *a
	links := map[health.MemberID]*pgtest.Link{}
	b.cfg.Members = nil
	for i, m := range a.cfg.Members {
		l := pgtest.NewLink(a.t, a.servers[i].Addr())
		c := m.Conn.Copy()
		c.Host, c.Port = l.Addr()
		b.cfg.Members = append(b.cfg.Members, MemberConfig{Conn: c})
		links[health.MemberID(i+1)] = l
	}
	if change != nil {
		change(&b.cfg)
	}
	b.open()
	return &b, links
}

// await waits until f is true.
func (a *arena) await(what string, f func() bool) {
	a.t.Helper()
	for deadline := time.Now().Add(ages); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Fatalf("in vain: %s", what)
		}
	}
}

// know waits until each of the programs knows how many others there are.
func (a *arena) know(others int32, sets ...*arena) {
	a.t.Helper()
	for _, b := range append(sets, a) {
		a.await("the programs know of each other", func() bool { return b.set.others.Load() == others })
	}
}

// What is acknowledged without a member is not missed by a read of that member,
// whoever reads there: before, everybody has heard of it, or must not read any more.
func TestNobodyReadsWhoWasLeftOut(t *testing.T) {
	schema := `CREATE TABLE n (n int PRIMARY KEY)`
	a := trial{schema: schema}.on(t, ground(t, 3, nil))
	b, theirs := a.beside(nil)
	c, mine := a.beside(nil)
	a.set.Close()
	b.know(1, c)
	v := b.set.View()
	leader, out, third := v.Leader, v.Followers()[0], v.Followers()[1]
	k := b.client()
	// c sees nobody but the member that b loses.
	b.exec(k, `INSERT INTO n VALUES (1)`)
	b.ack()
	mine[leader].Cut()
	mine[third].Cut()
	theirs[out].Cut()
	b.exec(k, `INSERT INTO n VALUES (2)`)
	began := time.Now()
	if err := b.set.Ack(b.ctx(), v.Term, Change{}); err != nil {
		t.Fatal(err)
	}
	// From here on everybody may have been told of 2.
	if c.set.grant.Load().holds() && c.set.View().Has(out) {
		t.Errorf("after %v, when a write was acknowledged without member %d, a program still read from it", time.Since(began), out)
	}
	if b.set.View().Has(out) {
		t.Errorf("member %d was not left out: %v", out, b.set.View())
	}
	if err := c.set.Current(c.ctx(), 50*time.Millisecond); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("a program that sees no majority reads on: %v", err)
	}
	for _, l := range []*pgtest.Link{mine[leader], mine[third], theirs[out]} {
		l.Heal()
	}
	if err := c.set.Current(c.ctx(), ages); err != nil {
		t.Error(err)
	}
	b.whole()
	c.whole()
	// A program that can be asked holds nobody up for its lease.
	mine[out].Cut()
	theirs[out].Cut()
	began = time.Now()
	b.exec(b.client(), `INSERT INTO n VALUES (3)`)
	b.ack()
	if c.set.grant.Load().holds() && c.set.View().Has(out) {
		t.Errorf("a program that can be asked still read from member %d", out)
	}
	mine[out].Heal()
	theirs[out].Heal()
	b.same()
}

// A program that is the only one reads on while it sees no majority, if it may.
func TestMinorityReads(t *testing.T) {
	for _, may := range []bool{true, false} {
		a := trial{schema: basics, config: func(c *Config) { c.MinorityReads = may }}.on(t, ground(t, 3, nil))
		a.kill(2, 3)
		time.Sleep((aloneLeases + 1) * a.set.cfg.ViewLease)
		limit := a.set.cfg.ViewLease
		if may {
			limit = ages
		}
		if err := a.set.Current(a.ctx(), limit); (err == nil) != may {
			t.Errorf("minority reads %v: %v", may, err)
		}
		a.start(2, 3)
		if err := a.set.Current(a.ctx(), ages); err != nil {
			t.Error(err)
		}
		a.whole()
	}
}

// Programs that have nothing to do change no view, and one that comes or goes does not
// either.
func TestProgramsComeAndGo(t *testing.T) {
	a := trial{schema: basics}.on(t, ground(t, 3, nil))
	epoch := a.set.View().Epoch
	var more []*arena
	for range 3 {
		b, _ := a.beside(nil)
		more = append(more, b)
	}
	a.know(3, more...)
	for i, b := range append(more, a) {
		for j := range 5 {
			a.exec(a.client(), `INSERT INTO ser (x) VALUES ('`+strconv.Itoa(i*10+j)+`')`)
			if err := b.set.Ack(b.ctx(), b.set.View().Term, Change{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, b := range more[1:] {
		b.set.Close()
	}
	a.know(1, more[0])
	for _, b := range []*arena{a, more[0]} {
		if got := b.set.View().Epoch; got != epoch {
			t.Errorf("the view went from epoch %d to %d for nothing", epoch, got)
		}
	}
	a.same()
}

// A flush whose batch was read before somebody else's was applied does not count, even
// if the position is the same: sequences would go back, and give a value twice.
func TestRuleTick(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE SEQUENCE s`}.on(t, ground(t, 2, nil))
	c := a.client()
	a.do(c, `SELECT nextval('s')`)
	m := a.set.members.get(2)
	twin := m.twin()
	defer twin.forget()
	if err := twin.relocate(a.ctx()); err != nil {
		t.Fatal(err)
	}
	lead, err := a.set.members.get(1).connect(a.ctx())
	if err != nil {
		t.Fatal(err)
	}
	defer lead.close()
	a.exec(c, `SELECT setval('s', 50)`)
	b, err := readBatch(a.ctx(), lead, twin.place, 3, 1000, sequences, "")
	if err != nil {
		t.Fatal(err)
	}
	a.do(c, `SELECT setval('s', 100)`)
	steps, err := b.plan(a.set.View().Epoch, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := twin.place; got != a.placeOf(2) {
		t.Fatalf("the case is none: the position went from %v to %v", got, a.placeOf(2))
	}
	if err := twin.apply.run(a.ctx(), at(steps, twin.tick), nil); sqlState(err) != codePosition {
		t.Errorf("an apply that comes late: %v", err)
	}
	a.everywhere("100", `SELECT last_value::text FROM s`)
}

// Whoever had the turn and is gone, or stands still, keeps nobody from flushing.
func TestTurnOfTheDead(t *testing.T) {
	a := trial{schema: basics}.on(t, ground(t, 3, nil))
	b, _ := a.beside(nil)
	a.know(1, b)
	v := a.set.View()
	dead := a.client()
	a.exec(dead, `SET application_name = 'pgdist 00000000-0000-0000-0000-000000000000'`, `SELECT pgdist.turn(1000)`)
	a.exec(a.client(), `INSERT INTO ser (x) VALUES ('after')`)
	if err := b.set.Ack(b.ctx(), v.Term, Change{}); err != nil {
		t.Fatal(err)
	}
	if _, err := dead.Exec(a.ctx(), `SELECT 1`); err == nil { // turns that do not end are not waited for long, either
		t.Error("it has the turn still")
	}
	a.same()
}

// A member that one program has taken back is not left out at once by another that has not
// looked at it since it was away, and would not for long.
func TestTakenBackByOne(t *testing.T) {
	a := trial{schema: `CREATE TABLE n (n int PRIMARY KEY)`}.on(t, ground(t, 3, nil))
	b, _ := a.beside(func(c *Config) { c.Health.OpenTimeout = ages })
	a.know(1, b)
	away := a.set.View().Followers()[0]
	if err := a.server(away).Kill(); err != nil {
		t.Fatal(err)
	}
	b.await("its breaker opens", func() bool { return b.set.isDown(away) })
	b.await("it is left out", func() bool { return !a.set.View().Has(away) && !b.set.View().Has(away) })
	a.start(away)
	a.await("one program takes it back", func() bool { return a.set.View().Has(away) })
	epoch := a.set.View().Epoch
	b.await("the other hears of it", func() bool { return b.set.View().Epoch >= epoch })
	b.do(b.client(), `INSERT INTO n VALUES (1)`)
	if v := b.set.View(); v.Epoch != epoch || !v.Has(away) {
		t.Errorf("it was taken back with epoch %d, and then there was %v", epoch, v)
	}
	a.same()
	// It is left out again if it is gone again, by that program, too.
	if err := a.server(away).Kill(); err != nil {
		t.Fatal(err)
	}
	b.do(b.client(), `INSERT INTO n VALUES (2)`)
	b.await("it is left out again", func() bool { return !b.set.View().Has(away) })
	a.start(away)
	a.await("all are back", func() bool { return len(a.set.View().InSync) == 3 })
}

// Whoever waits in vain for the turn does not have it, also if he got it when his time was
// over: nobody would ever have it again.
func TestTurnInVain(t *testing.T) {
	a := trial{schema: basics}.on(t, ground(t, 2, nil))
	slow := func(c *Config) { c.ViewLease = 20 * time.Second } // on a busy machine nobody is to look dead
	b, _ := a.beside(slow)
	c, _ := a.beside(slow)
	a.set.Close()
	b.know(1, c)
	done := make(chan error, 2)
	for _, s := range []*Set{b.set, c.set} {
		c := b.client()
		b.exec(c, `SET application_name = '`+s.members.get(1).app+`'`)
		go func() {
			_, err := c.Exec(b.ctx(), `DO $$ BEGIN
				FOR i IN 1..600 LOOP
					IF pgdist.turn(2) THEN
						PERFORM pg_sleep(0.0015 + random() * 0.002), pgdist.turn_over();
					ELSE
						IF EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'advisory' AND l.granted) THEN RAISE EXCEPTION 'it has what it was told it has not'; END IF;
					END IF;
				END LOOP; END $$`)
			done <- errors.Join(err, c.Close(b.ctx()))
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	b.same()
}

// Whoever is alive and does not end his turn keeps nobody from flushing for ever.
func TestTurnThatDoesNotEnd(t *testing.T) {
	a := trial{schema: basics}.on(t, ground(t, 3, nil))
	b, _ := a.beside(nil)
	a.know(1, b)
	forgot := a.client()
	a.exec(forgot, `SET application_name = '`+a.set.members.get(1).app+`'`, `SELECT pgdist.turn(100000)`)
	for _, text := range []string{"one", "two"} {
		a.exec(a.client(), `INSERT INTO ser (x) VALUES ('`+text+`')`)
		if err := b.set.Ack(b.ctx(), a.set.View().Term, Change{}); err != nil {
			t.Fatal(err)
		}
	}
	a.same()
}

// Who cannot reach the leader leaves it in office while another program can, and deposes
// it like anybody when it is really gone.
func TestLeaderStaysWhileOthersReachIt(t *testing.T) {
	a := trial{schema: `CREATE TABLE n (n int PRIMARY KEY)`}.on(t, ground(t, 3, nil))
	// Long leases: a machine that is busy must not make it look as if nobody reached the leader.
	b, theirs := a.beside(func(c *Config) {
		c.AckTimeout, c.ViewLease, c.Health.ProbeTimeout = 2*time.Second, 10*time.Second, health.DefaultProbeTimeout
	})
	c, _ := a.beside(func(c *Config) { c.ViewLease = 10 * time.Second })
	a.set.Close()
	b.know(1, c)
	v := b.set.View()
	theirs[v.Leader].Cut()
	k := c.client()
	for i, more := 0, 40; more > 0; i++ {
		c.exec(k, `INSERT INTO n VALUES (`+strconv.Itoa(-i)+`)`)
		c.ack()
		time.Sleep(50 * time.Millisecond)
		if b.set.downErr(v.Leader) != nil { // it has noticed
			more--
		}
	}
	stays := func() {
		t.Helper()
		for _, s := range []*Set{b.set, c.set} {
			if now := s.View(); now.Leader != v.Leader || now.Term != v.Term {
				t.Fatalf("a program that cannot reach the leader has deposed it: %v after %v", now, v)
			}
		}
	}
	stays()
	b.await("it tells its clients", func() bool { stays(); return errors.Is(b.set.Ack(b.ctx(), v.Term, Change{}), errCutOff) })
	if err := b.set.Current(b.ctx(), ages); err != nil {
		t.Errorf("its clients may not read, though a majority answers it: %v", err)
	}
	theirs[v.Leader].Heal()
	var why error
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%v; one program: %v, the other: %v", why, b.set.View(), c.set.View())
		}
	})
	b.await("it writes again", func() bool { stays(); why = b.set.Ack(b.ctx(), v.Term, Change{}); return why == nil })
	stays()
	theirs[v.Leader].Cut()
	if err := a.server(v.Leader).Kill(); err != nil {
		t.Fatal(err)
	}
	b.await("both have another leader", func() bool { return b.set.View().Leader != v.Leader && c.set.View().Leader != v.Leader })
	b.exec(c.client(), `INSERT INTO n VALUES (1000)`)
	c.ack()
	theirs[v.Leader].Heal()
	a.start(v.Leader)
	c.same()
}

// What was asked about a program's name on the lists while it had a short lease, or none, may be executed at any
// later time: so it has another name once it takes a longer lease, or has been silent for one (found by internal/simulation).
func TestNamesOnTheLists(t *testing.T) {
	a := trial{schema: basics}.on(t, ground(t, 3, nil))
	b, links := a.beside(nil)
	a.know(1, b)
	// lists waits until each member knows b by one name that is none of those before, and by that lease.
	lists := func(before string, lease time.Duration) {
		t.Helper()
		for m := range a.servers {
			a.until(health.MemberID(m+1), fmt.Sprintf(`SELECT count(*) = 1 AND bool_and(id <> '%s' AND lease = '%v') FROM pgdist.distributors WHERE id LIKE '%s%%'`,
				before, lease, b.set.id))
		}
	}
	b.await("it has one lease at a time", func() bool { return b.set.listed.Load().lease == b.set.cfg.ViewLease })
	before := b.set.listed.Load().name
	for _, l := range links {
		l.Cut()
	}
	b.await("its lease runs out", func() bool { return !b.set.Confirmed() })
	time.Sleep(b.set.cfg.ViewLease)
	for _, l := range links {
		l.Heal()
	}
	b.await("it is confirmed again", b.set.Confirmed)
	lists(before, b.set.cfg.ViewLease)
	before = b.set.listed.Load().name
	a.set.Close()
	b.know(0)
	lists(before, aloneLeases*b.set.cfg.ViewLease)
}
