package mirror

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// The journal stays small under load; one member away holds it back only up to
// JournalMax, and then needs a copy: it is reported, and not read.
func TestJournalIsBounded(t *testing.T) {
	g := ground(t, 3, nil)
	a := trial{schema: `CREATE TABLE k (k int PRIMARY KEY, v int); INSERT INTO k SELECT g, 0 FROM generate_series(1, 500) g`, config: func(c *Config) {
		c.JournalBytes, c.JournalAge, c.JournalKeep, c.JournalMax = 32<<10, 200*time.Millisecond, 100*time.Millisecond, 1<<20
	}}.on(t, g)
	c := a.client()
	size := func() (n int) {
		if _, err := fmt.Sscan(a.query(1, `SELECT sum(pg_relation_size('pgdist.journal_' || i))::text FROM generate_series(0, 2) i`), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	load := func(d time.Duration) {
		for until := time.Now().Add(d); time.Now().Before(until); {
			a.do(c, `UPDATE k SET v = v + 1`)
		}
	}
	load(4 * time.Second)
	if n := size(); n > 1<<20 {
		t.Fatalf("after a load with all members present the journal has %d bytes", n)
	}
	a.kill(3)
	for deadline := time.Now().Add(60 * time.Second); a.query(1, `SELECT term::text || snap FROM pgdist.floor`) == "" || size() > 1<<20 || time.Until(deadline) > 50*time.Second; {
		load(time.Second)
		if time.Now().After(deadline) {
			t.Fatalf("with a member away the journal has %d bytes", size())
		}
	}
	a.start(3)
	deadline := time.Now().Add(30 * time.Second)
	for {
		if n := a.set.members[3].note.Load(); n != nil && n.Text == textLost {
			if !errors.Is(n.Err, ErrPlaceLost) {
				t.Errorf("it lost its place because of %v", n.Err)
			}
			break
		}
		if a.set.View().Has(3) {
			t.Fatal("a member whose place was pruned away is in sync")
		}
		if time.Now().After(deadline) {
			t.Fatalf("what became of it: %+v", a.set.members[3].note.Load())
		}
		load(100 * time.Millisecond)
	}
	if err := a.set.Flush(a.ctx()); err != nil {
		t.Fatal(err)
	}
	a.equal()
}
