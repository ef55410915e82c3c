package mirror

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/pgdist/pgdist/health"
)

// Each of these fails if one rule of the mirror is broken, which `make mutants`
// proves by breaking it: see testdata/mutants and MUTANTS.md.

// shipped applies on a member what it lacks after place from, as another
// distributor would under epoch, and returns its failure.
func (a *arena) shipped(id health.MemberID, epoch int64, from Place) error {
	a.t.Helper()
	lead, err := a.set.members.get(a.set.View().Leader).connect(a.ctx())
	if err != nil {
		a.t.Fatal(err)
	}
	defer lead.close()
	twin := a.set.members.get(id).twin()
	defer twin.forget()
	c, err := twin.applier(a.ctx())
	if err != nil {
		a.t.Fatal(err)
	}
	b, err := readBatch(a.ctx(), lead, from, 3, 1000, sequences, "")
	if err != nil {
		a.t.Fatal(err)
	}
	steps, err := b.plan(epoch, 0, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := twin.relocate(a.ctx()); err != nil {
		a.t.Fatal(err)
	}
	return c.run(a.ctx(), at(steps, twin.tick), nil)
}

// placeOf is where a member says it is.
func (a *arena) placeOf(id health.MemberID) Place {
	a.t.Helper()
	c, err := a.set.members.get(id).connect(a.ctx())
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.close()
	h, err := c.where(a.ctx())
	if err != nil {
		a.t.Fatal(err)
	}
	return h.place()
}

// An apply counts from where the follower is, or not at all: images applied twice
// are there twice.
func TestRulePosition(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE TABLE kl (a int)`}.on(t, ground(t, 2, nil))
	c := a.client()
	a.do(c, `INSERT INTO kl VALUES (1)`)
	from := a.placeOf(2)
	a.exec(c, `INSERT INTO kl VALUES (2), (2)`)
	if err := a.shipped(2, a.set.View().Epoch, from); err != nil {
		t.Fatal(err)
	}
	a.ack() // by this distributor, which believes the follower where it left it
	a.everywhere("3", `SELECT count(*)::text FROM kl`)
	if err := a.shipped(2, a.set.View().Epoch, from); sqlState(err) != codePosition {
		t.Errorf("the same batch again: %v", err)
	}
	a.same()
}

// A server that is not the one the view names may have all that its schema needs, and data
// of another day: nothing is read there, nothing shipped from there or to it, and it decides nothing.
func TestRuleIdentity(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE TABLE k (k int PRIMARY KEY)`}.on(t, ground(t, 2, nil))
	a.do(a.client(), `INSERT INTO k VALUES (1)`)
	v := a.set.View()
	a.set.Close() // and from here on this test is the loop
	other := *v
	other.Members = slices.Clone(v.Members)
	for i := range other.Members {
		other.Members[i].System = "another"
	}
	a.set.cur = &other
	a.set.view.Store(&other)
	for id, m := range a.set.members.all() {
		m.witness.close()
		m.known = false
		m.apply.close()
		m.seat.Store(&other)
		if err := m.relocate(a.ctx()); !errors.Is(err, errStranger) {
			t.Errorf("member %d is found: %v", id, err)
		}
		m.seat.Store(v)
		m.lease.close()
		m.seat.Store(&other)
		if c := a.set.askConfirm(a.ctx(), m, v.Epoch, false); !errors.Is(c.err, errStranger) {
			t.Errorf("member %d confirms: %v", id, c.err)
		}
		m.seat.Store(v)
		if err := a.set.Vouch(a.ctx(), id); !errors.Is(err, errStranger) {
			t.Errorf("member %d is vouched for: %v", id, err)
		}
		if err := a.set.locate(a.ctx(), m); !errors.Is(err, errStranger) {
			t.Errorf("member %d is shipped to: %v", id, err)
		}
		m.apply.close()
	}
	if found := a.set.whereabouts(a.ctx()); a.set.chosen(found, &other) || a.set.leaderFit(found, &other) {
		t.Error("a view is chosen by them")
	}
	if err := a.set.connectLeader(a.ctx()); !errors.Is(err, errStranger) {
		t.Errorf("the leader is read from: %v", err)
	}
	if _, err := a.set.decide(a.ctx(), &other, Attempt{Leader: 2}); !errors.Is(err, errStranger) {
		t.Errorf("the leader tells what was committed: %v", err)
	}
	for _, ans := range a.set.promises(a.ctx(), v.Epoch+1, health.Intent{}) {
		if _, err := ans.promise(v.Epoch+1, &other); err == nil {
			t.Errorf("member %d votes", ans.m.id)
		}
		ans.c.close()
	}
}

