package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// spoil changes rows of a member past the mirror.
func (a *arena) spoil(id health.MemberID, sql string) {
	a.t.Helper()
	a.exec(a.clientOf(id), `SET session_replication_role = replica`, sql)
}

// found lists a report's differences, and whether they were put right.
func found(rep *Report) []string {
	out := []string{}
	for _, d := range rep.Differences {
		done := "left"
		if d.Repaired {
			done = "repaired"
		}
		out = append(out, fmt.Sprintf("%d %s: %s", d.Member, done, d.What))
	}
	return out
}

// busy keeps clients writing to the rows that are spoiled, each write acknowledged, until
// the returned function is called, which tells how many there were.
func (a *arena) busy(each ...string) (stop func() int64) {
	a.t.Helper()
	ctx, cancel := context.WithCancel(a.ctx())
	var wg sync.WaitGroup
	var n atomic.Int64
	for _, sql := range each {
		c := a.client()
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := c.Exec(a.ctx(), sql, pgx.QueryExecModeSimpleProtocol)
				if err == nil {
					err = a.set.Ack(a.ctx(), a.set.View().Term, Change{Sequences: true})
				}
				if err != nil {
					a.t.Errorf("%s: %v", sql, err)
					return
				}
				n.Add(1)
			}
		})
	}
	return func() int64 { cancel(); wg.Wait(); return n.Load() }
}

// What differs on members is put right, and is not forgotten on the way.
func TestRepair(t *testing.T) {
	servers := ground(t, 3, nil)
	t.Run("rows", func(t *testing.T) { repairs(t, servers) })
	t.Run("what is not repaired", func(t *testing.T) { refusals(t, servers) })
	t.Run("what writes find", func(t *testing.T) { contradictions(t, servers) })
	t.Run("expelled", func(t *testing.T) { expelled(t, servers) })
	t.Run("not elected", func(t *testing.T) { notElected(t, servers) })
}

