//go:build versions

package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/failpoint"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// Tests of sets whose servers are of several major versions, which
// scripts/postgres-versions.sh fetches: make versions runs them.

// mixed starts a server of each major version and runs schema on it.
func mixed(t *testing.T, schema string, majors ...int) *rig {
	t.Helper()
	r := &rig{t: t}
	for _, major := range majors {
		s := pgtest.Start(t, pgtest.Options{Bin: serverOf(t, major)})
		if major >= 15 && slices.Min(majors) < 15 { // as initdb did before
			s.Exec(t, `ALTER SCHEMA public OWNER TO postgres; GRANT CREATE ON SCHEMA public TO PUBLIC`)
		}
		if schema != "" {
			s.Exec(t, schema)
		}
		conn, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		r.servers = append(r.servers, s)
		r.cfg.Members = append(r.cfg.Members, MemberConfig{Conn: conn})
	}
	r.cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	unhurried(&r.cfg)
	return r
}

func serverOf(t *testing.T, major int) string {
	t.Helper()
	bin, err := pgtest.BinDirOf(major)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// made makes a set of them, which the first leads.
func (r *rig) made() *rig {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := Init(ctx, r.cfg, InitOptions{Report: r.t.Logf}); err != nil {
		r.t.Fatal(err)
	}
	r.open()
	return r
}

// sameData compares rows, sequences and definitions as verify does, which knows of versions.
func (r *rig) sameData(unclear ...string) {
	r.t.Helper()
	rep, err := r.set.Verify(r.ctx(), VerifyOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(rep.Differences) > 0 || len(rep.Unread) > 0 {
		r.t.Errorf("different: %s, not read: %v", strings.Join(said(rep), "\n"), rep.Unread)
	}
	for _, d := range rep.Unclear {
		if !slices.ContainsFunc(unclear, func(s string) bool { return strings.Contains(d.Object, s) }) {
			r.t.Errorf("written differently: %s", d.What)
		}
	}
}

// pairs are the majors of leader and followers.
var pairs = [][]int{{13, 14}, {13, 18}, {14, 15, 16}, {15, 18}, {16, 17, 18}, {17, 18}}

// Sets of several versions are made, written to, changed and compared.
func TestMixedSets(t *testing.T) {
	for _, majors := range pairs {
		t.Run(fmt.Sprint(majors), func(t *testing.T) {
			r := mixed(t, strings.ReplaceAll(everyKind, "ALTER DATABASE postgres SET lock_timeout = '10s';", "")+`CREATE TABLE public.c (k int PRIMARY KEY, c "char")`, majors...).made()
			c := r.client()
			for _, sql := range mixedDDL {
				r.ddl(c, sql)
			}
			r.do(c, `INSERT INTO s.t (id, v, n, d) SELECT g, 'v' || g, g / 7.0, '2020-01-01'::date + g FROM generate_series(1, 500) g`, `INSERT INTO public.kinds (i, t, f, iv, a, j) VALUES (1, now(), 'NaN', '1 year 2 days', '{1,NULL}', '{"a": [1.0, "x"]}'), (2, '-infinity', '-0', '-1 mon', '{}', 'null')`,
				`UPDATE s.t SET n = n + 1 WHERE id % 3 = 0`, `DELETE FROM s.t WHERE id % 5 = 0`, `INSERT INTO public.bag VALUES (1, 'a'), (1, 'a')`, `DELETE FROM public.bag WHERE ctid = '(0,1)'`, `SELECT nextval('s.q')`, `INSERT INTO public.c VALUES (1, 'x')`,
				`CREATE ROLE carol; GRANT alice TO carol WITH ADMIN OPTION; ALTER ROLE bob NOINHERIT; GRANT carol TO bob; REVOKE alice FROM bob`)
			r.ddl(c, `GRANT SELECT ON s.t TO carol`)
			r.inSync(len(majors))
			r.sameData(deparsed(majors)...)
			r.do(c, `REVOKE alice FROM carol`, `DROP ROLE IF EXISTS nobody`)
			if err := r.set.Ack(r.ctx(), r.set.View().Term, Change{Schema: true}); err != nil {
				t.Fatal(err)
			}
			r.sameData(deparsed(majors)...)
			r.inSync(len(majors))
			// Reads go to the leader's version alone.
			for i, m := range majors {
				if got := r.set.Alike(health.MemberID(i + 1)); got != (m == majors[0]) {
					t.Errorf("PostgreSQL %d beside %d: alike %v", m, majors[0], got)
				}
			}
		})
	}
}

// mixedDDL is written as versions before and after deparse differently.
var mixedDDL = []string{
	`CREATE TABLE public.kinds (i int PRIMARY KEY, t timestamptz DEFAULT (now() AT TIME ZONE 'UTC'), f float8, iv interval, a int[], j jsonb, x text DEFAULT 'a' || 'b', g int GENERATED ALWAYS AS (i * 2) STORED, CHECK (i > 0 AND x <> ''))`,
	`CREATE TABLE public.bag (a int, b text)`,
	`CREATE VIEW public.one AS SELECT i, t, f + 1 AS f FROM public.kinds WHERE i > 1 ORDER BY t`,
	`CREATE VIEW public.two AS SELECT k.i, b.b, count(*) AS n FROM public.kinds k JOIN public.bag b ON b.a = k.i GROUP BY k.i, b.b HAVING count(*) > 1`,
	`CREATE VIEW public.syntax AS SELECT substring(b FROM 1 FOR 2) AS s, trim(b) AS t, position('a' IN b) AS p, overlay(b PLACING 'x' FROM 1) AS o FROM public.bag`,
	`CREATE VIEW public.zone AS SELECT t AT TIME ZONE 'UTC' AS z, t::date AS d FROM public.kinds`,
	`CREATE VIEW public.sub AS WITH w AS (SELECT a FROM public.bag) SELECT a, (SELECT max(i) FROM public.kinds WHERE i < w.a) FROM w WHERE a IN (1, 2, 3) UNION ALL SELECT 1, 2`,
	`CREATE MATERIALIZED VIEW public.mv AS SELECT a, sum(a) OVER (PARTITION BY b) FROM public.bag WITH NO DATA`,
	`CREATE INDEX kinds_e ON public.kinds (lower(x), (j ->> 'a')) WHERE i > 1`,
	`CREATE RULE r AS ON UPDATE TO public.bag WHERE NEW.a = 0 DO INSTEAD NOTHING`,
	`CREATE POLICY p ON public.kinds USING (i > 1 AND x = current_user)`,
	`CREATE FUNCTION public.d(a int, b text DEFAULT 'x'::text) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'`,
	`CREATE TRIGGER w BEFORE UPDATE ON s.t FOR EACH ROW WHEN (OLD.v IS DISTINCT FROM NEW.v) EXECUTE FUNCTION s.trg()`,
	`ALTER TABLE s.t ADD COLUMN u int DEFAULT 7 NOT NULL`,
	`ALTER TABLE public.bag ADD COLUMN c text DEFAULT 'c' COLLATE "C"`,
	`CREATE TABLE public.parted (k int, r timestamp, PRIMARY KEY (k, r)) PARTITION BY RANGE (r)`,
	`CREATE TABLE public.parted1 PARTITION OF public.parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')`,
	`CREATE TABLE public.refs (k int, r timestamp, FOREIGN KEY (k, r) REFERENCES public.parted)`,
	`CREATE EXTENSION hstore VERSION '1.7'`,
	`CREATE EXTENSION IF NOT EXISTS "pg_trgm" SCHEMA public -- of version 1.5 where PostgreSQL is of 13`,
	`CREATE EXTENSION btree_gist VERSION '1.5'; -- and 1.7, or 1.8`, `ALTER EXTENSION btree_gist UPDATE;`,
}

// deparsed are objects that are known to be written in ways that cannot be told to mean the same.
func deparsed(majors []int) []string {
	if majors[0] == 13 { // which has not kept the SQL syntax of functions yet
		return []string{"public.kinds.t", "view public.syntax", "view public.zone"}
	}
	return nil
}

// A function with another body differs, whatever versions its servers are of: that one of them
// might write it otherwise is no excuse.
func TestMixedBodies(t *testing.T) {
	r := mixed(t, `CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION g() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'`, 15, 18).made()
	r.server(2).Exec(t, tamper+`CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'`)
	rep, err := r.set.Verify(r.ctx(), VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"2: function public.f() is defined differently: body: SELECT 2 instead of SELECT 1"}; !slices.Equal(said(rep), want) || len(rep.Unclear) > 0 {
		t.Errorf("%q, unclear %+v", said(rep), rep.Unclear)
	}
}

// A server that no member could be copied to is refused before it is on the list.
func TestMixedAddRefuses(t *testing.T) {
	r := mixed(t, `CREATE TABLE w (id int PRIMARY KEY)`, 18).made()
	older := pgtest.Start(t, pgtest.Options{Bin: serverOf(t, 15)})
	conn, err := pgconn.ParseConfig(older.DSN())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Add(r.ctx(), r.cfg, AddOptions{Member: MemberConfig{Conn: conn}, Votes: -1, Report: t.Logf}); err == nil || !strings.Contains(err.Error(), "PostgreSQL 15 is older than what the members in sync have, 18") {
		t.Errorf("%v", err)
	}
	if v := r.set.View(); len(v.Members) != 1 {
		t.Errorf("it is on the list: %v", v.Members)
	}
	if v, err := Add(r.ctx(), r.cfg, AddOptions{Member: MemberConfig{Conn: conn}, Witness: true, Votes: -1, Report: t.Logf}); err != nil || len(v.Members) != 2 {
		t.Errorf("as a witness: %v, %v", v, err)
	}
}

// A newer version leads older ones for as long as an upgrade takes: rows go on, and what
// the older ones do not know costs the set these, with a word about it.
func TestNewerLeader(t *testing.T) {
	r := mixed(t, `CREATE TABLE t (k int PRIMARY KEY, iv interval, c "char"); CREATE ROLE alice; CREATE ROLE bob`, 14, 18, 14).made()
	if _, err := r.set.Switchover(r.ctx(), r.server(2).Addr(), ages); err != nil {
		t.Fatal(err)
	}
	c := r.client()
	r.do(c, `INSERT INTO t VALUES (1, '1 day', 'x')`, `GRANT alice TO bob`, `CREATE ROLE maker LOGIN CREATEROLE`)
	if err := r.set.Ack(r.ctx(), r.set.View().Term, Change{Schema: true}); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.sameData()
	lost := func(what, hint string, f func()) {
		t.Helper()
		f()
		for _, id := range []health.MemberID{1, 3} {
			said := func() bool {
				err := r.set.members.get(id).note.Load().Err
				return !r.set.View().Has(id) && err != nil && strings.Contains(err.Error(), what) && strings.Contains(err.Error(), hint)
			}
			for deadline := time.Now().Add(ages); !said(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("member %d: %+v at %v", id, r.set.members.get(id).note.Load(), r.set.View())
				}
			}
		}
		if v := r.set.View(); v.Leader != 2 || len(v.InSync) != 1 {
			t.Fatalf("%v", v)
		}
	}
	lost("infinity", "its PostgreSQL 14 is older than the leader's 18", func() { r.do(c, `INSERT INTO t VALUES (2, 'infinity', 'x')`) })
	r.do(c, `UPDATE t SET iv = '1 hour' WHERE k = 2`)
	r.inSync(3)
	r.sameData()
	lost("a form that PostgreSQL 14", "put a server of version 18", func() { r.do(c, `INSERT INTO t VALUES (3, NULL, '\303')`) })
	r.do(c, `DELETE FROM t WHERE k = 3`)
	r.inSync(3)
	r.sameData()
	lost("", "its PostgreSQL 14 is older", func() { r.ddl(c, `ALTER TABLE t ADD CONSTRAINT n CHECK (k > 0) NOT ENFORCED`) })
	// They come back by newer servers.
	for _, id := range []health.MemberID{1, 3} {
		r.replaceBy(id, serverOf(t, 18))
		if res, err := r.resync(r.ctx(), id, nil); err != nil || !res.InSync {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	r.inSync(3)
	r.same()
}

// A copy goes to the same version or a newer one, and brings the extensions in the
// versions that the source has.
func TestMixedResync(t *testing.T) {
	for _, x := range [][3]int{{13, 18, 18}, {15, 16, 17}, {14, 13, 18}} {
		from, over, to := x[0], max(x[1], x[0]), x[2]
		t.Run(fmt.Sprint(from, over, to), func(t *testing.T) {
			r := mixed(t, copied+`; CREATE EXTENSION hstore VERSION '1.6'; CREATE TABLE hs (k int PRIMARY KEY, h hstore); INSERT INTO hs VALUES (1, 'a=>1')`, from, from, from).made()
			stop := r.writers()
			r.replaceBy(3, serverOf(t, to))
			if res, err := r.resync(r.ctx(), 3, nil); err != nil || !res.InSync {
				t.Fatalf("%+v, %v", res, err)
			}
			t.Logf("%d writes meanwhile", stop())
			r.sameData()
			// An older one cannot take the place of the newer: its leader could.
			if _, err := r.set.Switchover(r.ctx(), r.server(3).Addr(), ages); err != nil {
				t.Fatal(err)
			}
			r.do(r.client(), `INSERT INTO hs VALUES (2, 'b=>2')`)
			r.sameData()
			r.replaceBy(2, serverOf(t, from))
			if _, err := r.resync(r.ctx(), 2, nil); err != nil { // from member 1, which is as old
				t.Fatal(err)
			}
			r.inSync(3)
			r.replaceBy(1, serverOf(t, to))
			if _, err := r.resync(r.ctx(), 1, nil); err != nil {
				t.Fatal(err)
			}
			r.replaceBy(2, serverOf(t, from))
			if _, err := r.resync(r.ctx(), 2, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("its PostgreSQL %d is older than %d", from, to)) {
				t.Fatalf("a copy to an older server: %v", err)
			}
			_ = over
		})
	}
}

// DDL on tables whose generated columns a copy to another version has compared, or is about to, is in nobody's way.
func TestMixedResyncBesideDDL(t *testing.T) {
	r := mixed(t, `CREATE TABLE compared (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO compared SELECT generate_series(1, 50);
		CREATE TABLE emptied (LIKE compared INCLUDING ALL); INSERT INTO emptied SELECT generate_series(1, 50); CREATE TABLE gone (LIKE emptied INCLUDING ALL)`, 15, 15, 15).made()
	c := r.client()
	failpoint.Watch(func(name string) {
		switch name {
		case "mirror: a copy has its indexes":
			r.do(c, `TRUNCATE emptied`, `INSERT INTO emptied VALUES (1)`)
			r.ddl(c, `DROP TABLE gone`)
		case "mirror: a copy is filled":
			r.ddl(c, `ALTER TABLE compared ADD COLUMN more int DEFAULT 5`)
			r.do(c, `UPDATE compared SET more = 6 WHERE id = 3`, `INSERT INTO emptied VALUES (2)`)
		}
	})
	defer failpoint.Watch(nil)
	r.replaceBy(3, serverOf(t, 18))
	if res, err := r.resync(r.ctx(), 3, nil); err != nil || !res.InSync {
		t.Fatalf("%+v, %v", res, err)
	}
	r.sameData()
}

// What PostgreSQL 18 brought is captured and applied.
func TestNewKinds(t *testing.T) {
	r := mixed(t, `CREATE EXTENSION btree_gist`, 18, 18).made()
	c := r.client()
	for _, sql := range []string{
		`CREATE TABLE virt (k int PRIMARY KEY, a int, v int GENERATED ALWAYS AS (a * 2), s int GENERATED ALWAYS AS (a * 3) STORED)`,
		`CREATE TABLE bag (a int, v int GENERATED ALWAYS AS (a * 2), b text)`,
		`CREATE TABLE temporal (id int, during daterange, note text, PRIMARY KEY (id, during WITHOUT OVERLAPS))`,
		`CREATE TABLE period (id int, during daterange, FOREIGN KEY (id, PERIOD during) REFERENCES temporal (id, PERIOD during))`,
		`CREATE TABLE maybe (u int UNIQUE, x text)`,
		`CREATE TABLE ids (id uuid PRIMARY KEY DEFAULT uuidv7(), n int)`,
	} {
		r.ddl(c, sql)
	}
	r.do(c, `INSERT INTO virt (k, a) SELECT g, g FROM generate_series(1, 100) g`, `UPDATE virt SET a = a + 1 WHERE k < 50`, `DELETE FROM virt WHERE v = 4`,
		`INSERT INTO bag (a, b) SELECT g % 5, 'x' FROM generate_series(1, 20) g`, `UPDATE bag SET b = 'y' WHERE v = 4`, `DELETE FROM bag WHERE ctid = '(0,1)'`,
		`INSERT INTO temporal VALUES (1, '[2020-01-01,2020-02-01)', 'a'), (1, '[2020-02-01,2020-03-01)', 'b'), (2, '[2020-01-01,2021-01-01)', 'c')`,
		`INSERT INTO period VALUES (1, '[2020-01-15,2020-02-15)')`,
		`UPDATE temporal SET note = note || '!', during = daterange(lower(during), upper(during) + CASE id WHEN 2 THEN 5 ELSE 0 END)`,
		`INSERT INTO ids (n) SELECT g FROM generate_series(1, 20) g`, `INSERT INTO maybe VALUES (NULL, 'n'), (1, 'o')`)
	r.ddl(c, `ALTER TABLE maybe ADD CONSTRAINT later NOT NULL u NOT VALID`)
	r.do(c, `UPDATE maybe SET x = x || '!' WHERE u = 1`, `DELETE FROM maybe WHERE x = 'n'`)
	r.same() // VALIDATE would fail on a row that is left there, and have the table copied
	r.ddl(c, `ALTER TABLE maybe VALIDATE CONSTRAINT later`)
	r.do(c, `INSERT INTO maybe VALUES (2, 'p')`, `UPDATE maybe SET x = 'q' WHERE u = 1`)
	r.ddl(c, `ALTER TABLE virt ALTER COLUMN v SET EXPRESSION AS (a + 7)`)
	r.ddl(c, `ALTER TABLE virt ALTER COLUMN s SET EXPRESSION AS (a + 9)`)
	r.do(c, `UPDATE virt SET a = 0 WHERE k = 7`, `MERGE INTO virt USING (SELECT 8 AS k) n ON virt.k = n.k WHEN MATCHED THEN UPDATE SET a = 1 RETURNING OLD.a, NEW.a`,
		`INSERT INTO virt (k, a) VALUES (9, 9) ON CONFLICT (k) DO UPDATE SET a = 4 RETURNING OLD.a, NEW.*`)
	r.inSync(2)
	r.same()
	r.replaceBy(2, serverOf(t, 18))
	if _, err := r.resync(r.ctx(), 2, nil); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	r.same()
}

// A set is not made of databases in which a trigger would meet every connection.
func TestMixedLoginTriggers(t *testing.T) {
	r := mixed(t, `CREATE FUNCTION hi() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER hi ON login EXECUTE FUNCTION hi()`, 17, 18)
	if _, err := Init(r.ctx(), r.cfg, InitOptions{}); err == nil || strings.Count(err.Error(), "event triggers on login") != 2 {
		t.Fatalf("init: %v", err)
	}
	for _, s := range r.servers {
		s.Exec(t, `DROP EVENT TRIGGER hi`)
	}
	// Made by a function, of which nothing tells but the state that comes with the next DDL.
	r.made()
	r.do(r.client(), `DO $$ BEGIN CREATE EVENT TRIGGER hi ON login EXECUTE FUNCTION hi(); END $$`)
	if err := r.set.Ack(r.ctx(), r.set.View().Term, Change{Schema: true}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(ages); ; time.Sleep(time.Millisecond) {
		if err := r.set.members.get(2).note.Load().Err; err != nil && strings.Contains(err.Error(), "event triggers on login") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", r.set.members.get(2).note.Load())
		}
	}
	r.do(r.client(), `DROP EVENT TRIGGER hi`)
	r.inSync(2)
	r.sameData()
}
