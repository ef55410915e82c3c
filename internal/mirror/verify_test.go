package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// tamper writes past the mirror.
const tamper = `SET session_replication_role = replica; `

// verify compares and fails the test if that cannot be done.
func (r *rig) verify(o VerifyOptions) *Report {
	r.t.Helper()
	rep, err := r.set.Verify(r.ctx(), o)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(rep.Unread) > 0 {
		r.t.Errorf("not compared: %+v", rep.Unread)
	}
	return rep
}

// said is a report's differences as people read them.
func said(rep *Report) []string {
	out := []string{}
	for _, d := range rep.Differences {
		out = append(out, fmt.Sprintf("%d: %s", d.Member, d.What))
		for _, row := range d.Rows {
			out = append(out, "   "+row.String())
		}
	}
	return out
}

// load runs statements on the leader over and over, each acknowledged as the
// engine does, until the returned function is called.
func (r *rig) load(each ...string) (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx())
	var wg sync.WaitGroup
	for _, sql := range each {
		c := r.client()
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := c.Exec(r.ctx(), sql)
				if err == nil {
					err = r.set.Ack(r.ctx(), r.set.View().Term, Change{Sequences: true})
				}
				if err != nil {
					r.t.Errorf("%s: %v", sql, err)
					return
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// Contents are compared at one state of the set while writes go on, part by part
// over many connections; and a difference is named by its rows.
func TestVerifyUnderLoad(t *testing.T) {
	r := newRig(t, 3, basics)
	c := r.client()
	r.do(c, `INSERT INTO acc (id) SELECT generate_series(1, 2000)`)
	stop := r.load(`UPDATE acc SET v = v + 1, r = random() WHERE id % 10 = (random() * 9)::int`, `INSERT INTO ser (x) VALUES (gen_random_uuid())`,
		`TRUNCATE hist; INSERT INTO hist (a) VALUES (1), (2)`)
	for range 3 {
		// At one second a TRUNCATE waits for a lock of ours, then ends us.
		rep, err := r.set.Verify(r.ctx(), VerifyOptions{pages: 1})
		if err != nil {
			t.Fatal(err)
		}
		if len(rep.Differences) > 0 {
			t.Fatalf("under load: %v", said(rep))
		}
		for _, u := range rep.Unread {
			if u.Table != "public.hist" {
				t.Errorf("not compared: %+v", u)
			}
		}
	}
	// A sequence that stands still is compared though others move.
	r.server(3).Exec(t, tamper+`SELECT setval('gen_id_seq', 77)`)
	rep := r.verify(VerifyOptions{Tables: []string{"acc"}})
	if len(rep.Differences) > 0 || rep.Tables != 1 || rep.Rows != 2000 || rep.Read < 6000 || rep.RowsPerSecond <= 0 {
		t.Errorf("one table of all: %+v", rep)
	}
	if text, err := json.Marshal(rep); err != nil || !strings.Contains(string(text), `"differences":[]`) {
		t.Errorf("%v: as JSON: %s", err, text)
	}
	rep, err := r.set.Verify(r.ctx(), VerifyOptions{})
	stop()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"3: sequence public.gen_id_seq is at 77,true instead of 1,false"}, said(rep)); diff != "" {
		t.Error(diff)
	}
}

