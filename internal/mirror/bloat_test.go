package mirror

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/pgdist/pgdist/health"
)

var bloatCycles = flag.Int("bloat.cycles", 1000, "flushes of TestFlushesLeaveNoBloat; 100000 are a loaded day's rotations many times over")

// ownSize are the bytes of schema pgdist, and of the catalogs that its rotation writes to.
const ownSize = `SELECT sum(pg_total_relation_size(c.oid))::bigint || ' ' || (SELECT sum(pg_total_relation_size(x)) FROM unnest('{pg_class,pg_attribute,pg_proc,pg_type,pg_index,pg_depend,pg_statistic,pg_trigger,pg_description}'::regclass[]) x)::bigint
	FROM pg_class c WHERE c.relnamespace = 'pgdist'::regnamespace AND c.relkind IN ('r', 'S') AND c.relname !~ '^journal_[0-9]$'`

// Flush after flush, rotation after rotation, schema pgdist and the catalogs stay as
// large as they are: what a flush leaves behind, ordinary autovacuum takes away.
func TestFlushesLeaveNoBloat(t *testing.T) {
	g := ground(t, 2, map[string]string{"autovacuum_naptime": "1s", "fsync": "on"})
	a := trial{schema: `CREATE TABLE k (k int PRIMARY KEY, v int); INSERT INTO k SELECT g, 0 FROM generate_series(1, 100) g`, config: func(c *Config) {
		smallJournal(c)
		c.JournalAge, c.JournalKeep = 100*time.Millisecond, 50*time.Millisecond
	}}.on(t, g)
	c := a.client()
	type size struct{ own, catalog int }
	read := func(id health.MemberID) (s size) {
		if _, err := fmt.Sscan(a.query(id, ownSize), &s.own, &s.catalog); err != nil {
			t.Fatal(err)
		}
		return s
	}
	var first [2]size
	const samples = 6
	file := ""
	for n := range samples {
		began := time.Now()
		for range *bloatCycles / samples {
			a.exec(c, `UPDATE k SET v = v + 1 WHERE k = 1`)
			a.ack()
		}
		now := file
		for deadline := time.Now().Add(ages); now == file; {
			if now = a.query(1, `SELECT pg_relation_filenode('pgdist.journal_1')::text`); now == file && time.Now().After(deadline) {
				t.Error("the journal is not rotated")
				break
			}
			a.exec(c, `UPDATE k SET v = v + 1 WHERE k = 1`)
			a.ack()
		}
		file = now
		for id := range health.MemberID(2) {
			now := read(id + 1)
			t.Logf("after %d flushes (%v each), member %d: %+v, journal %d", (n+1)**bloatCycles/samples, (time.Since(began) / time.Duration(*bloatCycles/samples)).Round(time.Microsecond),
				id+1, now, a.journalSize(id+1))
			if n == 1 {
				first[id] = now
			}
			if b := first[id]; n > 1 && (now.own > b.own+b.own/4+128<<10 || now.catalog > b.catalog+b.catalog/4+128<<10) {
				t.Errorf("member %d grows: %+v, before %+v", id+1, now, b)
			}
		}
	}
}

// A long read on a follower keeps every version of its position from being removed.
// A flush reads the newest, and does not pass the dead ones to find it.
func TestPositionBesideALongRead(t *testing.T) {
	a := trial{schema: `CREATE TABLE k (k int PRIMARY KEY, v int); INSERT INTO k VALUES (1, 0)`, config: func(c *Config) {
		quiet(c)
		c.Health.ProbeInterval = time.Minute // a probe reads nothing, but let nothing else run
	}}.on(t, ground(t, 2, nil))
	c, x := a.client(), a.clientOf(2)
	a.exec(x, `BEGIN ISOLATION LEVEL REPEATABLE READ`, `SELECT * FROM k`)
	flushes := func(n int) {
		for range n {
			a.exec(c, `UPDATE k SET v = v + 1`)
			a.ack()
		}
	}
	// blocks are those of the position that were read so far, by connections that are closed.
	blocks := func() (n int) {
		a.set.Close()
		a.until(2, `SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'pgdist%' AND datname = current_database())`)
		if _, err := fmt.Sscan(a.query(2, `SELECT (heap_blks_hit + idx_blks_hit)::text FROM pg_statio_all_tables WHERE schemaname = 'pgdist' AND relname = 'position'`), &n); err != nil {
			t.Fatal(err)
		}
		a.open()
		return n
	}
	flushes(2000)
	before := blocks()
	flushes(200)
	if n := (blocks() - before) / 200; n > 14 {
		t.Errorf("a flush reads %d blocks of the position", n)
	} else {
		t.Logf("a flush reads %d blocks of the position", n)
	}
	a.exec(x, `COMMIT`)
	a.same()
}
