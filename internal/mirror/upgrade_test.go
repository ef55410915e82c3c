package mirror

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgdist/pgdist/health"
)

// before is the version that testdata/schema1 holds, as it was when the next began.
const before = 1

// onBefore makes a set of the version before.
func (x trial) onBefore(t *testing.T, n int) *arena {
	t.Helper()
	a := x.bare(t, ground(t, n, nil))
	now := schemaSQL
	schemaSQL = os.DirFS("testdata/schema" + strconv.Itoa(before))
	defer func() { schemaSQL = now }()
	if _, err := Init(a.ctx(), a.cfg, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	a.version(before, 1, 2, 3)
	return a
}

func (a *arena) version(v int, ids ...health.MemberID) {
	a.t.Helper()
	for _, id := range ids {
		a.exec(a.clientOf(id), `UPDATE pgdist.meta SET version = `+strconv.Itoa(v))
	}
}

// A set of the version before is upgraded in place while a program of that version
// mirrors what others write, which nobody notices but by a short wait; then a
// program of this version takes over.
func TestUpgradeUnderLoad(t *testing.T) {
	a := trial{schema: basics, config: func(c *Config) { c.BlockedTimeout = time.Minute }}.onBefore(t, 3)
	if _, err := Open(a.ctx(), a.cfg); err == nil || !strings.Contains(err.Error(), "version 1") || !strings.Contains(err.Error(), "pgdist init") {
		t.Fatalf("an old schema was opened, or without saying what to do: %v", err)
	}
	a.cfg.anyVersion = true
	a.open()
	a.cfg.anyVersion = false

	var set atomic.Pointer[Set] // where writes are acknowledged
	set.Store(a.set)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var acked sync.Map
	var count atomic.Int64
	var longest atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		c := a.client()
		wg.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				id := w*1_000_000 + i
				began := time.Now()
				if _, err := c.Exec(context.Background(), `WITH x AS (INSERT INTO hist (a) VALUES ($1)) INSERT INTO acc (id, v) VALUES ($1, 0)`, id); err != nil {
					t.Error(err)
					return
				}
				for {
					s := set.Load()
					err := s.Ack(context.Background(), s.View().Term, Change{})
					if err == nil {
						break
					}
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
						return
					}
				}
				acked.Store(id, true)
				count.Add(1)
				longest.Store(max(longest.Load(), int64(time.Since(began))))
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		for goal, deadline := count.Load()+n, time.Now().Add(ages); count.Load() < goal; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("writers do not go on: %v", a.set.lastErr.Load())
			}
		}
	}
	more(100)
	longest.Store(0)
	// Triggers that are right stay: to make them anew would lock out readers, too.
	const right = `SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_trigger WHERE tgrelid IN ('acc'::regclass, 'hist'::regclass) AND tgname ~ '^pgdist_'`
	before := a.query(a.set.View().Leader, right)
	// A transaction that has written stays open over the first attempts.
	x := a.client()
	a.exec(x, `BEGIN`, `INSERT INTO ser (x) VALUES ('open')`)
	waits := make(chan struct{}, 100)
	done := make(chan error, 1)
	go func() {
		_, err := Init(a.ctx(), a.cfg, InitOptions{Report: func(format string, _ ...any) {
			if strings.HasPrefix(format, "waiting") {
				waits <- struct{}{}
			}
		}})
		done <- err
	}()
	<-waits
	more(20) // between attempts
	a.exec(x, `COMMIT`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if now := a.query(a.set.View().Leader, right); now != before {
		t.Errorf("triggers were made anew: %s before, %s now", before, now)
	}
	if took := time.Duration(longest.Load()); took > ages/6 {
		t.Errorf("a write took %v meanwhile", took)
	}
	more(100) // acknowledged by the old program still
	a.set.Close()
	a.open()
	set.Store(a.set)
	more(100)
	stop()
	wg.Wait()
	t.Logf("%d writes, the longest took %v", count.Load(), time.Duration(longest.Load()))
	a.same()
	for id := range health.MemberID(3) {
		have := "," + a.query(id+1, `SELECT string_agg(id::text, ',') FROM acc`) + ","
		acked.Range(func(k, _ any) bool {
			if !strings.Contains(have, ","+strconv.Itoa(k.(int))+",") {
				t.Errorf("member %d lacks %d, which was acknowledged", id+1, k)
			}
			return true
		})
	}
	if _, err := Init(a.ctx(), a.cfg, InitOptions{}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Fatalf("init of a set that is up to date: %v", err)
	}
	// What is there now is what a new set has.
	fresh := trial{schema: basics}.on(t, a.servers)
	want, got := fresh.query(2, ownObjects), a.query(2, ownObjects)
	for w := range strings.SplitSeq(want, "\x01") {
		if !strings.Contains(got, w) {
			t.Errorf("lacking after the upgrade: %.300s", w)
		}
	}
	for g := range strings.SplitSeq(got, "\x01") {
		// journal_id: writers that waited for the fence still use it.
		if !strings.Contains(want, g) && !strings.Contains(g, "pgdist.unblock") && !strings.Contains(g, "pgdist.journal_id ") {
			t.Errorf("left by the upgrade: %.300s", g)
		}
	}
}