// DDL while members are read is no difference either.
func TestVerifyUnderDDL(t *testing.T) {
	r := newRig(t, 2, basics)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 6 {
			for _, q := range []string{`CREATE TABLE x%[1]d (id int PRIMARY KEY, v text)`, `ALTER TABLE x%[1]d ADD COLUMN w int DEFAULT 7`, `CREATE INDEX ON x%[1]d (w)`, `GRANT SELECT ON x%[1]d TO PUBLIC`} {
				r.ddl(r.client(), fmt.Sprintf(q, i))
			}
			if i%2 == 0 {
				r.ddl(r.client(), fmt.Sprintf(`DROP TABLE x%d`, i))
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		rep, err := r.set.Verify(r.ctx(), VerifyOptions{})
		var e *Error
		if errors.As(err, &e) && e.Op == "compare definitions" {
			continue // says so itself: try again when no DDL runs
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(rep.Differences) > 0 {
			t.Fatalf("under DDL: %v", said(rep))
		}
	}
	<-done
}

const rowsSchema = basics + `
CREATE TABLE bag (a int, b text);
CREATE TABLE "Two" (k text, n int, v text, w jsonb, PRIMARY KEY (n, k));
CREATE TABLE uni (id int NOT NULL UNIQUE, v bytea);
CREATE TABLE many (id int PRIMARY KEY, v int);
INSERT INTO acc (id, v, n, at, r) SELECT g, g, g, '2020-01-01', 0 FROM generate_series(1, 300) g;
INSERT INTO bag SELECT g % 10, 'row' FROM generate_series(1, 100) g;
INSERT INTO hist (a, t, u) SELECT 1, '2020-01-01', '00000000-0000-0000-0000-000000000000' FROM generate_series(1, 3000);
INSERT INTO "Two" SELECT 'k' || g, g, repeat('x', 200), '{}' FROM generate_series(1, 20) g;
INSERT INTO uni SELECT g, decode(repeat('00', 5000), 'hex') FROM generate_series(1, 5) g;
INSERT INTO many SELECT g, g FROM generate_series(1, 5000) g;
INSERT INTO part VALUES (1, 1, 'a'), (2, 15, 'b');
`

const tamperRows = tamper + `
UPDATE acc SET v = NULL WHERE id = 100; UPDATE acc SET v = -1, n = 9.50 WHERE id = 9; DELETE FROM acc WHERE id = 20; INSERT INTO acc VALUES (1000, 1, 1, '2020-01-01', 0);
DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = 3 LIMIT 2); INSERT INTO bag VALUES (4, 'row'), (77, NULL);
DELETE FROM hist WHERE ctid = (SELECT min(ctid::text)::tid FROM hist);
UPDATE "Two" SET v = overlay(v PLACING 'y' FROM 150), w = '{"a": 1}' WHERE n = 7;
UPDATE uni SET v = v || '\x01' WHERE id = 2;
UPDATE many SET v = v + 1;
UPDATE part2 SET v = '';
`

// Rows that differ are named, counted, and their columns told, however a table's
// rows are told apart.
func TestVerifyNamesRows(t *testing.T) {
	r := newRig(t, 2, rowsSchema)
	r.server(2).Exec(t, tamperRows)
	long := strings.Repeat("x", 19)
	want := []string{
		`2: table public."Two" has other contents: 1 row differs`,
		`   row (n, k) = (7,k7): v: …` + long + `xy` + strings.Repeat("x", 50) + `" instead of …` + long + strings.Repeat("x", 52) + `"; w: "{"a": 1}" instead of "{}"`,
		`2: table public.acc has other contents: 4 rows differ`,
		`   row (id) = (9): v: "-1" instead of "9"; n: "9.50" instead of "9"`,
		`   row (id) = (20): only on the leader: (20,20,20,"2020-01-01 00:00:00+00",0)`,
		`   row (id) = (100): v: none instead of "100"`,
		`   row (id) = (1000): only there: (1000,1,1,"2020-01-01 00:00:00+00",0)`,
		`2: table public.bag has other contents: 3 rows differ`,
	}
	for name, o := range map[string]VerifyOptions{"whole": {}, "in parts": {pages: 1, Jobs: 2}, "as of version 13": {pages: 1, major: 13}, "slowly": {Rate: 1e6}} {
		t.Run(name, func(t *testing.T) {
			got := said(r.verify(o))
			if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
				t.Error(diff)
			}
			for _, w := range []string{
				`   row: 8 there, 10 on the leader: (3,row)`, `   row: 11 there, 10 on the leader: (4,row)`, `   row: only there: (77,)`,
				`2: table public.hist has 2999 rows instead of 3000: 1 row differs`, `   row: 2999 there, 3000 on the leader: (1,"2020-01-01 00:00:00+00",00000000-0000-0000-0000-000000000000)`,
				`2: table public.many has other contents: at least 1000 rows differ`, `   row (id) = (1): v: "2" instead of "1"`, `   row (id) = (5): v: "6" instead of "5"`,
				`2: table public.part2 has other contents: 1 row differs`, `   row (id, r) = (2,15): v: "" instead of "b"`,
				`2: table public.uni has other contents: 1 row differs`,
			} {
				if !slices.Contains(got, w) {
					t.Errorf("not said: %s", w)
				}
			}
			if last := got[len(got)-1]; last != `   row (id) = (2): v: "\x`+strings.Repeat("0", 77)+"…, other after 4096 characters, instead of "+`"\x`+strings.Repeat("0", 77)+"…" {
				t.Errorf("a value that differs late: %s", last)
			}
			if t.Failed() {
				t.Logf("%s", strings.Join(got, "\n"))
			}
		})
	}
	rep := r.verify(VerifyOptions{Tables: []string{"part", `public."Two"`}})
	if rep.Tables != 3 || len(rep.Differences) != 2 {
		t.Errorf("a partitioned table and another: %+v", rep)
	}
	if _, err := r.set.Verify(r.ctx(), VerifyOptions{Tables: []string{"nosuch"}}); err == nil || !strings.Contains(err.Error(), "no table nosuch") {
		t.Errorf("a table that is not there: %v", err)
	}
}

// Columns that one side lacks do not hide what the others hold.
func TestVerifyOtherColumns(t *testing.T) {
	r := newRig(t, 2, basics)
	c := r.client()
	r.do(c, `INSERT INTO ser (x) VALUES ('a'), ('b')`)
	r.server(2).Exec(t, tamper+`ALTER TABLE ser ADD COLUMN more int DEFAULT 1; ALTER TABLE acc DROP COLUMN r; DROP TABLE hist`)
	want := []string{"2: table column public.acc.r is missing", "2: table public.hist is missing", "2: table column public.ser.more is not on the leader"}
	if diff := cmp.Diff(want, said(r.verify(VerifyOptions{}))); diff != "" {
		t.Error(diff)
	}
	r.server(2).Exec(t, tamper+`UPDATE ser SET x = 'c' WHERE id = 2`)
	want = append(want, "2: table public.ser has other contents: 1 row differs", `   row (id) = (2): x: "c" instead of "b"`)
	if diff := cmp.Diff(want, said(r.verify(VerifyOptions{}))); diff != "" {
		t.Error(diff)
	}
}

// What differs is told also of a member that leaves before it could be looked at once more, and
// that not all of it was compared.
func TestVerifyOfWhoLeaves(t *testing.T) {
	r := newRig(t, 3, basics)
	r.server(3).Exec(t, tamper+`ALTER TABLE ser ALTER COLUMN x SET NOT NULL`)
	major := r.major()
	var once sync.Once
	rep := r.verify(VerifyOptions{Progress: func(g Progress) {
		if g.Tables == 0 || g.TablesDone < g.Tables {
			return
		}
		once.Do(func() {
			if err := r.server(3).Kill(); err != nil {
				t.Error(err)
			}
			r.inSync(2)
		})
	}})
	want := []string{"3: table column public.ser.x is defined differently: not null: true instead of false; it left before that was looked at again"}
	if major >= 18 { // which has a name for it
		want = append(want, "3: table constraint ser_x_not_null on public.ser is not on the leader; it left before that was looked at again")
	}
	if diff := cmp.Diff(want, said(rep)); diff != "" || rep.Whole(3) || !rep.Whole(2) {
		t.Errorf("%s; left: %v", diff, rep.Left)
	}
}

// What was found equal is not read again, as long as its definition stays.
func TestVerifyResumes(t *testing.T) {
	r := newRig(t, 2, rowsSchema)
	known := map[string]Proven{}
	var mu sync.Mutex
	note := func(p Proven) {
		mu.Lock()
		defer mu.Unlock()
		known[p.Table] = p
	}
	r.server(2).Exec(t, tamper+`DELETE FROM bag WHERE a = 1`)
	all := r.verify(VerifyOptions{Proven: note})
	if len(known) != all.Tables-1 || known["public.many"].Rows != 5000 || known["public.bag"].Table != "" || all.Earlier != nil {
		t.Fatalf("found equal: %+v", known)
	}
	r.server(2).Exec(t, tamper+`UPDATE many SET v = 0; UPDATE uni SET v = NULL`)
	r.ddl(r.client(), `CREATE INDEX ON uni (v)`)
	rep := r.verify(VerifyOptions{Known: known, Proven: note})
	var objects []string
	for _, d := range rep.Differences {
		objects = append(objects, d.Object)
	}
	if diff := cmp.Diff([]string{"table public.bag", "table public.uni"}, objects); diff != "" {
		t.Errorf("%s", diff)
	}
	if e := rep.Earlier; e == nil || e.Tables != all.Tables-2 || e.First.IsZero() || rep.Tables != all.Tables || rep.Rows != all.Rows {
		t.Errorf("what an earlier run read: %+v of %+v", e, rep)
	}
}

// A run that is cut off leaves no query behind, and what it found equal is told.
func TestVerifyCancelled(t *testing.T) {
	r := newRig(t, 2, rowsSchema)
	ctx, cancel := context.WithCancel(r.ctx())
	defer cancel()
	var mu sync.Mutex
	proven := 0
	_, err := r.set.Verify(ctx, VerifyOptions{pages: 1, Rate: 3000, Jobs: 3, Proven: func(Proven) { mu.Lock(); proven++; mu.Unlock() }, Progress: func(p Progress) {
		if p.TablesDone > 5 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || proven < 5 {
		t.Fatalf("cancelled with %d tables found equal: %v", proven, err)
	}
	for _, s := range r.servers {
		var n int
		err := pgtest.Connect(t, s.DSN()).QueryRow(r.ctx(), `SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%hashtextextended%' AND pid <> pg_backend_pid()`).Scan(&n)
		if err != nil || n != 0 {
			t.Errorf("%s: %d connections still read: %v", s.Addr(), n, err)
		}
	}
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
}

func TestVerifyPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, began := &pace{rate: 100}, time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					if err := p.spend(t.Context(), 50); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("1000 rows at 100 a second took %v", took)
		}
	})
}

