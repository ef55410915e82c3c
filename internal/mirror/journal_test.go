package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgdist/pgdist/health"
)

// smallJournal makes seconds of what takes hours.
func smallJournal(c *Config) {
	c.JournalBytes, c.JournalAge, c.JournalKeep = 32<<10, 200*time.Millisecond, 100*time.Millisecond
}

func (a *arena) journalSize(id health.MemberID) (n int) {
	a.t.Helper()
	if _, err := fmt.Sscan(a.query(id, `SELECT sum(pg_total_relation_size('pgdist.journal_' || i))::text FROM generate_series(0, 2) i`), &n); err != nil {
		a.t.Fatal(err)
	}
	return n
}

// logged is a log that can be searched.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// before is what was logged before some text; "" if that never was.
func (l *logged) before(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	head, _, ok := strings.Cut(l.text.String(), text)
	if !ok {
		return ""
	}
	return head
}

func (l *logged) has(text string) bool { return l.before(text) != "" }

// The journal stays small under load; one member away holds it back only up to
// JournalMax, and then needs a copy: it is reported, and not read.
func TestJournalIsBounded(t *testing.T) {
	g := ground(t, 3, nil)
	const most = 3 << 19 // of which a busy machine lets a third come together between two looks
	var log logged
	a := trial{schema: `CREATE TABLE k (k int PRIMARY KEY, v int); INSERT INTO k SELECT g, 0 FROM generate_series(1, 500) g`, config: func(c *Config) {
		smallJournal(c)
		c.JournalMax = most
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}}.on(t, g)
	c := a.client()
	size := func() int { return a.journalSize(1) }
	load := func(d time.Duration) {
		for until := time.Now().Add(d); time.Now().Before(until); {
			a.do(c, `UPDATE k SET v = v + 1`)
		}
	}
	load(4 * time.Second)
	if n := size(); n > most {
		t.Fatalf("after a load with all members present the journal has %d bytes", n)
	}
	if log.has("the journal fills") {
		t.Error("an alarm with all members present")
	}
	a.kill(3)
	// Between two writes somebody looks how full it is, however slow the machine is.
	fill := func(text string) {
		for !log.has(text) {
			a.do(c, `UPDATE k SET v = v + 1`)
			was := a.set.journal.Load()
			a.await("the journal is looked at", func() bool { return a.set.journal.Load() != was })
		}
	}
	fill("percent=")
	host := a.server(3).Addr()
	seen, err := Inspect(a.ctx(), a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for what, j := range map[string]*JournalStatus{"from within": a.set.Status().Journal, "from outside": seen.Journal} {
		if j == nil || !j.Alarms() || j.MaxBytes != most || len(j.HeldBy) != 1 || !strings.HasPrefix(j.HeldBy[0], host) {
			t.Errorf("the journal seen %s: %+v", what, j)
		}
	}
	fill("loses its place")
	for deadline := time.Now().Add(ages); a.query(1, `SELECT term::text || snap FROM pgdist.floor`) == "" || size() > most; {
		load(time.Second)
		if time.Now().After(deadline) {
			t.Fatalf("with a member away the journal has %d bytes", size())
		}
	}
	for _, percent := range []string{"50", "80"} {
		if !regexp.MustCompile(`the journal fills" percent=[` + percent[:1] + `-9].*held_by="?\[` + host).MatchString(log.before("loses its place")) {
			t.Errorf("no alarm at %s %% that names %s in\n%s", percent, host, log.before("loses its place"))
		}
	}
	a.start(3)
	deadline := time.Now().Add(ages)
	for {
		if n := a.set.members.get(3).note.Load(); n != nil && n.Text == textLost {
			if !errors.Is(n.Err, ErrPlaceLost) {
				t.Errorf("it lost its place because of %v", n.Err)
			}
			break
		}
		if a.set.View().Has(3) {
			t.Fatal("a member whose place was pruned away is in sync")
		}
		if time.Now().After(deadline) {
			t.Fatalf("what became of it: %+v", a.set.members.get(3).note.Load())
		}
		load(100 * time.Millisecond)
	}
	if err := a.set.Flush(a.ctx()); err != nil {
		t.Fatal(err)
	}
	a.equal()
}

// What counts as "held back by age" is how long entries have waited: a member that
// was away for longer loses its place, however little was written.
func TestLongAbsence(t *testing.T) {
	var log logged
	a := trial{schema: `CREATE TABLE k (k serial PRIMARY KEY)`, config: func(c *Config) {
		smallJournal(c)
		c.JournalMaxAge = 15 * time.Second // longer than a member takes to come back
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}}.on(t, ground(t, 3, nil))
	c := a.client()
	write := func() {
		a.do(c, `INSERT INTO k DEFAULT VALUES`)
		time.Sleep(20 * time.Millisecond)
	}
	write()
	a.kill(3)
	write()
	a.start(3)
	a.same()
	a.kill(3)
	for deadline := time.Now().Add(ages); !log.has("loses its place"); write() {
		if time.Now().After(deadline) {
			t.Fatalf("it may hold back the journal for ever: %+v", a.set.Status().Journal)
		}
	}
	// Nothing is kept for it any more.
	for deadline := time.Now().Add(ages); len(a.set.Status().Journal.HeldBy) > 0 || a.set.Status().Journal.Percent > 50; write() {
		if time.Now().After(deadline) {
			t.Fatalf("the journal is still held back: %+v", a.set.Status().Journal)
		}
	}
	a.start(3)
	for deadline := time.Now().Add(ages); a.set.members.get(3).note.Load().Text != textLost; time.Sleep(10 * time.Millisecond) {
		if a.set.View().Has(3) || time.Now().After(deadline) {
			t.Fatalf("after a long absence member 3 is %+v", a.set.members.get(3).note.Load())
		}
	}
	if n := a.journalSize(1); n > 1<<20 {
		t.Errorf("the journal has %d bytes", n)
	}
}

// A transaction that has written and stays open keeps the slot it wrote to. The
// others go on being filled and emptied, and what it wrote comes with its commit.
func TestJournalWithOpenTransaction(t *testing.T) {
	a := trial{schema: `CREATE TABLE k (k int PRIMARY KEY, v int); INSERT INTO k SELECT g, 0 FROM generate_series(1, 500) g; CREATE TABLE o (k serial PRIMARY KEY)`,
		config: func(c *Config) { smallJournal(c); c.BlockedTimeout = time.Minute }}.on(t, ground(t, 2, nil))
	c, x := a.client(), a.client()
	a.exec(x, `BEGIN`, `INSERT INTO o DEFAULT VALUES`)
	slot := func(id health.MemberID) (slot string) {
		a.everywhere("0", `SELECT count(*)::text FROM o`)
		return a.query(id, `SELECT last_value::text FROM pgdist.slot`)
	}
	turns, last, most := 0, "0", 0
	for deadline := time.Now().Add(ages); turns < 8; {
		a.do(c, `UPDATE k SET v = v + 1`)
		if now := slot(1); now != last {
			turns, last = turns+1, now
		}
		most = max(most, a.journalSize(1), a.journalSize(2))
		if time.Now().After(deadline) {
			t.Fatalf("turned to another slot %d times; the journal has %d bytes", turns, most)
		}
	}
	if most > 1<<20 {
		t.Errorf("the journal had %d bytes", most)
	}
	if j := a.set.Status().Journal; j == nil || len(j.HeldBy) != 1 || !strings.Contains(j.HeldBy[0], "in a transaction since") {
		t.Errorf("who holds it back: %+v", j)
	}
	a.do(x, `COMMIT`)
	a.everywhere("1", `SELECT count(*)::text FROM o`)
	a.same()
}

// A transaction that commits while the slot it wrote to is about to be emptied has
// its entries there still.
func TestPruneSparesLateCommits(t *testing.T) {
	a := trial{schema: `CREATE TABLE o (k serial PRIMARY KEY)`, config: quiet}.on(t, ground(t, 2, nil))
	err := a.set.inLoop(a.ctx(), func(context.Context) error {
		a.set.pruned = time.Now().Add(time.Hour) // only this test prunes
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c, p, look := a.client(), a.client(), a.client()
	tried, rounds := 0, 0
	// A machine that is busy seldom looks within the moment for which the slot is waited for.
	for until := time.Now().Add(ages); rounds < 40 || tried < 10 && time.Now().Before(until); rounds++ {
		x := a.client()
		a.exec(x, `BEGIN`, `INSERT INTO o DEFAULT VALUES`)
		a.do(c, `INSERT INTO o DEFAULT VALUES`) // the followers are behind no entry that can be seen
		at := a.set.Acked()
		prune := fmt.Sprintf(`SELECT pgdist.prune(%d, '%s', 0, '0', '0')`, at.Term, at.Snapshot)
		a.exec(p, prune) // turns; now the slot is an old one
		done := make(chan struct{})
		go func() {
			a.exec(p, prune)
			close(done)
		}()
		for waits, over := false, false; !waits && !over; {
			select {
			case <-done:
				over = true
			default:
				if err := look.QueryRow(a.ctx(), `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock')`).Scan(&waits); err != nil {
					t.Fatal(err)
				}
			}
			if waits {
				tried++
			}
		}
		a.exec(x, `COMMIT`)
		<-done
		a.ack()
		a.everywhere(a.query(1, `SELECT count(*)::text FROM o`), `SELECT count(*)::text FROM o`)
		if t.Failed() {
			break
		}
		_ = x.Close(a.ctx())
	}
	if tried < 10 {
		t.Errorf("only %d of %d commits came while the slot was waited for", tried, rounds)
	}
}
