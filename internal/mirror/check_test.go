package mirror

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// checking has a set compare in the background as fast as it can.
func checking(c *Config) {
	c.CheckRate = 1e6
	c.checkTimes = checkTimes{first: 10 * time.Millisecond, pause: 50 * time.Millisecond, again: 100 * time.Millisecond, still: 20 * time.Millisecond}
}

// heard collects what people are told.
type heard struct {
	mu   sync.Mutex // guards what follows
	list []string
}

func (h *heard) add(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, s)
}

// Write has a log be heard.
func (h *heard) Write(b []byte) (int, error) {
	h.add(string(b))
	return len(b), nil
}

func (h *heard) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.list, "\n")
}

func (h *heard) has(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(strings.Join(h.list, "\n"), text)
}

// round waits until a comparison that begins now has been through.
func (a *arena) round() {
	a.t.Helper()
	for range 2 { // the first may have begun before
		since := a.set.Checks().Through
		a.eventually("a round of the comparison goes through", func() bool { return a.set.Checks().Through.After(since) })
	}
}

const checkSchema = rowsSchema + `
	CREATE TABLE pair (b int, a text COLLATE "C", v int, PRIMARY KEY (a, b)); INSERT INTO pair SELECT g % 7, 'k' || g, g FROM generate_series(1, 1200) g;
	CREATE TABLE down (k int NOT NULL, v text); CREATE UNIQUE INDEX ON down (k DESC); INSERT INTO down SELECT g, 'v' FROM generate_series(1, 50) g;
	CREATE TABLE tree (a int) PARTITION BY HASH (a); CREATE TABLE tree0 PARTITION OF tree FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE tree1 PARTITION OF tree FOR VALUES WITH (MODULUS 2, REMAINDER 1);
	INSERT INTO tree SELECT generate_series(1, 100)`

// The comparison in the background finds what differs, and nothing else.
func TestCheck(t *testing.T) {
	servers := ground(t, 3, nil)
	t.Run("lag", func(t *testing.T) { checkLag(t, servers) })
	t.Run("turns", func(t *testing.T) { checkTurns(t, servers) })
	t.Run("generated", func(t *testing.T) { checkGenerated(t, servers) })
	t.Run("tells", func(t *testing.T) { checkTells(t, servers) })
	t.Run("finds", func(t *testing.T) { checkFinds(t, servers) })
}

// eventually is await for what takes rounds of the comparison, on a machine that is busy.
func (a *arena) eventually(what string, f func() bool) {
	a.t.Helper()
	for deadline := time.Now().Add(ages); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.states()
			a.t.Fatalf("in vain: %s", what)
		}
	}
}

// What a generated column makes of a function that was another one when the leader's rows were
// written, no repair can make alike: no member leaves for it. The rest of the row is compared.
func checkGenerated(t *testing.T, servers []*pgtest.Server) {
	var told heard
	const twice, thrice = `CREATE OR REPLACE FUNCTION public.times(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1';`, `CREATE OR REPLACE FUNCTION public.times(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3 * $1';`
	a := trial{schema: checkSchema + `;` + twice + `CREATE TABLE made (k int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (times(a)) STORED, h int GENERATED ALWAYS AS (a + 1) STORED); INSERT INTO made SELECT g, g FROM generate_series(1, 10) g;
		CREATE TABLE loose (a int, g int GENERATED ALWAYS AS (times(a)) STORED); INSERT INTO loose SELECT g FROM generate_series(1, 10) g`,
		config: func(c *Config) { checking(c); c.Notice = told.add }}.on(t, servers)
	before := a.set.View()
	a.spoil(3, thrice+`UPDATE made SET a = a; UPDATE loose SET a = a;`+twice)
	a.round()
	a.unchanged(before)
	if n := a.set.Checks(); len(n.Differences) > 0 {
		t.Fatalf("%+v, %q", n, told.text())
	}
	a.spoil(3, `UPDATE made SET a = 7 WHERE k = 1; UPDATE loose SET a = 7 WHERE a = 1`)
	a.eventually("the rest is compared", func() bool { return a.set.Checks().Differences[3] >= 2 })
	a.round()
	a.whole()
	a.spoil(3, `UPDATE made SET a = a; UPDATE loose SET a = a`)
	a.same()
}

