package mirror

import (
	"context"
	"testing"
	"time"
)

const tailSchema = `
CREATE TABLE k (k int PRIMARY KEY, v text); CREATE TABLE u (k int PRIMARY KEY, v int UNIQUE); CREATE TABLE kl (a int, b text);
CREATE TABLE n (k numeric PRIMARY KEY); CREATE TABLE tk (k int PRIMARY KEY); CREATE TABLE tl (a int); CREATE TABLE ser (k serial PRIMARY KEY);
CREATE TABLE pt (k int PRIMARY KEY, v text) PARTITION BY RANGE (k); CREATE TABLE p1 PARTITION OF pt FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF pt DEFAULT;
INSERT INTO k SELECT g, 'old' FROM generate_series(1, 20) g; INSERT INTO u SELECT g, g FROM generate_series(1, 5) g; INSERT INTO kl VALUES (1, 'a'), (1, 'a'), (2, 'b');
INSERT INTO n VALUES (1.0), (2); INSERT INTO tk SELECT generate_series(1, 5); INSERT INTO tl VALUES (1), (1), (2); INSERT INTO pt SELECT g, 'old' FROM generate_series(1, 20) g`

// A leader's commits that no follower got are undone when it returns, whatever
// they did, and what the set did since is not.
func TestAttackTail(t *testing.T) {
	var told heard
	a := trial{config: func(c *Config) { quiet(c); c.Notice = told.add }, schema: tailSchema}.on(t, ground(t, 3, nil))
	a.sub("rows", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO k VALUES (100, 'acknowledged')`)
		a.exec(c, `INSERT INTO k VALUES (101, 'tail')`, `UPDATE k SET v = 'tail' WHERE k < 5`, `DELETE FROM k WHERE k = 6`, `UPDATE k SET k = 700 WHERE k = 7`,
			`UPDATE u SET v = v + 100`, `INSERT INTO kl VALUES (9, 'tail'), (9, 'tail')`, `DELETE FROM kl WHERE a = 2`, `DELETE FROM kl WHERE ctid = '(0,1)'`,
			`UPDATE n SET k = 1.00 WHERE k = 1`, `TRUNCATE tk`, `INSERT INTO tk VALUES (77)`, `INSERT INTO tl VALUES (5)`, `TRUNCATE tl`, `INSERT INTO tl VALUES (6), (6)`,
			`INSERT INTO ser DEFAULT VALUES`, `UPDATE pt SET k = 30 + k WHERE k < 3`, `TRUNCATE p2`)
		old := a.killLeader()
		c = a.client()
		a.do(c, `INSERT INTO k VALUES (101, 'again')`, `UPDATE k SET v = 'new' WHERE k IN (1, 6)`, `DELETE FROM k WHERE k = 2`, `UPDATE u SET v = v + 1000`, `INSERT INTO kl VALUES (3, 'c'), (1, 'a')`,
			`DELETE FROM tl WHERE a = 2`, `INSERT INTO ser DEFAULT VALUES`, `UPDATE pt SET v = 'new'`)
		a.start(old)
		a.same()
		a.everywhere("", `SELECT coalesce(string_agg(v, ','), '') FROM k WHERE v = 'tail'`)
	})
	a.sub("images that came and went", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO kl SELECT 61, g::text FROM generate_series(1, 30) g`, `INSERT INTO kl VALUES (62, 'twice'), (62, 'twice')`)
		a.exec(c, `UPDATE kl SET b = 'tail 1' || b WHERE a = 61`, `UPDATE kl SET b = 'tail 2' || b WHERE a = 61`, `INSERT INTO kl VALUES (63, 'tail')`, `DELETE FROM kl WHERE a = 63`,
			`BEGIN`, `DELETE FROM kl WHERE a = 62`, `INSERT INTO kl VALUES (62, 'twice')`, `COMMIT`)
		old := a.killLeader()
		a.do(a.client(), `DELETE FROM kl WHERE a = 61 AND b::int > 10`, `UPDATE kl SET b = 'new' WHERE a = 61`)
		a.start(old)
		a.same()
		a.everywhere("10", `SELECT count(*)::text FROM kl WHERE a = 61 AND b = 'new'`)
		a.everywhere("2", `SELECT count(*)::text FROM kl WHERE a = 62`)
		if told.has("held other rows") {
			t.Error("what a member wrote before it was lost was not undone, but the table copied: ", told.text())
		}
	})
	a.sub("emptied by the set since", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO kl VALUES (41, 'old'), (41, 'old')`, `INSERT INTO tl VALUES (41), (42)`)
		a.exec(c, `INSERT INTO kl VALUES (42, 'tail'), (42, 'tail')`, `DELETE FROM tl WHERE a = 42`)
		old := a.killLeader()
		a.do(a.client(), `TRUNCATE kl, tl`, `INSERT INTO kl VALUES (4, 'new')`)
		a.start(old)
		a.same()
		a.everywhere("4", `SELECT string_agg(a::text, ',') FROM kl`)
		a.everywhere("0", `SELECT count(*)::text FROM tl`)
	})
	a.sub("two failovers in a row", func(a *arena) {
		first := a.set.View()
		c := a.client()
		a.exec(c, `UPDATE k SET v = 'tail 1'`, `INSERT INTO kl VALUES (21, 'tail 1')`)
		a.killLeader()
		c = a.client()
		a.do(c, `INSERT INTO kl VALUES (22, 'kept')`, `UPDATE k SET v = 'kept' WHERE k < 3`)
		a.exec(c, `UPDATE k SET v = 'tail 2' WHERE k < 10`, `INSERT INTO kl VALUES (23, 'tail 2')`, `DELETE FROM kl WHERE a = 22`)
		second := a.set.View()
		a.kill(second.Leader)
		// What the member that is left has is what counts: on a busy machine the set may have shipped some
		// of the tail, to make sure that all is well again after the first failover.
		const rows = `SELECT string_agg(b, ',' ORDER BY a) FROM kl WHERE a > 20`
		left := a.query(1+2+3-first.Leader-second.Leader, rows)
		a.start(first.Leader, second.Leader) // now there is a majority again
		a.newTerm(second)
		a.do(a.client(), `INSERT INTO kl VALUES (24, 'kept')`, `UPDATE k SET v = 'third' WHERE k = 1`)
		a.same()
		a.everywhere(left+",kept", rows)
		if left != "kept" {
			a.t.Logf("the tail was shipped: %s", left)
		}
	})
	a.sub("stopped, and none the wiser", func(a *arena) {
		c, late := a.client(), a.client()
		v := a.set.View()
		a.exec(c, `INSERT INTO kl VALUES (31, 'tail')`)
		a.exec(late, `BEGIN`, `INSERT INTO kl VALUES (32, 'late')`)
		if err := a.server(v.Leader).SigStop(); err != nil {
			a.t.Fatal(err)
		}
		a.newTerm(v)
		a.do(a.client(), `INSERT INTO kl VALUES (33, 'new')`)
		if err := a.server(v.Leader).SigCont(); err != nil {
			a.t.Fatal(err)
		}
		_, err := late.Exec(a.ctx(), `COMMIT`) // the old leader may take it, nobody acknowledges it
		a.t.Logf("commit on the old leader: %v", err)
		a.same()
		a.everywhere("33", `SELECT string_agg(a::text, ',' ORDER BY a) FROM kl WHERE a > 30`)
	})
	a.sub("given to a member that was catching up", func(a *arena) {
		c, v, away := a.client(), a.set.View(), a.follower()
		m := a.set.members.get(away)
		m.joining.Store(true) // nobody else brings it up to date
		defer m.joining.Store(false)
		a.kill(away)
		a.do(c, `INSERT INTO kl VALUES (51, 'kept')`)
		// A probe whose connection broke has all be flushed, the tail, too, if it was there by then.
		a.await("its probe has noticed", func() bool { return a.set.isDown(away) && !a.set.suspect.Load() })
		a.ack()
		a.start(away)
		a.exec(c, `INSERT INTO kl VALUES (52, 'tail')`, `UPDATE k SET v = 'tail' WHERE k = 8`)
		x := &catchUp{s: a.set, m: m, twin: m.twin()}
		_, err := x.round(a.ctx())
		x.close()
		if err != nil {
			a.t.Fatal(err)
		}
		a.killLeader()
		j := &joiner{m: m, done: make(chan error, 1)}
		a.set.joins <- j
		if err := <-j.done; err == nil {
			a.t.Errorf("member %d is in sync with what its leader lacks", away)
		}
		m.joining.Store(false)
		a.start(v.Leader)
		a.same()
		a.everywhere("51", `SELECT string_agg(a::text, ',') FROM kl WHERE a > 50`)
	})
	a.sub("promised to a proposer that is gone", func(a *arena) {
		away := a.follower()
		m := a.set.members.get(away)
		m.joining.Store(true)
		a.kill(away)
		a.do(a.client(), `INSERT INTO kl VALUES (61, 'kept')`)
		a.start(away)
		a.exec(a.clientOf(away), `SELECT pgdist.promise(`+itoa(uint32(a.set.View().Epoch+10))+`, true, 1000)`)
		m.joining.Store(false)
		a.same() // nobody else has any reason to have another view chosen
	})
	a.sub("in pieces", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO k SELECT g, 'big' FROM generate_series(1000, 8000) g`, `INSERT INTO kl SELECT g, 'big' FROM generate_series(1000, 4000) g`)
		a.exec(c, `UPDATE k SET v = 'tail' WHERE k % 2 = 0`, `DELETE FROM kl WHERE a > 1000 AND a % 3 = 0`, `INSERT INTO kl SELECT g, 'tail' FROM generate_series(1, 3000) g`)
		old := a.killLeader()
		a.do(a.client(), `UPDATE k SET v = 'new' WHERE k % 3 = 0`, `INSERT INTO kl SELECT g, 'new' FROM generate_series(1, 3000) g`)
		a.start(old)
		a.same()
	})
}