// What is rewritten between the snapshot and the reading of it shows nothing to
// the snapshot: it is compared at another one.
func TestVerifyWhatMoves(t *testing.T) {
	r := newRig(t, 2, rowsSchema)
	c := r.client()
	var mu sync.Mutex
	times := 0
	after := func(n int, sql ...string) VerifyOptions {
		times = 0
		return VerifyOptions{Progress: func(p Progress) {
			mu.Lock()
			defer mu.Unlock()
			if p.Rows == 0 || times > 0 && p.TablesDone == p.Tables-1 { // as each round begins
				if times++; times <= n {
					r.do(c, sql...)
				}
			}
		}}
	}
	// Shipped by the alignment itself, which must not keep its locks.
	if _, err := c.Exec(r.ctx(), `UPDATE many SET v = 0 WHERE id < 10`); err != nil {
		t.Fatal(err)
	}
	rep := r.verify(after(1, `TRUNCATE many`, `INSERT INTO many VALUES (1, 1)`))
	if len(rep.Differences) > 0 || times < 2 || rep.Tables != 14 || rep.Rows != 300+100+20+5+1+2+3000 {
		t.Errorf("after TRUNCATE, %d: %+v", times, rep)
	}
	done := false
	rep = r.verify(VerifyOptions{Progress: func(Progress) {
		mu.Lock()
		defer mu.Unlock()
		if !done {
			done = true
			r.ddl(c, `DROP TABLE uni`)
			r.ddl(c, `ALTER TABLE bag RENAME TO sack`)
			r.ddl(c, `ALTER TABLE many RENAME TO bag`)
		}
	}})
	if len(rep.Differences) > 0 {
		t.Errorf("after DROP and RENAME: %v", said(rep))
	}
	rep, err := r.set.Verify(r.ctx(), after(100, `TRUNCATE hist`))
	if err != nil || len(rep.Differences) > 0 || len(rep.Unread) != 1 || rep.Unread[0].Table != "public.hist" {
		t.Errorf("a table that is rewritten all the time: %+v, %v", rep, err)
	}
}