// Whatever differs on a follower is found while clients write, the follower is excluded,
// put right and taken back; nothing is found that is none, and nobody is excluded for it.
func checkFinds(t *testing.T, servers []*pgtest.Server) {
	var told heard
	a := trial{schema: checkSchema, config: func(c *Config) { checking(c); c.Notice = told.add }}.on(t, servers)
	stop := a.busy(`UPDATE acc SET v = coalesce(v, 0) + 1 WHERE id IN (9, 20, 100)`, `INSERT INTO bag VALUES (3, 'new'); DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 3)`,
		`UPDATE many SET v = v + 1 WHERE id = 1 + (random() * 4998)::int; SELECT nextval('ser_id_seq')`, `INSERT INTO pair VALUES (1, gen_random_uuid()::text, 0); DELETE FROM pair WHERE v = 0 AND a < 'b'`)
	before := a.set.View()
	a.round()
	a.unchanged(before)
	if n := a.set.Checks(); len(n.Differences) > 0 || n.Rows < 3*9000 {
		t.Fatalf("found where nothing is: %+v, %q", n, told.text())
	}
	// Of many, more pieces than are shipped one by one.
	a.spoil(2, `UPDATE acc SET v = NULL WHERE id = 150; UPDATE many SET v = -7; DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 4); DELETE FROM tree WHERE a = 77`)
	a.spoil(3, `UPDATE pair SET b = 99 WHERE a = 'k1200'; UPDATE down SET v = 'w' WHERE k = 7; UPDATE part2 SET v = ''`)
	a.eventually("all of it is found", func() bool { n := a.set.Checks().Differences; return n[2] >= 7 && n[3] >= 3 })
	if a.set.View().Epoch == before.Epoch {
		t.Error("nobody was excluded")
	}
	a.round() // it is counted before the member is excluded
	a.whole()
	t.Logf("%d writes; told: %s", stop(), told.text())
	a.same()
	a.spoil(3, `SELECT setval('gen_id_seq', 88)`)
	since := time.Now()
	a.eventually("the sequence is told", func() bool {
		if time.Since(since) > 5*time.Second { // a flush after a hiccup ships all of them unasked
			since = time.Now()
			a.spoil(3, `SELECT setval('gen_id_seq', 88)`)
		}
		return told.has("sequence public.gen_id_seq is at 88")
	})
	a.same()
	for _, w := range []string{a.server(2).Addr() + " differs from the leader, and was read until now: table public.acc: 1 row differs: 150", "table public.bag has other contents", "table public.pair: 2 rows differ", "table public.down has", "table public.tree has", "table public.part: 1 row"} {
		if !told.has(w) {
			t.Errorf("not told: %s", w)
		}
	}
	if n := a.set.Checks().Differences; n[before.Leader] != 0 {
		t.Errorf("the leader was counted: %v", n)
	}
	if st, err := Inspect(a.ctx(), a.cfg); err != nil || st.Check == nil || st.Check.Ended == nil || st.Check.Differ < 8 {
		t.Errorf("status: %+v, %v", st.Check, err)
	}
}