// A tail that holds DDL cannot be undone row by row: the member is not in sync
// again, and says so.
func TestAttackTailSchema(t *testing.T) {
	a := trial{config: quiet, schema: tailSchema}.on(t, ground(t, 3, nil))
	v := a.set.View()
	c, old := a.client(), v.Leader
	err := a.set.inLoop(a.ctx(), func(context.Context) error { // nobody flushes meanwhile
		err := a.try(c, `ddl: CREATE TABLE tail (k int)`, `INSERT INTO kl VALUES (41, 'tail')`)
		a.kill(old)
		return err
	})
	if err != nil {
		t.Fatal(full(err))
	}
	a.newTerm(v)
	a.do(a.client(), `INSERT INTO kl VALUES (42, 'new')`)
	a.start(old)
	for deadline := time.Now().Add(ages); ; time.Sleep(5 * time.Millisecond) {
		if n := a.set.members.get(old).note.Load(); n.Text == textLost {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("a member whose tail holds DDL is %s: %v", n.Text, n.Err)
		}
	}
	a.do(a.client(), `INSERT INTO kl VALUES (4, 'new')`)
	if v := a.set.View(); v.Has(old) {
		t.Errorf("it is in sync: %v", v)
	}
	a.equal()
}

// A leader that had a tail leads again: the tail is still in its journal, and
// nobody must be given it.
func TestAttackTailOfALeaderAgain(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE TABLE kl (a int, b text); CREATE TABLE tl (a int); INSERT INTO tl VALUES (1)`}.on(t, ground(t, 3, nil))
	a.do(a.client(), `INSERT INTO kl VALUES (1, 'a')`)
	a.kill(3)
	a.do(a.client(), `INSERT INTO kl VALUES (2, 'b')`)
	a.calm(3)
	a.exec(a.client(), `INSERT INTO kl VALUES (3, 'tail')`, `DELETE FROM kl WHERE a = 1`, `INSERT INTO tl VALUES (3)`)
	v := a.set.View()
	a.kill(1)
	a.start(1)
	if now := a.newTerm(v); now.Leader != 2 {
		t.Fatalf("led by %v", now)
	}
	for len(a.set.View().InSync) < 2 { // member 1 is back, without its tail
		if _, err := a.set.WaitView(a.ctx(), a.set.View().Epoch); err != nil {
			t.Fatal(err)
		}
	}
	a.do(a.client(), `INSERT INTO kl VALUES (4, 'd')`)
	v = a.set.View()
	a.kill(2)
	a.start(3)
	if now := a.newTerm(v); now.Leader != 1 {
		t.Fatalf("led by %v", now)
	}
	a.start(2)
	a.same()
	a.everywhere("1,2,4", `SELECT string_agg(a::text, ',' ORDER BY a) FROM kl`)
}

// Two members: the first has the casting vote. One member: it is all there is.
func TestAttackFewMembers(t *testing.T) {
	g := ground(t, 2, nil)
	t.Run("two, leader crashed", func(t *testing.T) {
		a := trial{config: quiet, schema: tailSchema}.on(t, g)
		a.exec(a.client(), `INSERT INTO kl VALUES (50, 'tail')`, `UPDATE k SET v = 'tail'`)
		v := a.set.View()
		a.kill(1)
		a.start(1)
		now := a.newTerm(v)
		a.do(a.client(), `INSERT INTO kl VALUES (51, 'new')`)
		a.same()
		if now.Leader == 2 {
			a.everywhere("51", `SELECT string_agg(a::text, ',') FROM kl WHERE a >= 50`)
		}
	})
	t.Run("two, leader crashed alone", func(t *testing.T) {
		a := trial{config: quiet, schema: tailSchema}.on(t, g)
		c := a.client()
		a.do(c, `INSERT INTO kl VALUES (60, 'both')`)
		a.kill(2)
		a.do(c, `INSERT INTO kl VALUES (61, 'acknowledged')`)
		a.exec(c, `INSERT INTO kl VALUES (62, 'unheard')`, `UPDATE k SET v = 'unheard' WHERE k = 1`)
		v := a.set.View()
		a.kill(1)
		a.start(1)
		a.newTerm(v)
		a.start(2)
		a.do(a.client(), `INSERT INTO kl VALUES (63, 'new')`)
		a.same()
		a.everywhere("60,61,62,63", `SELECT string_agg(a::text, ',' ORDER BY a) FROM kl WHERE a >= 60`)
	})
	t.Run("one", func(t *testing.T) {
		a := trial{config: quiet, schema: tailSchema}.on(t, g[:1])
		c := a.client()
		a.do(c, `INSERT INTO kl VALUES (70, 'acknowledged')`)
		a.exec(c, `BEGIN`, `INSERT INTO kl VALUES (71, 'open')`)
		v := a.set.View()
		if err := a.server(1).KillBackend(int(c.PgConn().PID())); err != nil {
			t.Fatal(err)
		}
		a.newTerm(v)
		a.do(a.client(), `INSERT INTO kl VALUES (72, 'new')`)
		a.kill(1)
		v = a.set.View()
		a.start(1)
		a.newTerm(v)
		a.do(a.client(), `INSERT INTO kl VALUES (73, 'new')`)
		a.everywhere("70,72,73", `SELECT string_agg(a::text, ',' ORDER BY a) FROM kl WHERE a >= 70`)
	})
}