// A transaction that has read a table, and then writes, is in an upgrade's way and does not notice it: nor
// does who writes meanwhile, but by a short wait.
func TestUpgradeBesideReaders(t *testing.T) {
	a := trial{schema: basics + `; CREATE TABLE tree (k int PRIMARY KEY) PARTITION BY RANGE (k); CREATE TABLE leaf PARTITION OF tree DEFAULT`}.onBefore(t, 3) // a tree has more triggers since
	x, y := a.clientOf(1), a.clientOf(1)
	a.exec(x, `BEGIN`, `SELECT count(*) FROM tree`)
	waits, done := make(chan struct{}, 100), make(chan error, 1)
	go func() {
		_, err := Init(a.ctx(), a.cfg, InitOptions{Report: func(format string, _ ...any) {
			if strings.HasPrefix(format, "waiting") {
				waits <- struct{}{}
			}
		}})
		done <- err
	}()
	select {
	case <-waits:
	case <-time.After(5 * time.Second):
	}
	for i := range 5 {
		began := time.Now()
		a.exec(y, `INSERT INTO hist (a) VALUES (`+strconv.Itoa(i)+`)`)
		if took := time.Since(began); took > ages/6 {
			t.Errorf("a write took %v meanwhile", took)
		}
	}
	a.exec(x, `INSERT INTO tree VALUES (12345)`, `COMMIT`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	a.open()
	a.same()
}

// ownObjects describes schema pgdist but for what depends on the database.
const ownObjects = `SELECT string_agg(x, E'\x01' ORDER BY x) FROM (
	SELECT concat_ws(' ', p.oid::regprocedure, p.prorettype::regtype, p.proowner::regrole, p.prosecdef, p.provolatile, p.proconfig, p.proacl::text, p.proargnames,
		regexp_replace(p.prosrc, '\) \d{5,} THEN', '')) FROM pg_proc p WHERE p.pronamespace = 'pgdist'::regnamespace
	UNION ALL SELECT concat_ws(' ', a.attrelid::regclass, a.attname, a.atttypid::regtype, a.attnotnull, pg_get_expr(d.adbin, d.adrelid), c.relkind, c.relpersistence, c.reloptions)
	  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
	 WHERE c.relnamespace = 'pgdist'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL SELECT concat_ws(' ', t.tgrelid::regclass, pg_get_triggerdef(t.oid)) FROM pg_trigger t WHERE t.tgname LIKE 'pgdist%'
	UNION ALL SELECT concat_ws(' ', e.evtname, e.evtevent, e.evtfoid::regproc, e.evtenabled) FROM pg_event_trigger e) y(x)`

// Every step since version 0 is there.
func TestUpgradeFromTheFirst(t *testing.T) {
	if sql, err := migrations(0); err != nil || strings.Count(sql, "\n") < Version {
		t.Errorf("%d bytes, %v", len(sql), err)
	}
}

// A schema that a newer program has upgraded is left alone, and everybody who
// looks at it says what to do.
func TestSchemaOfTheFuture(t *testing.T) {
	a := trial{schema: `CREATE TABLE t (k int PRIMARY KEY)`}.on(t, ground(t, 2, nil))
	a.set.Close()
	a.version(Version+1, 2)
	clear := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "version "+strconv.Itoa(Version+1)) || !strings.Contains(err.Error(), "newer pgdist") || strings.Contains(err.Error(), "run: pgdist init") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := Open(a.ctx(), a.cfg)
	clear("open", err)
	_, err = Init(a.ctx(), a.cfg, InitOptions{})
	clear("init", err)
	seen, err := Inspect(a.ctx(), a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	clear("status", errors.New(seen.Members[1].Error))
	// One that comes back with it is not taken back, by name.
	a.version(Version, 2)
	a.open()
	a.kill(2)
	a.do(a.client(), `INSERT INTO t VALUES (1)`)
	a.set.members.get(2).retry.Store(later(time.Hour)) // not yet
	a.start(2)
	a.version(Version+1, 2)
	a.set.members.get(2).retry.Store(0)
	for deadline := time.Now().Add(ages); ; time.Sleep(5 * time.Millisecond) {
		if n := a.set.members.get(2).note.Load(); n.Text == textRefused {
			clear("rejoin", n.Err)
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("member 2: %+v", n)
		}
	}
	a.version(Version, 2)
	a.same()
}