// What differs is put right from the leader while clients write to the very rows: with
// keys of every kind, without a key, missing and extra rows, partitions, sequences, on
// several members.
func repairs(t *testing.T, servers []*pgtest.Server) {
	var told heard
	a := trial{schema: rowsSchema + `
		INSERT INTO num VALUES (1.0, 'a'), (2.00, 'b');
		CREATE TABLE mails (id int PRIMARY KEY, mail text UNIQUE); INSERT INTO mails VALUES (1, 'a'), (2, 'b'), (3, 'c');
		CREATE TABLE mood (d date, k text COLLATE "C", n int GENERATED ALWAYS AS (length(k)) STORED, PRIMARY KEY (d, k)); INSERT INTO mood VALUES ('2020-01-01', 'x"y,\z')`, config: func(c *Config) { c.Notice = told.add }}.on(t, servers)
	stop := a.busy(`UPDATE acc SET v = coalesce(v, 0) + 1 WHERE id IN (9, 20, 100)`, `INSERT INTO bag VALUES (3, 'new')`, `UPDATE many SET v = v + 1 WHERE id <= 3; SELECT nextval('ser_id_seq')`)
	a.spoil(2, tamperRows+`UPDATE num SET k = 1.00 WHERE k = 1; DELETE FROM mails; INSERT INTO mails VALUES (1, 'c'), (2, 'a'), (7, 'b'); UPDATE mood SET d = '2021-01-01'; SELECT setval('gen_id_seq', 77)`)
	a.spoil(3, `UPDATE acc SET n = 5 WHERE id = 7; DELETE FROM part1`)
	rep, err := a.set.Repair(a.ctx(), VerifyOptions{}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d writes; %s", stop(), strings.Join(found(rep), "\n"))
	objects := map[string]bool{}
	for _, d := range rep.Differences {
		objects[fmt.Sprintf("%d %s %v", d.Member, d.Object, d.Repaired)] = true
	}
	want := map[string]bool{}
	for _, o := range []string{`table public."Two"`, "table public.acc", "table public.bag", "table public.hist", "table public.mails", "table public.many", "table public.mood", "table public.num", "table public.part2", "table public.uni", "sequence public.gen_id_seq"} {
		want["2 "+o+" true"] = true
	}
	want["3 table public.acc true"], want["3 table public.part1 true"] = true, true
	if diff := cmp.Diff(want, objects); diff != "" {
		t.Error(diff)
	}
	if strings.Count(told.text(), "\n") < 2 || !told.has(a.server(2).Addr()+" differs from the leader, and was read until now: table public.acc") {
		t.Errorf("told: %q", told.text())
	}
	a.same()
	a.everywhere("0", `SELECT count(*)::text FROM acc WHERE id = 1000`)
	for id := range a.set.members.all() {
		if got := a.query(id, `SELECT count(*)::text FROM pgdist.amiss`); got != "0" {
			t.Errorf("member %d has %s entries of what is amiss", id, got)
		}
	}
	if rep, err := a.set.Repair(a.ctx(), VerifyOptions{}, false); err != nil || len(rep.Differences) > 0 {
		t.Errorf("after the repair: %v, %v", found(rep), err)
	}
}

// What cannot be put right is named and left, and a leader that all others contradict is
// not made the measure of them unasked.
func refusals(t *testing.T, servers []*pgtest.Server) {
	a := trial{schema: basics + `INSERT INTO acc (id, v, n, at, r) SELECT g, g, g, '2020-01-01', 0 FROM generate_series(1, 10) g`}.on(t, servers)
	before := a.set.View()
	a.spoil(2, `DELETE FROM acc WHERE id = 3`)
	a.spoil(3, `DELETE FROM acc WHERE id = 3`)
	rep, err := a.set.Repair(a.ctx(), VerifyOptions{}, false)
	if !errors.Is(err, ErrLeaderAlone) || !strings.Contains(err.Error(), "public.acc") || rep == nil || len(rep.Differences) != 2 || rep.Differences[0].Repaired {
		t.Errorf("two members against the leader: %v, %v", found(rep), err)
	}
	a.unchanged(before)
	if rep, err = a.set.Repair(a.ctx(), VerifyOptions{}, true); err != nil || len(rep.Differences) != 2 || !rep.Differences[1].Repaired {
		t.Errorf("with force: %v, %v", found(rep), err)
	}
	a.same()
	a.spoil(3, `ALTER TABLE ser ADD COLUMN more int DEFAULT 1; UPDATE acc SET v = 0 WHERE id = 4; ALTER TABLE acc DISABLE TRIGGER pgdist_i`)
	rep, err = a.set.Repair(a.ctx(), VerifyOptions{}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"3 left: table column public.ser.more is not on the leader", "3 repaired: table public.acc has other contents: 1 row differs"}
	if diff := cmp.Diff(want, found(rep)); diff != "" {
		t.Error(diff)
	}
}

// A member whose rows cannot be what it was thought to hold is excluded by the first write
// that shows it, and gets the table anew before it comes back.
func contradictions(t *testing.T, servers []*pgtest.Server) {
	a := trial{schema: `CREATE TABLE bag (a int); INSERT INTO bag SELECT generate_series(1, 20); CREATE TABLE uni (id int PRIMARY KEY, v int UNIQUE); INSERT INTO uni SELECT g, g FROM generate_series(1, 20) g`}.on(t, servers)
	a.spoil(2, `DELETE FROM bag WHERE a = 7; INSERT INTO bag VALUES (70)`)
	a.spoil(3, `INSERT INTO uni VALUES (100, 100)`)
	c := a.client()
	a.do(c, `DELETE FROM bag WHERE a = 7`, `INSERT INTO uni VALUES (30, 100)`)
	a.same()
	if n := a.set.Checks().Differences; n[2] == 0 || n[3] == 0 {
		t.Errorf("counted: %v", n)
	}
}

// A member that is excluded because it differs does not come back without what was to be
// put right, whoever catches it up.
func expelled(t *testing.T, servers []*pgtest.Server) {
	a := trial{schema: basics + `INSERT INTO acc (id, v, n, at, r) SELECT g, g, g, '2020-01-01', 0 FROM generate_series(1, 10) g`}.on(t, servers)
	a.spoil(3, `UPDATE acc SET v = -1`)
	v := a.set.View()
	gen := a.query(1, `SELECT gen::text FROM pgdist.tables WHERE rel = 'acc'`)
	tab := a.query(1, `SELECT id::text FROM pgdist.tables WHERE rel = 'acc'`)
	var keys [][]byte
	for i := range 10 {
		keys = append(keys, fmt.Append(nil, i+1))
	}
	w := []wound{{tab: number(text(tab)), gen: number(text(gen)), keys: keys}}
	if err := a.set.expel(a.ctx(), &health.View{Epoch: v.Epoch - 1, Term: v.Term, InSync: v.InSync}, 3, w, "test"); !errors.Is(err, errSuperseded) {
		t.Errorf("by a view that is past: %v", err)
	}
	if err := a.set.members.get(3).blame(a.ctx(), v.Epoch-1, w, "test"); sqlState(err) != codeFence {
		t.Errorf("written down under an epoch that is past: %v", err)
	}
	if err := a.set.expel(a.ctx(), v, v.Leader, w, "test"); !errors.Is(err, errSuperseded) {
		t.Errorf("the leader was to be expelled: %v", err)
	}
	if err := a.set.expel(a.ctx(), v, 3, w, "test"); err != nil {
		t.Fatal(err)
	}
	if a.set.View().Epoch == v.Epoch {
		t.Error("it was not excluded")
	}
	a.set.Close()
	a.open() // another program finds it
	a.same()
	a.everywhere("55", `SELECT sum(v)::text FROM acc`)

	// What did not help is not tried again.
	v = a.set.View()
	if err := a.set.expel(a.ctx(), v, 3, []wound{{}}, "acc, again"); err != nil {
		t.Fatal(err)
	}
	a.await("it is said to be lost", func() bool { n := a.set.members.get(3).note.Load(); return n.Text == textLost })
	if err := a.set.awaitBack(a.ctx(), 3); !errors.Is(err, ErrPlaceLost) || !strings.Contains(err.Error(), "acc, again") || !strings.Contains(err.Error(), "pgdist resync") {
		t.Errorf("why it stays out: %v", err)
	}
	time.Sleep(300 * time.Millisecond)
	if a.set.View().Has(3) {
		t.Error("it came back")
	}
}

// A member that is known to differ, but could not be left out, is not elected if another
// can lead, and is out of the next view, whatever that is for.
func notElected(t *testing.T, servers []*pgtest.Server) {
	a := trial{schema: basics + `INSERT INTO acc (id, v, n, at, r) SELECT g, g, g, '2020-01-01', 0 FROM generate_series(1, 10) g`}.on(t, servers)
	a.spoil(2, `UPDATE acc SET v = -1`)
	v := a.set.View()
	tab, gen := a.query(1, `SELECT id::text FROM pgdist.tables WHERE rel = 'acc'`), a.query(1, `SELECT gen::text FROM pgdist.tables WHERE rel = 'acc'`)
	if err := a.set.members.get(2).blame(a.ctx(), v.Epoch, []wound{{tab: number(text(tab)), gen: number(text(gen))}}, "test"); err != nil {
		t.Fatal(err)
	}
	a.kill(v.Leader)
	if n := a.newTerm(v); n.Leader != 3 || n.Has(2) {
		t.Errorf("the next view: %v", n)
	}
	a.start(v.Leader)
	a.same()
	a.everywhere("55", `SELECT sum(v)::text FROM acc`)
}

// A member that cannot be taken back does not keep others from being put right, and is said to be
// as it was.
func TestRepairGoesOn(t *testing.T) {
	a := trial{schema: `CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, g FROM generate_series(1, 5) g`}.on(t, ground(t, 3, nil))
	a.spoil(2, `UPDATE t SET v = -1 WHERE id = 1; CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not here''; END';
		CREATE TRIGGER never BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION never(); ALTER TABLE t ENABLE ALWAYS TRIGGER never`)
	a.spoil(3, `UPDATE t SET v = -1 WHERE id = 2`)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // no pauses between attempts
		for m := a.set.members.get(2); ; {
			select {
			case <-over:
				return
			case <-time.After(10 * time.Millisecond):
				m.retry.Store(0)
			}
		}
	})
	rep, err := a.set.Repair(a.ctx(), VerifyOptions{}, false)
	close(over)
	wg.Wait()
	if err == nil || !strings.Contains(err.Error(), "put right what differs on "+a.server(2).Addr()) {
		t.Errorf("a member that cannot be taken back: %v", err)
	}
	want := []string{
		"2 left: function public.never() is not on the leader", "2 left: trigger never on public.t is not on the leader",
		"2 left: table public.t has other contents: 1 row differs", "3 repaired: table public.t has other contents: 1 row differs",
	}
	if diff := cmp.Diff(want, found(rep)); diff != "" {
		t.Error(diff)
	}
	if rep.Whole(2) || !rep.Whole(3) {
		t.Errorf("left: %v", rep.Left)
	}
}

// What was found on a member that is lost before it is put right is not said to be put right.
func TestRepairOfWhoLeaves(t *testing.T) {
	var a *arena
	var once sync.Once
	a = trial{schema: `CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, g FROM generate_series(1, 5) g`, config: func(c *Config) {
		c.Notice = func(what string) {
			if !strings.Contains(what, "was read until now") {
				return
			}
			once.Do(func() {
				if err := a.server(3).Kill(); err != nil {
					t.Error(err)
				}
				a.inSync(2)
			})
		}
	}}.on(t, ground(t, 3, nil))
	a.spoil(3, `UPDATE t SET v = -1 WHERE id = 2`)
	rep, err := a.set.Repair(a.ctx(), VerifyOptions{}, false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"3 left: table public.t has other contents: 1 row differs"}, found(rep)); diff != "" || rep.Whole(3) {
		t.Errorf("%s; left: %v", diff, rep.Left)
	}
}
