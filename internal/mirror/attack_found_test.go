package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Holes that attacks found, since closed; one set each, so that one does not hide another.
func TestAttackFound(t *testing.T) {
	g := ground(t, 2, map[string]string{"wal_writer_delay": "10s", "max_prepared_transactions": "5"})
	for _, x := range []struct {
		name, schema string
		f            func(*arena)
	}{
		// A name closes the fixed $pgdist$ quotes of the generated functions and
		// goes on as the installing superuser.
		{"SEC column name", `CREATE ROLE thief1 LOGIN; GRANT CREATE ON SCHEMA public TO thief1`, func(a *arena) {
			c := a.clientAs("thief1")
			a.exec(c, `SET check_function_bodies = off`)
			err := a.try(c, `ddl: CREATE TABLE grab (k int PRIMARY KEY, "$pgdist$; ALTER ROLE thief1 SUPERUSER; SELECT $pgdist$" int)`)
			a.everywhere("f", `SELECT left(rolsuper::text, 1) FROM pg_roles WHERE rolname = 'thief1'`)
			if err != nil {
				a.t.Errorf("a name of any bytes is a name: %v", err)
			}
		}},
		// search_path is any text without blanks; replay() puts it into DDL as it is.
		{"SEC search_path", `CREATE ROLE thief2 LOGIN; GRANT CREATE ON SCHEMA public TO thief2`, func(a *arena) {
			c := a.clientAs("thief2")
			a.exec(c, `SELECT set_config('search_path', $q$public/**/as/**/'begin/**/end';alter/**/role/**/thief2/**/superuser;--$q$, false)`)
			a.tx(c, `ddl: CREATE TABLE public.grab (k int PRIMARY KEY)`)
			a.everywhere("f", `SELECT left(rolsuper::text, 1) FROM pg_roles WHERE rolname = 'thief2'`)
		}},
		{"apply turns synchronous_commit off", `CREATE ROLE lazy LOGIN;
			CREATE FUNCTION lazyf(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM set_config('synchronous_commit', 'off', true); RETURN i; END $$;
			CREATE TABLE lz (k int PRIMARY KEY, v int); CREATE INDEX ON lz (lazyf(v)); ALTER TABLE lz OWNER TO lazy`, func(a *arena) {
			a.do(a.client(), `INSERT INTO lz VALUES (1, 1)`)
			a.kill(2)
			a.start(2)
			if got := a.query(2, `SELECT count(*)::text FROM lz`); got != "1" {
				a.t.Errorf("the follower lost what it had acknowledged: %s rows", got)
			}
		}},
		// sync() looks at unfit() only where the table's form changed.
		{"unfit later", `CREATE ROLE own1; CREATE TABLE t1 (k int PRIMARY KEY, v int); CREATE TABLE t2 (LIKE t1 INCLUDING ALL);
			CREATE TABLE t4 (LIKE t1 INCLUDING ALL); ALTER TABLE t4 OWNER TO own1;
			CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v + 1; RETURN NEW; END';
			CREATE TRIGGER ut BEFORE INSERT ON t1 FOR EACH ROW EXECUTE FUNCTION tf(); CREATE TYPE mood AS ENUM ('a', 'b');
			CREATE TABLE t5 (m mood PRIMARY KEY); CREATE TABLE t6 (m mood[] PRIMARY KEY);
			CREATE FUNCTION f5(text) RETURNS mood LANGUAGE sql AS $$ SELECT 'a'::mood $$; CREATE FUNCTION f6(text) RETURNS mood[] LANGUAGE sql AS $$ SELECT '{a}'::mood[] $$;
			CREATE FUNCTION f7(text) RETURNS t2 LANGUAGE sql AS $$ SELECT 1, 1 $$; CREATE RULE ur AS ON INSERT TO t2 DO ALSO NOTHING`, func(a *arena) {
			c := a.client()
			a.refused(c, "0A000", "t1", `ddl: ALTER TABLE t1 ENABLE ALWAYS TRIGGER ut`)
			a.refused(c, "0A000", "t2", `ddl: ALTER TABLE t2 ENABLE REPLICA RULE ur`)
			a.refused(c, "0A000", "t2", `ddl: ALTER TABLE t2 FORCE ROW LEVEL SECURITY`)
			a.refused(c, "0A000", "t4", `ddl: REVOKE INSERT ON t4 FROM own1`)
			a.refused(c, "0A000", "t5", `ddl: CREATE CAST (text AS mood) WITH FUNCTION f5(text)`)
			a.refused(c, "0A000", "t6", `ddl: CREATE CAST (text AS mood[]) WITH FUNCTION f6(text)`)
			a.refused(c, "0A000", "t2", `ddl: CREATE CAST (text AS t2) WITH FUNCTION f7(text)`)
		}},
		// The batch read fails, so one leader after the other is deposed.
		{"an owner without rights stops the set", `CREATE ROLE own2; CREATE TABLE own (k int PRIMARY KEY); ALTER TABLE own OWNER TO own2`, func(a *arena) {
			c := a.client()
			if err := a.try(c, `ddl: REVOKE ALL ON own FROM own2`); err == nil {
				a.do(c, `INSERT INTO own VALUES (1)`)
			}
		}},
		{"renamed capture trigger", `CREATE TABLE kl (a int, b text)`, func(a *arena) {
			c := a.client()
			if err := a.try(c, `ddl: ALTER TRIGGER pgdist_i ON kl RENAME TO zz`); err == nil {
				a.t.Errorf("pgdist's trigger was renamed, and is there twice now")
			}
			a.do(c, `INSERT INTO kl VALUES (1, 'x')`)
		}},
		{"cast to an array type", `CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE marr (m mood[] PRIMARY KEY, v int);
			CREATE FUNCTION evil(text) RETURNS mood[] LANGUAGE sql AS $$ SELECT '{a}'::mood[] $$`, func(a *arena) {
			c := a.client()
			if err := a.try(c, `ddl: CREATE CAST (text AS mood[]) WITH FUNCTION evil(text)`); err != nil {
				return
			}
			a.do(c, `INSERT INTO marr VALUES ('{b}', 1)`)
		}},
		// '{…,"char"}'::regtype[] is char, that is bpchar.
		{"bpchar key", `CREATE TABLE eq (k bpchar PRIMARY KEY, v int)`, func(a *arena) {
			c := a.client()
			a.do(c, `INSERT INTO eq VALUES ('a', 1)`)
			a.do(c, `UPDATE eq SET k = 'a  '`)
		}},
		{"xml declaration", `CREATE TABLE xm (k int PRIMARY KEY, x xml); CREATE TABLE xk (x xml)`, func(a *arena) {
			const x = `<?xml version="1.0" encoding="UTF-8"?><a/>`
			a.do(a.client(), `INSERT INTO xm VALUES (1, '`+x+`')`, `INSERT INTO xk VALUES ('`+x+`'), ('<a/>')`)
			a.do(a.client(), `DELETE FROM xk WHERE x::text = '<a/>'`)
			a.everywhere(x, `SELECT x::text FROM xm`)
			a.everywhere(x, `SELECT string_agg(x::text, ',') FROM xk`)
		}},
		{"regtype without a key", `CREATE TYPE odd AS ENUM ('a'); CREATE TABLE rt (r regtype, n regnamespace)`, func(a *arena) {
			c := a.client()
			a.do(c, `INSERT INTO rt VALUES ('odd', 'public'), ('int4[]', 'pg_catalog')`)
			a.exec(c, `SET quote_all_identifiers = on`)
			a.do(c, `DELETE FROM rt`)
		}},
		{"table named excluded", `CREATE TABLE excluded (k int PRIMARY KEY, v int)`, func(a *arena) { a.do(a.client(), `INSERT INTO excluded VALUES (1, 1)`) }},
		{"column named found", `CREATE TABLE n1 (found int PRIMARY KEY, v int)`, func(a *arena) { a.do(a.client(), `INSERT INTO n1 VALUES (1, 1)`, `UPDATE n1 SET v = 2`) }},
		{"column named $1", `CREATE TABLE n2 ("$1" int PRIMARY KEY, "$2" int)`, func(a *arena) { a.do(a.client(), `INSERT INTO n2 VALUES (1, 1)`, `UPDATE n2 SET "$2" = 2`) }},
		{"columns named pgdist_…", `CREATE TABLE n3 (pgdist_rows int, pgdist_dels int, pgdist_n int, pgdist_keys int, v int, PRIMARY KEY (pgdist_rows, pgdist_n));
			CREATE TABLE n4 (pgdist_dels int, pgdist_rows int)`, func(a *arena) {
			c := a.client()
			a.do(c, `INSERT INTO n3 VALUES (1, 1, 1, 1, 1)`, `INSERT INTO n4 VALUES (1, 1)`)
			a.do(c, `UPDATE n3 SET v = 2`, `UPDATE n4 SET pgdist_rows = 3`, `DELETE FROM n3`)
		}},
		// The fall-back of empty() is a DELETE without ONLY.
		{"truncate only", `CREATE TABLE par (k int PRIMARY KEY, v int); CREATE TABLE chi (PRIMARY KEY (k)) INHERITS (par); CREATE TABLE ref (p int REFERENCES par)`, func(a *arena) {
			c := a.client()
			a.do(c, `INSERT INTO par VALUES (1, 1)`, `INSERT INTO chi VALUES (2, 2)`, `INSERT INTO ref VALUES (1)`)
			a.do(c, `TRUNCATE ONLY par, ref`)
		}},
		{"detach with rows", `CREATE TABLE root (k int, r int, v text, PRIMARY KEY (k, r)) PARTITION BY LIST (r);
			CREATE TABLE root1 PARTITION OF root FOR VALUES IN (1); CREATE TABLE root2 PARTITION OF root FOR VALUES IN (2)`, func(a *arena) {
			c := a.client()
			a.do(c, `INSERT INTO root VALUES (1, 1, 'old')`)
			a.tx(c, `UPDATE root SET v = 'new'`, `ddl: ALTER TABLE root DETACH PARTITION root1`)
		}},
		{"DDL that the transaction's rows made possible: foreign key", `CREATE TABLE fp (k int PRIMARY KEY); CREATE TABLE fc (k int)`, func(a *arena) {
			c := a.client()
			a.do(c, `INSERT INTO fc VALUES (1)`)
			a.tx(c, `INSERT INTO fp VALUES (1)`, `ddl: ALTER TABLE fc ADD FOREIGN KEY (k) REFERENCES fp`)
		}},
		{"DDL that the transaction's rows made possible: unique", `CREATE TABLE du (k int PRIMARY KEY, u int)`, func(a *arena) {
			c := a.client()
			a.do(c, `INSERT INTO du VALUES (1, 1), (2, 1)`)
			a.tx(c, `DELETE FROM du WHERE k = 2`, `ddl: ALTER TABLE du ADD UNIQUE (u)`)
		}},
		{"SELECT INTO", `CREATE TABLE s (k int PRIMARY KEY)`, func(a *arena) { a.ddl(a.client(), `SELECT k INTO selinto FROM s`) }},
		{"empty search_path", ``, func(a *arena) {
			c := a.client()
			a.exec(c, `SET search_path = ''`)
			a.ddl(c, `CREATE TABLE public.ep (i int)`)
		}},
		// r_N, x_N and contents() pin search_path; the planner inlines the index's function.
		{"index function that looks at search_path", `CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1'; CREATE FUNCTION look(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT twice($1)';
			CREATE TABLE lk (k int PRIMARY KEY, v int)`, func(a *arena) {
			if a.major() >= 17 { // maintenance knows no names but the catalog's
				a.refused(a.client(), "42883", "function twice(integer) does not exist", `ddl: CREATE INDEX ON lk (look(v))`)
				return
			}
			a.ddl(a.client(), `CREATE INDEX ON lk (look(v))`)
			a.do(a.client(), `INSERT INTO lk VALUES (1, 1)`)
		}},
		// A prepared transaction keeps its backend's virtual transaction since PostgreSQL 14, not -1/xid.
		{"prepared transaction holds the fence", `CREATE TABLE o (k int PRIMARY KEY)`, func(a *arena) {
			a.set.Close()
			c := a.clientOf(1)
			a.exec(c, `BEGIN`, `INSERT INTO o VALUES (50)`, `PREPARE TRANSACTION 'stuck'`)
			began := time.Now()
			_, err := a.clientOf(1).Exec(a.ctx(), `SELECT pgdist.promise(1000, true, 400)`)
			if sqlState(err) != codeFenced || !strings.Contains(full(err), "stuck") {
				a.t.Errorf("a hard promise with a prepared transaction open: %v", full(err))
			}
			if took := time.Since(began); took > ages/6 {
				a.t.Errorf("the promise took %v", took)
			}
			a.exec(c, `COMMIT PREPARED 'stuck'`)
			a.open()
		}},
		// The planner asks pg_terminate_backend() of every row of pg_stat_activity, before the join.
		{"unblock ends everybody", `CREATE TABLE b1 (k int PRIMARY KEY); CREATE TABLE b2 (k int PRIMARY KEY)`, func(a *arena) {
			bystander, c, x := a.client(), a.client(), a.client()
			a.exec(c, `INSERT INTO b1 VALUES (1)`)
			a.exec(x, `BEGIN`, `LOCK TABLE b1 IN ACCESS EXCLUSIVE MODE`)
			a.exec(c, `INSERT INTO b2 VALUES (1)`)
			a.ack()
			a.exec(bystander, `INSERT INTO b2 VALUES (2)`)
		}},
		// enum = enum is ambiguous then: the batch read fails, and leader after leader is deposed.
		{"implicit cast from a key's type", `CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE mk (m mood PRIMARY KEY); CREATE FUNCTION mt(mood) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'x' $$`, func(a *arena) {
			c := a.client()
			if err := a.try(c, `ddl: CREATE CAST (mood AS text) WITH FUNCTION mt(mood) AS IMPLICIT`); err != nil {
				return // refusing it by name will do
			}
			a.do(c, `INSERT INTO mk VALUES ('a')`)
		}},
		{"outcome behind the journal's floor", `CREATE TABLE p (k int PRIMARY KEY)`, func(a *arena) {
			c := a.client()
			at := a.attempt(c)
			a.do(c, `INSERT INTO p VALUES (1)`)
			for p := a.set.Acked(); a.query(1, `SELECT count(*)::text FROM pgdist.journal`) != "0"; {
				a.query(1, fmt.Sprintf(`SELECT pgdist.prune(%d, '%s', 0, '0', '0')`, p.Term, p.Snapshot))
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if committed, err := a.set.Resolve(ctx, at); !errors.Is(err, ErrOutcomeUnknown) && !committed {
				a.t.Errorf("a committed transaction: Resolve says committed %v, error %v", committed, err)
			}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			a := trial{schema: x.schema}.on(t, g)
			before := a.set.View()
			t.Cleanup(func() { // roles are the servers', not the arena's
				for _, s := range g {
					s.Exec(t, `DO $$ BEGIN EXECUTE (SELECT coalesce(string_agg('ALTER ROLE ' || rolname || ' NOSUPERUSER', ';'), '') FROM pg_roles WHERE rolname LIKE 'thief%'); END $$`)
				}
			})
			x.f(a)
			if err := a.set.Flush(a.ctx()); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(x.name, "apply turns") { // that one kills a server
				a.unchanged(before)
			}
			a.equal()
		})
	}
}

// Entries of a new leader have small ids: order is (term, id).
func TestAttackOrderAcrossTerms(t *testing.T) {
	g := ground(t, 3, nil)
	a := trial{schema: `CREATE TABLE kl (a int, b text)`}.on(t, g)
	c := a.client()
	for range 10 {
		a.do(c, `INSERT INTO kl VALUES (1, 'x')`)
	}
	a.kill(3)
	a.do(c, `INSERT INTO kl VALUES (2, 'y')`, `TRUNCATE kl`)
	v := a.set.View()
	if err := a.server(v.Leader).KillBackend(int(c.PgConn().PID())); err != nil {
		t.Fatal(err)
	}
	a.newTerm(v)
	a.do(a.client(), `INSERT INTO kl VALUES (3, 'z')`)
	a.start(3)
	a.same()
	a.everywhere("1", `SELECT count(*)::text FROM kl`)
}

// Table numbers are drawn from a sequence that only the first leader moved.
func TestAttackTableNumbers(t *testing.T) {
	g := ground(t, 3, nil)
	a := trial{schema: `CREATE TABLE one (k int PRIMARY KEY)`}.on(t, g)
	a.refused(a.clientOf(a.follower()), "25006", "follower", `ddl: CREATE TABLE hand (i int)`)
	old := a.killLeader()
	if err := a.try(a.client(), `ddl: CREATE TABLE two (k int PRIMARY KEY)`); err != nil {
		t.Error(full(err))
	}
	a.start(old)
	a.same()
}

// The tail's keys are of an older shape than the table: only a copy undoes them.
func TestAttackTailOfOlderShape(t *testing.T) {
	g := ground(t, 3, nil)
	a := trial{config: quiet, schema: `CREATE TABLE kt (a int PRIMARY KEY, b int NOT NULL)`}.on(t, g)
	c := a.client()
	a.do(c, `INSERT INTO kt VALUES (1, 1)`)
	a.exec(c, `INSERT INTO kt VALUES (5, 50)`)
	old := a.killLeader()
	a.ddl(a.client(), `ALTER TABLE kt DROP CONSTRAINT kt_pkey, ADD PRIMARY KEY (b)`)
	a.start(old)
	a.same()
}

// A catch-up's snapshot is older than DDL that does not rewrite, its functions
// are newer: it ships deletions for keys of another column.
func TestAttackCatchUpAcrossDDL(t *testing.T) {
	g := ground(t, 3, nil)
	a := trial{schema: `CREATE TABLE first (k int PRIMARY KEY, v int); CREATE TABLE second (k int PRIMARY KEY, v int NOT NULL)`,
		config: func(c *Config) { c.BlockedTimeout = time.Minute }}.on(t, g)
	c := a.client()
	a.do(c, `INSERT INTO first VALUES (1, 1)`, `INSERT INTO second VALUES (1, 101)`)
	a.kill(3)
	a.do(c, `UPDATE first SET v = 2`, `UPDATE second SET v = 102`)
	x := a.clientOf(a.set.View().Leader)
	a.exec(x, `BEGIN`, `LOCK TABLE first IN ACCESS EXCLUSIVE MODE`)
	a.start(3)
	a.until(a.set.View().Leader, mirrorWaits)
	const ddl = `ALTER TABLE second DROP CONSTRAINT second_pkey, ADD PRIMARY KEY (v)`
	a.exec(c, `BEGIN`, `LOCK TABLE second IN EXCLUSIVE MODE`) // as the engine does
	a.ack()
	a.announce(c, ddl)
	a.exec(c, ddl, `COMMIT`)
	a.ack()
	a.exec(x, `ROLLBACK`)
	a.same()
}

// A leader deposed while it answers promises hard and stays in the in-sync set,
// with what it alone has: its place (1, all) hides the tail from every flush.
func TestAttackTailInSync(t *testing.T) {
	g := ground(t, 3, nil)
	t.Run("after a crash of one backend", func(t *testing.T) {
		a := trial{config: quiet, schema: tailSchema}.on(t, g)
		c, victim := a.client(), a.client()
		v := a.set.View()
		a.exec(c, `INSERT INTO k VALUES (101, 'tail')`, `INSERT INTO kl VALUES (9, 'tail')`)
		if err := a.server(v.Leader).KillBackend(int(victim.PgConn().PID())); err != nil {
			t.Fatal(err)
		}
		a.newTerm(v)
		a.do(a.client(), `INSERT INTO kl VALUES (10, 'new')`)
		a.same()
	})
	t.Run("deposed", func(t *testing.T) {
		a := trial{config: quiet, schema: tailSchema}.on(t, g)
		a.exec(a.client(), `INSERT INTO k VALUES (101, 'tail')`, `INSERT INTO kl VALUES (9, 'tail')`)
		a.set.Close()
		// Its sentinel is gone, as after a crash that was over before anybody looked.
		a.exec(a.clientOf(1), `DELETE FROM pgdist.boot`)
		a.open()
		a.do(a.client(), `INSERT INTO kl VALUES (10, 'new')`)
		a.same()
	})
}

// Ranks compare xmax alone. Of two followers at 10:20:10 and 20:20: the first
// may be elected, and the second keeps what the first never had.
func TestAttackTieOfRanks(t *testing.T) {
	g := ground(t, 3, nil)
	a := trial{schema: `CREATE TABLE k (k int PRIMARY KEY); CREATE TABLE kl (a int)`, config: func(c *Config) {
		quiet(c)
		c.BlockedTimeout, c.Health.SyncTimeout = time.Minute, time.Minute
	}}.on(t, g)
	slow, c, x := a.client(), a.client(), a.clientOf(2)
	a.exec(slow, `BEGIN`, `INSERT INTO kl VALUES (1)`)
	a.do(c, `INSERT INTO k VALUES (1)`)
	a.exec(x, `BEGIN`, `LOCK TABLE kl IN ACCESS EXCLUSIVE MODE`)
	a.exec(slow, `COMMIT`)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go a.set.Ack(ctx, a.set.View().Term, Change{}) //nolint:errcheck // it cannot be acknowledged, and is not
	a.until(3, `SELECT count(*) = 1 FROM kl`)
	a.until(2, mirrorWaits)
	a.t.Logf("positions: %s, %s", a.query(2, `SELECT snap::text FROM pgdist.position`), a.query(3, `SELECT snap::text FROM pgdist.position`))
	v := a.set.View()
	old := v.Leader
	a.kill(old)
	_ = x.Close(a.ctx()) // the promise may have ended it
	a.newTerm(v)
	a.do(a.client(), `INSERT INTO k VALUES (2)`)
	a.start(old)
	a.same()
}