// A view that dropped a distributor's epoch ends what it may apply.
func TestRuleFenceOfApply(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE TABLE k (k int PRIMARY KEY)`}.on(t, ground(t, 2, nil))
	c := a.client()
	a.do(c, `INSERT INTO k VALUES (1)`)
	epoch, from := a.set.View().Epoch, a.placeOf(2)
	a.exec(c, `INSERT INTO k VALUES (2)`)
	// An apply that is under way does not come after the promise, though this was asked
	// softly, by somebody who takes the follower for the leader.
	open := a.clientOf(2)
	a.exec(open, `BEGIN`, `SELECT pgdist.enter(`+itoa(uint32(epoch))+`, p.term, p.snap, p.tick) FROM pgdist.position p`)
	a.exec(a.clientOf(2), `SELECT pgdist.promise(`+itoa(uint32(epoch+1))+`, false, 1000)`)
	if _, err := open.Exec(a.ctx(), `COMMIT`); err == nil {
		t.Errorf("an apply of epoch %d was put in place after a promise of %d", epoch, epoch+1)
	}
	if err := a.shipped(2, epoch, from); sqlState(err) != codeFence {
		t.Errorf("an apply of epoch %d after a promise of %d: %v", epoch, epoch+1, err)
	}
	if got := a.query(2, `SELECT count(*)::text FROM k`); got != "1" {
		t.Errorf("the follower has %s rows", got)
	}
	a.ack()
	a.same()
}

// Nobody writes to a follower, and nobody to a leader that promised another epoch.
func TestRuleFenceOfCapture(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE TABLE k (k int PRIMARY KEY); CREATE TABLE kl (a int)`}.on(t, ground(t, 2, nil))
	a.do(a.client(), `INSERT INTO k VALUES (1)`, `INSERT INTO kl VALUES (1)`)
	write := []string{`INSERT INTO k VALUES (2)`, `UPDATE k SET k = 3`, `DELETE FROM kl`, `TRUNCATE kl`}
	for _, sql := range write {
		if _, err := a.clientOf(2).Exec(a.ctx(), sql); sqlState(err) != "25006" {
			t.Errorf("%s on a follower: %v", sql, err)
		}
	}
	a.same()
	a.set.Close()
	x := a.clientOf(1)
	a.exec(x, `BEGIN`, `INSERT INTO k VALUES (4)`)
	a.exec(a.clientOf(1), `SELECT pgdist.promise(10, true, 2000)`)
	if _, err := x.Exec(a.ctx(), `COMMIT`); err == nil {
		t.Error("a transaction that wrote before the promise could commit after it")
	}
	for _, sql := range write {
		if _, err := a.clientOf(1).Exec(a.ctx(), sql); sqlState(err) != "25006" {
			t.Errorf("%s on a leader that was deposed: %v", sql, err)
		}
	}
	a.open()
	a.do(a.client(), `INSERT INTO k VALUES (5)`)
	a.same()
}

// Values of a second unique column move between rows: row by row, one is always
// in the way of the other.
func TestRuleUpsert(t *testing.T) {
	a := trial{schema: `CREATE TABLE u (k int PRIMARY KEY, v text UNIQUE);
		CREATE TABLE p (k int PRIMARY KEY, v text); CREATE UNIQUE INDEX ON p (v) WHERE v <> 'x'; CREATE TABLE e (k int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&))`}.on(t, ground(t, 2, nil))
	c := a.client()
	a.do(c, `INSERT INTO u VALUES (1, 'a'), (2, 'b'), (3, 'c')`, `INSERT INTO p SELECT * FROM u`, `INSERT INTO e VALUES (1, '[1,5)'), (2, '[5,9)')`)
	a.steady("exchanged", func(a *arena) {
		for _, tab := range []string{"u", "p"} {
			a.do(c, `BEGIN`, `UPDATE `+tab+` SET v = 'z' WHERE k = 1`, `UPDATE `+tab+` SET v = 'a' WHERE k = 2`, `UPDATE `+tab+` SET v = 'b' WHERE k = 1`, `COMMIT`)
			a.do(c, `BEGIN`, `DELETE FROM `+tab+` WHERE k = 3`, `INSERT INTO `+tab+` VALUES (0, 'c')`, `COMMIT`)
		}
		a.do(c, `BEGIN`, `UPDATE e SET r = '[20,21)' WHERE k = 1`, `UPDATE e SET r = '[1,5)' WHERE k = 2`, `UPDATE e SET r = '[5,9)' WHERE k = 1`, `COMMIT`)
	})
}

// A nested statement is captured before the one that it is nested in: what is
// journaled must not be applied in that order.
func TestRuleOrder(t *testing.T) {
	a := trial{schema: `CREATE TABLE kl (a int); CREATE TABLE k (k int PRIMARY KEY, v int);
		CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE kl SET a = a + 100 WHERE a < 100; RETURN NULL; END $$;
		CREATE TRIGGER aaa AFTER INSERT ON kl EXECUTE FUNCTION more();
		CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE k SET v = 5; DELETE FROM k WHERE k < 0; RETURN NULL; END $$;
		CREATE TRIGGER aaa AFTER INSERT ON k EXECUTE FUNCTION again()`}.on(t, ground(t, 2, nil))
	a.steady("nested", func(a *arena) {
		a.do(a.client(), `INSERT INTO kl VALUES (1), (2), (2)`, `INSERT INTO k VALUES (1, 0), (-1, 0)`)
		a.everywhere("101,102,102", `SELECT string_agg(a::text, ',' ORDER BY a) FROM kl`)
		a.everywhere("1=5", `SELECT string_agg(k || '=' || v, ',') FROM k`)
		a.do(a.client(), `BEGIN`, `INSERT INTO kl VALUES (7)`, `DELETE FROM kl WHERE a = 107`, `INSERT INTO kl VALUES (8)`, `COMMIT`)
		a.do(a.client(), `BEGIN`, `INSERT INTO kl VALUES (9)`, `TRUNCATE kl`, `INSERT INTO kl VALUES (10)`, `COMMIT`)
		a.everywhere("110", `SELECT string_agg(a::text, ',') FROM kl`)
	})
}