// A snapshot shows no definitions: of columns that change names with each other between two
// readings of parts of their table, some parts were read for one and some for the other, at each
// member others. The table is compared at another snapshot.
func TestVerifyWhatIsDefinedAnew(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE pair (id int PRIMARY KEY, a int, b int);
		INSERT INTO pair SELECT g, g, -g FROM generate_series(1, 40000) g;
		CREATE TABLE tree (id int, a int, b int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
		CREATE TABLE leaf PARTITION OF tree FOR VALUES FROM (0) TO (100000);
		INSERT INTO tree SELECT g, g, -g FROM generate_series(1, 40000) g`)
	c := r.client()
	for _, table := range []string{"pair", "tree"} {
		var mu sync.Mutex
		calls := 0
		rep := r.verify(VerifyOptions{pages: 1, Tables: []string{map[string]string{"pair": "pair", "tree": "leaf"}[table]}, Progress: func(p Progress) {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls == 30 {
				r.ddl(c, `DO $$ BEGIN ALTER TABLE `+table+` RENAME a TO x; ALTER TABLE `+table+` RENAME b TO a; ALTER TABLE `+table+` RENAME x TO b; END $$`)
			}
		}})
		if len(rep.Differences) > 0 || calls < 30 {
			t.Errorf("%s: after %d parts: %v", table, calls, said(rep))
		}
	}
}

// Who changes a table does not wait for its being compared: the reader is cancelled,
// or ended, and looks at the table again; unless it is the caller who cancelled.
func TestVerifyGivesWay(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, code := range []string{"57014", "57P01"} {
		err := fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code})
		if !isMoved(t.Context(), err) || isMoved(ended, err) {
			t.Errorf("%s: %v, and after the caller's end %v", code, isMoved(t.Context(), err), isMoved(ended, err))
		}
	}
}