// Where all followers agree against the leader that is said, and nobody is excluded;
// definitions that differ are said, and nobody is excluded either.
func checkTells(t *testing.T, servers []*pgtest.Server) {
	var told heard
	a := trial{schema: basics + `INSERT INTO part VALUES (1, 1, 'a'), (2, 15, 'b')`, config: func(c *Config) { checking(c); c.Notice = told.add }}.on(t, servers)
	before := a.set.View()
	hold := a.set.inLoop // both are spoiled before anybody looks
	err := hold(a.ctx(), func(context.Context) error {
		a.spoil(2, `DELETE FROM part WHERE id = 2`)
		a.spoil(3, `DELETE FROM part WHERE id = 2`)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a.spoil(3, `CREATE INDEX more ON ser (x, id)`)
	a.eventually("the followers' word is told", func() bool {
		return told.has("all followers hold the same, and the leader something else: table public.part: 1 row differs")
	})
	a.eventually("the index is told", func() bool { return told.has("differs from the leader in its definitions: index public.more") })
	a.round()
	a.unchanged(before)
}

// One program compares at a time, and goes on where the one before was cut off.
func checkTurns(t *testing.T, servers []*pgtest.Server) {
	a := trial{schema: basics + `CREATE TABLE big (id int PRIMARY KEY, v text); INSERT INTO big SELECT g, 'x' FROM generate_series(1, 4000) g`, config: func(c *Config) {
		checking(c)
		c.CheckRate = 1000
		c.checkTimes.pause = 5 * time.Second // for a slow machine to look in between
		c.ViewLease = 20 * time.Second       // who is late on such a machine is not taken for dead, and relieved
	}}.on(t, servers[:2])
	b, _ := a.beside(nil)
	a.know(1, b)
	place := func() (tab, rows string) {
		return a.query(1, `SELECT coalesce(tab::text, 'none') || ' ' || coalesce(after, '') FROM pgdist.checks`), a.query(1, `SELECT rows::text FROM pgdist.checks`)
	}
	a.eventually("some rows were compared", func() bool { return a.set.Checks().Rows+b.set.Checks().Rows >= 1000 })
	first, second := a, b
	if b.set.Checks().Rows > 0 {
		first, second = b, a
	}
	if m, n := first.set.Checks().Rows, second.set.Checks().Rows; n != 0 {
		// The one that began may have been cut off, and the other gone on; two at once go on both.
		time.Sleep(1200 * time.Millisecond)
		if more, most := first.set.Checks().Rows, second.set.Checks().Rows; more > m && most > n {
			t.Errorf("two compare at once: %d and %d rows", more, most)
		} else if most > n {
			first, second = second, first
		}
	}
	// As it would stand had the first one got nearly through, and died. It writes down where
	// it is after five seconds, and is through after four: both are far.
	tab := a.query(1, `SELECT id::text FROM pgdist.tables WHERE rel = 'big'`)
	a.exec(a.clientOf(1), fmt.Sprintf(`UPDATE pgdist.checks SET tab = %s, after = '3500', rows = 3500`, tab))
	had := second.set.Checks().Rows
	first.set.Close()
	second.eventually("the other program goes on", func() bool { return second.set.Checks().Rows-had >= 2*500 })
	if n := second.set.Checks().Rows - had; n != 2*500 {
		where, rows := place()
		t.Errorf("the other program read %d rows for the rest, and is at %s, %s rows", n, where, rows)
	}
	second.eventually("and gets through", func() bool { return !second.set.Checks().Through.IsZero() })
}

// A position that is read in another snapshot than the rows would make differences of
// writes; and what the leader's journal says of a follower's lag is no difference.
func checkLag(t *testing.T, servers []*pgtest.Server) {
	a := trial{schema: `CREATE TABLE kv (k int PRIMARY KEY, v int); INSERT INTO kv SELECT g, 0 FROM generate_series(1, 300) g; CREATE TABLE log (v int)`, config: func(c *Config) {
		checking(c)
		quiet(c) // so that what is not acknowledged stays away from the follower
		c.CheckRate = 0
	}}.on(t, servers[:2])
	a.ack() // the first flush is everybody's
	c := a.client()
	p := &patroller{s: a.set, times: a.set.cfg.checkTimes, told: map[string]bool{}, pace: map[health.MemberID]*pace{}, who: map[health.MemberID]*member{}, view: a.set.View(), conns: map[health.MemberID]*conn{}}
	defer p.close()
	var err error
	if p.hold, err = a.set.members.get(1).connect(a.ctx()); err != nil {
		t.Fatal(err)
	}
	list, err := p.list(a.ctx())
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	seen := func() string {
		t.Helper()
		one, next, err := p.look(a.ctx(), list[0], nil)
		if err != nil || next != nil {
			return fmt.Sprint(err)
		}
		two, err := p.lookWhole(a.ctx(), list[1])
		if err != nil {
			return err.Error()
		}
		return strings.Join(saidKeys(one[2]), " ") + "/" + fmt.Sprint(len(two[2]))
	}
	for _, x := range []struct{ leader, follower, want string }{
		{`UPDATE kv SET v = 1 WHERE k < 10; DELETE FROM kv WHERE k = 20; INSERT INTO kv VALUES (301, 1); UPDATE kv SET k = 999 WHERE k = 30; INSERT INTO log VALUES (1), (2)`, ``, "/0"},
		{``, `UPDATE kv SET v = 7 WHERE k IN (5, 200)`, "200/0"},
		{`INSERT INTO log VALUES (3)`, `INSERT INTO log VALUES (3)`, "200/1"},
		{`UPDATE pgdist.floor SET term = (SELECT last_value FROM pgdist.term), snap = pg_current_snapshot()`, ``, errUnsure.Error()}, // the journal was emptied beyond
		{`UPDATE pgdist.floor SET term = 0`, ``, "200/1"},
		{`TRUNCATE kv`, ``, errUnsure.Error()},
	} {
		if x.leader != "" {
			a.exec(c, x.leader)
		}
		if x.follower != "" {
			a.spoil(2, x.follower)
		}
		if got := seen(); got != x.want {
			t.Errorf("after %s; %s: %q instead of %q", x.leader, x.follower, got, x.want)
		}
	}
}

// Tables that exchange their names while a round goes on are not taken for each other: what is
// read by a name would be looked up in the journal under the other's number.
func TestCheckOfTablesThatExchangeNames(t *testing.T) {
	a := trial{schema: `CREATE TABLE one (id int PRIMARY KEY, v int); CREATE TABLE two (id int PRIMARY KEY, v int); INSERT INTO one VALUES (1, 0); INSERT INTO two VALUES (1, 0), (2, 0);
		CREATE TABLE bag1 (a int); CREATE TABLE bag2 (a int); INSERT INTO bag1 VALUES (1); INSERT INTO bag2 VALUES (2)`}.on(t, ground(t, 3, nil))
	ctx := a.ctx()
	p := &patroller{s: a.set, times: checkTimes{still: time.Millisecond}, told: map[string]bool{}, pace: map[health.MemberID]*pace{}, who: map[health.MemberID]*member{}, twice: map[repaired]bool{}, count: map[repaired]int{},
		view: a.set.View(), conns: map[health.MemberID]*conn{}}
	defer p.close()
	lead, err := p.member(p.view.Leader)
	if err != nil {
		t.Fatal(err)
	}
	for id := range health.MemberID(3) {
		if _, err := p.member(id + 1); err != nil {
			t.Fatal(err)
		}
	}
	if p.hold, err = lead.connect(ctx); err != nil {
		t.Fatal(err)
	}
	list, err := p.list(ctx)
	if err != nil || len(list) != 4 {
		t.Fatalf("%d tables: %v", len(list), err)
	}
	a.exec(a.client(), `DO $$ BEGIN ALTER TABLE one RENAME TO x; ALTER TABLE two RENAME TO one; ALTER TABLE x RENAME TO two; ALTER TABLE bag1 RENAME TO x; ALTER TABLE bag2 RENAME TO bag1; ALTER TABLE x RENAME TO bag2; END $$`)
	stop := a.busy(`UPDATE one SET v = v + 1`, `UPDATE two SET v = v + 1`, `UPDATE bag1 SET a = a + 1`, `UPDATE bag2 SET a = a + 1`)
	for _, c := range list {
		for range 3 {
			if err := p.table(ctx, c, nil); err != nil {
				t.Error(err)
			}
		}
	}
	if n := a.set.Checks().Differences; len(n) > 0 {
		t.Errorf("found where nothing is: %v", n)
	}
	t.Logf("%d writes", stop())
	a.same()
}