// A value that a client has seen is given out once, whoever leads, though no row
// tells of it.
func TestRuleSequences(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE SEQUENCE s; CREATE TABLE k (k serial PRIMARY KEY, v int CHECK (v > 0))`}.on(t, ground(t, 2, nil))
	c := a.client()
	a.do(c, `SELECT nextval('s')`, `SELECT nextval('s')`)
	a.everywhere("2", `SELECT last_value::text FROM s`)
	if _, err := c.Exec(a.ctx(), `INSERT INTO k (v) VALUES (0)`); err == nil {
		t.Fatal("no error")
	}
	a.do(c, `INSERT INTO k (v) VALUES (1)`)
	a.everywhere("2", `SELECT last_value::text FROM k_k_seq`)
	a.do(c, `SELECT setval('s', 40, false)`)
	a.everywhere("40 f", `SELECT last_value || ' ' || left(is_called::text, 1) FROM s`)
	a.same()
}

// What followers are known to hold of sequences is theirs no more once they have replayed DDL that
// makes them anew or sets them, though the leader's have come to the same again.
func TestSequencesOfDDL(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE SEQUENCE s`}.on(t, ground(t, 2, nil))
	c := a.client()
	const make, draw = `ddl: CREATE TABLE k (k serial PRIMARY KEY)`, `INSERT INTO k SELECT FROM generate_series(1, 3)`
	const drawn, set = `SELECT last_value || ' ' || is_called FROM k_k_seq`, `SELECT last_value || ' ' || is_called FROM s`
	a.tx(c, make, draw, `SELECT setval('s', 7, false)`)
	a.everywhere("3 true", drawn)
	a.everywhere("7 false", set)
	a.tx(c, `ddl: DROP TABLE k`, make, draw)
	a.everywhere("3 true", drawn)
	a.tx(c, `ddl: ALTER SEQUENCE s RESTART WITH 5`, `SELECT setval('s', 7, false)`)
	a.everywhere("7 false", set)
	a.tx(c, `ddl: CREATE TABLE l (l serial PRIMARY KEY)`, `SELECT setval('s', 9, false)`, `SELECT setval('k_k_seq', 3, false)`)
	a.everywhere("9 false", set)
	a.everywhere("3 false", drawn)
	a.same()
}

// Triggers have fired at the leader: on a follower they would do it all again.
func TestRuleReplicaRole(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE TABLE k (k int PRIMARY KEY, v int); CREATE TABLE audit (a int);
		CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.v + 1; RETURN NEW; END $$;
		CREATE TRIGGER bump BEFORE INSERT OR UPDATE ON k FOR EACH ROW EXECUTE FUNCTION bump();
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (NEW.k); RETURN NULL; END $$;
		CREATE TRIGGER note AFTER INSERT OR UPDATE ON k FOR EACH ROW EXECUTE FUNCTION note()`}.on(t, ground(t, 2, nil))
	before := a.set.View()
	a.exec(a.client(), `INSERT INTO k VALUES (1, 1)`, `UPDATE k SET v = v * 10`)
	if err := a.set.Ack(a.ctx(), before.Term, Change{}); err != nil {
		t.Error(err)
	}
	a.unchanged(before)
	a.everywhere("1=21", `SELECT string_agg(k || '=' || v, ',') FROM k`)
	a.everywhere("1,1", `SELECT string_agg(a::text, ',') FROM audit`)
	a.same()
}

// A leader that promised an epoch softly and was not kept, for it had crashed, gives its
// role up when it hears of the view: it could not be brought up to date else.
func TestRuleRoleEndsWithTheView(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE TABLE k (k int PRIMARY KEY)`}.on(t, ground(t, 3, nil))
	v := *a.set.View()
	c := a.client()
	old := v.Leader
	a.set.Close()
	e := v.Epoch + 7
	a.exec(c, `SELECT pgdist.promise(`+itoa(uint32(e))+`, false, 400)`)
	if got := a.query(old, `SELECT pgdist.here() ->> 'leads'`); got != "true" {
		t.Fatalf("the case is none: leads %s", got)
	}
	v.Epoch, v.Term, v.Leader, v.InSync = e, e, v.Followers()[0], v.Followers()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	a.exec(c, `SELECT pgdist.adopt(`+itoa(uint32(e))+`, `+quoteLiteral(string(body))+`, 400)`)
	if got := a.query(old, `SELECT pgdist.here() ->> 'leads'`); got != "false" {
		t.Errorf("the role stayed: leads %s", got)
	}
	a.open()
	a.do(a.client(), `INSERT INTO k VALUES (1)`)
	a.same()
}
