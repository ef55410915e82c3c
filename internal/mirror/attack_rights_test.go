package mirror

import (
	"context"
	"strings"
	"testing"
)

const thieves = `
CREATE ROLE thief LOGIN; GRANT CREATE ON SCHEMA public TO thief;
SET SESSION AUTHORIZATION thief;
CREATE FUNCTION steal() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  BEGIN PERFORM set_config('role', 'none', true); EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN PERFORM set_config('session_authorization', 'postgres', true); EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN PERFORM set_config('session_replication_role', 'origin', true); EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN ALTER ROLE thief SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN EXECUTE 'SELECT count(*) FROM pgdist.meta'; EXECUTE 'ALTER ROLE thief BYPASSRLS'; EXCEPTION WHEN OTHERS THEN NULL; END;
END $$;
CREATE FUNCTION idx(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.steal(); RETURN i; END $$;
CREATE FUNCTION chk(i int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.steal(); RETURN true; END $$;
CREATE DOMAIN dom AS int CHECK (chk(VALUE)); CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TYPE pair AS (x int, m mood);
CREATE TABLE th (k int PRIMARY KEY, v int CHECK (chk(v)), d dom, m mood, g int GENERATED ALWAYS AS (idx(k)) STORED); CREATE INDEX ON th (idx(v));
CREATE TABLE tl (k int, v int, d dom, m mood, p pair); CREATE INDEX ON tl (idx(v)) WHERE chk(k);
CREATE TABLE tm (m mood PRIMARY KEY, p pair); CREATE TABLE tp (p pair PRIMARY KEY, m mood);
CREATE TABLE tr (k int, v int) PARTITION BY RANGE (idx(k)); CREATE TABLE tr1 PARTITION OF tr FOR VALUES FROM (0) TO (9); CREATE TABLE tr2 PARTITION OF tr DEFAULT;
CREATE FUNCTION c1(th) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.steal(); RETURN 'stolen'; END $$; CREATE CAST (th AS text) WITH FUNCTION c1(th) AS IMPLICIT;
CREATE FUNCTION c2(tl) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.steal(); RETURN 'stolen'; END $$; CREATE CAST (tl AS text) WITH FUNCTION c2(tl) AS IMPLICIT;
CREATE FUNCTION c3(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.steal(); RETURN 'stolen'; END $$; CREATE CAST (mood AS text) WITH FUNCTION c3(mood) AS ASSIGNMENT;
CREATE FUNCTION c4(pair) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.steal(); RETURN 'stolen'; END $$; CREATE CAST (pair AS text) WITH FUNCTION c4(pair) AS ASSIGNMENT;
CREATE FUNCTION c5(pair) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM public.steal(); RETURN '{}'; END $$; CREATE CAST (pair AS json) WITH FUNCTION c5(pair);
RESET SESSION AUTHORIZATION;`

// What a table's owner can have run while rows are mirrored gains it nothing.
func TestAttackRights(t *testing.T) {
	a := trial{schema: thieves + `
CREATE ROLE plain LOGIN; CREATE SCHEMA mine AUTHORIZATION plain; SET SESSION AUTHORIZATION plain;
CREATE TABLE mine.t (k serial PRIMARY KEY, v text); CREATE TABLE mine.l (a int); CREATE TABLE mine.p (k int PRIMARY KEY) PARTITION BY RANGE (k); CREATE TABLE mine.p1 PARTITION OF mine.p DEFAULT;
CREATE TABLE mine.i (k int PRIMARY KEY); CREATE TABLE mine.j () INHERITS (mine.i);
CREATE TABLE mine.rls (k int PRIMARY KEY, who name DEFAULT current_user); ALTER TABLE mine.rls ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON mine.rls USING (who = current_user);
RESET SESSION AUTHORIZATION;
CREATE ROLE guest LOGIN; GRANT USAGE ON SCHEMA mine TO guest; GRANT ALL ON mine.rls TO guest;
CREATE TABLE lk (i int); CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1'; CREATE FUNCTION look(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN twice(i); END'; CREATE TABLE lkt (k int PRIMARY KEY, v int); CREATE INDEX ON lkt (look(v));
CREATE TABLE fa (k int PRIMARY KEY); CREATE TABLE fb (k int PRIMARY KEY REFERENCES fa); CREATE TABLE fc (k int REFERENCES fb)`}.on(t, ground(t, 2, nil))
	honest := func(a *arena) {
		a.everywhere("f|f", `SELECT concat_ws('|', rolsuper, rolbypassrls) FROM pg_roles WHERE rolname = 'thief'`)
	}
	a.steady("index, check, domain, generated, partition, casts", func(a *arena) {
		c := a.clientAs("thief")
		a.do(c, `INSERT INTO th (k, v, d, m) VALUES (1, 1, 1, 'a'), (2, 2, 2, 'b')`, `INSERT INTO tl VALUES (1, 1, 1, 'a', '(1,a)'), (1, 1, 1, 'a', '(1,a)')`, `INSERT INTO tm VALUES ('a', '(1,a)'), ('b', NULL)`,
			`INSERT INTO tp VALUES ('(1,a)', 'a'), ('(2,b)', 'b')`, `INSERT INTO tr VALUES (1, 1), (20, 2)`)
		honest(a)
		a.do(c, `UPDATE th SET v = v + 1, k = k + 10`, `UPDATE tl SET v = 2 WHERE ctid = '(0,1)'`, `UPDATE tm SET p = '(2,b)'`, `DELETE FROM tm WHERE m = 'b'`, `UPDATE tp SET p = ROW(9, (p).m)::pair`, `UPDATE tr SET k = 21 - k`)
		a.do(c, `DELETE FROM tl`, `TRUNCATE tr`)
		honest(a)
	})
	a.steady("copied whole", func(a *arena) {
		c := a.clientAs("thief")
		a.do(c, `INSERT INTO tl VALUES (1, 1, 1, 'a', '(1,a)')`)
		a.tx(c, `UPDATE th SET v = 4`, `ddl: ALTER TABLE th ADD r float8 DEFAULT random()`, `UPDATE tl SET k = 2`, `ddl: ALTER TABLE tl ADD r float8 DEFAULT random()`)
		honest(a)
	})
	a.steady("a role without any grant of pgdist's", func(a *arena) {
		c := a.clientAs("plain")
		a.do(c, `INSERT INTO mine.t (v) VALUES ('a'), ('b')`, `INSERT INTO mine.l VALUES (1), (1)`, `INSERT INTO mine.p VALUES (1)`, `INSERT INTO mine.i VALUES (1)`, `INSERT INTO mine.j VALUES (2)`)
		a.do(c, `UPDATE mine.t SET v = v || 'x'`, `DELETE FROM mine.l WHERE ctid = '(0,1)'`, `TRUNCATE mine.p`, `UPDATE mine.i SET k = k + 5`, `SELECT nextval('mine.t_k_seq')`)
		a.ddl(c, `CREATE TABLE mine.later (k int PRIMARY KEY)`)
		a.do(c, `INSERT INTO mine.later VALUES (1)`)
		for _, id := range a.set.View().InSync {
			open := a.query(id, `SELECT string_agg(what, ', ') FROM (
				SELECT p.oid::regprocedure::text AS what FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'pgdist' AND has_function_privilege('guest', p.oid, 'EXECUTE')
				UNION ALL SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'pgdist' AND c.relkind IN ('r', 'p', 'v') AND has_table_privilege('guest', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
				UNION ALL SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'pgdist' AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('guest', c.oid, 'SELECT, USAGE, UPDATE') END
				UNION ALL SELECT 'schema ' || r.rolname FROM pg_roles r WHERE NOT rolsuper AND rolname !~ '^pg_' AND has_schema_privilege(r.oid, 'pgdist', 'USAGE, CREATE')) x`)
			if open != "NULL" {
				a.t.Errorf("member %d: anybody may use %s", id, open)
			}
		}
	})
	a.steady("stranger at the fence", func(a *arena) {
		c := a.clientAs("guest")
		a.refused(c, "42501", "pgdist", `LOCK TABLE pgdist.boot IN ACCESS SHARE MODE`)
		a.refused(c, "42501", "pgdist", `SELECT * FROM pgdist.boot`)
		a.refused(c, "42501", "pgdist", `SELECT setval('pgdist.fence', 0)`)
		a.refused(c, "42501", "pgdist", `SELECT pgdist.promise(1000000, true, 100)`)
		a.refused(c, "42501", "session_replication_role", `SET session_replication_role = replica`)
		a.exec(c, `SELECT pg_advisory_lock(g) FROM generate_series(0, 500) g`)
		a.do(a.client(), `INSERT INTO fa VALUES (77)`)
	})
	a.steady("row level security", func(a *arena) {
		a.do(a.clientAs("plain"), `INSERT INTO mine.rls VALUES (1)`)
		a.do(a.clientAs("guest"), `INSERT INTO mine.rls VALUES (2)`, `UPDATE mine.rls SET k = k + 10`, `DELETE FROM mine.rls WHERE k = 1`)
		a.everywhere("1,12", `SELECT string_agg(k::text, ',' ORDER BY k) FROM mine.rls`)
	})
	a.steady("functions that look at search_path, truncate of referenced tables", func(a *arena) {
		c := a.client()
		a.do(c, `INSERT INTO lk VALUES (5)`, `INSERT INTO lkt VALUES (1, 1)`, `UPDATE lkt SET v = 2`)
		a.do(c, `INSERT INTO fa VALUES (1), (2)`, `INSERT INTO fb VALUES (1)`, `INSERT INTO fc VALUES (1), (1)`)
		a.do(c, `TRUNCATE fa CASCADE`, `INSERT INTO fa VALUES (3)`)
		a.do(c, `INSERT INTO fb VALUES (3)`, `INSERT INTO fc VALUES (3)`)
		a.do(c, `TRUNCATE fb, fc`)
		a.everywhere("1", `SELECT count(*)::text FROM fa`)
	})
	a.steady("DDL and triggers by hand", func(a *arena) {
		c := a.client()
		a.refused(c, "0A000", "not announced", `ALTER TABLE fa DISABLE TRIGGER pgdist_i`)
		a.refused(c, "0A000", "fa", `ddl: ALTER TABLE fa DISABLE TRIGGER pgdist_i`)
		a.refused(c, "0A000", "fa", `ddl: ALTER TABLE fa DISABLE TRIGGER ALL`)
		a.refused(c, "0A000", "fa", `ddl: ALTER TABLE fa DISABLE TRIGGER USER`)
		a.refused(c, "2BP01", "pgdist", `ddl: DROP TRIGGER pgdist_t ON fa`)
		a.refused(c, "2BP01", "pgdist", `ddl: DROP TABLE pgdist.boot CASCADE`)
		a.do(c, `DO $$ BEGIN CREATE TABLE hidden (i int); END $$`)
		a.refused(c, "0A000", "not announced", `ddl: CREATE TABLE seen1 (i int)`, `CREATE TABLE seen2 (i int)`)
		a.exec(c, `CREATE TEMP TABLE tmp (i int); INSERT INTO tmp VALUES (1); DROP TABLE tmp`)
	})
	a.steady("on a follower", func(a *arena) {
		c := a.clientOf(a.follower())
		writes := []string{`INSERT INTO fa VALUES (1)`, `UPDATE lk SET i = 1`, `DELETE FROM lk`, `TRUNCATE fa CASCADE`, `COPY fa FROM PROGRAM 'echo 9'`}
		if a.major() >= 15 {
			writes = append(writes, `MERGE INTO fa USING (VALUES (9)) v(k) ON fa.k = v.k WHEN NOT MATCHED THEN INSERT VALUES (v.k)`)
		}
		for _, q := range writes {
			a.refused(c, "25006", "follower", q)
			a.refused(c, "25006", "follower", `SET TRANSACTION READ ONLY`, `SET TRANSACTION READ WRITE`, q)
			a.refused(c, "25006", "follower", `SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`, q)
		}
		a.refused(c, "0A000", "not announced", `CREATE TABLE hand (i int)`)
		a.refused(c, "25006", "follower", `ddl: CREATE INDEX ON lk (i)`)
		a.refused(c, "25006", "follower", `ddl: DROP TABLE fc`)
		a.exec(c, `DELETE FROM fa WHERE false`, `CREATE TEMP TABLE tmp (i int); INSERT INTO tmp VALUES (1)`)
	})
}

// What cannot be mirrored is refused by name at init, and leaves no trace.
func TestAttackInitRefuses(t *testing.T) {
	a := trial{schema: `CREATE TABLE fine (k int PRIMARY KEY, v int)`}.bare(t, ground(t, 1, map[string]string{"wal_level": "logical"}))
	c := a.clientOf(1)
	const tf = `CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER ut BEFORE INSERT ON fine FOR EACH ROW EXECUTE FUNCTION tf(); `
	for _, x := range []struct{ make, undo, want string }{
		{`ALTER TABLE fine FORCE ROW LEVEL SECURITY`, `ALTER TABLE fine NO FORCE ROW LEVEL SECURITY`, "FORCE ROW LEVEL SECURITY"},
		{tf + `ALTER TABLE fine ENABLE ALWAYS TRIGGER ut`, `DROP FUNCTION tf CASCADE`, "ALWAYS"},
		{tf + `ALTER TABLE fine ENABLE REPLICA TRIGGER ut`, `DROP FUNCTION tf CASCADE`, "REPLICA"},
		{`CREATE RULE ur AS ON INSERT TO fine DO ALSO NOTHING; ALTER TABLE fine ENABLE ALWAYS RULE ur`, `DROP RULE ur ON fine`, "rule"},
		{`CREATE FUNCTION f(text) RETURNS fine LANGUAGE sql AS 'SELECT 1, 1'; CREATE CAST (text AS fine) WITH FUNCTION f(text)`, `DROP FUNCTION f CASCADE`, "cast"},
		{`CREATE TYPE mood AS ENUM ('a'); CREATE TABLE bad (m mood); CREATE FUNCTION f(text) RETURNS mood LANGUAGE sql AS $$ SELECT 'a'::mood $$; CREATE CAST (text AS mood) WITH FUNCTION f(text)`, `DROP TYPE mood CASCADE; DROP TABLE bad`, "cast"},
		{`CREATE TABLE bad (r regclass)`, `DROP TABLE bad`, "object numbers"},
		{`CREATE DOMAIN rd AS regprocedure; CREATE TABLE bad (r rd)`, `DROP TABLE bad; DROP DOMAIN rd`, "object numbers"},
		{`CREATE TABLE bad (x xml[])`, `DROP TABLE bad`, "xml[]"},
		{`CREATE TABLE bad AS SELECT indpred AS p FROM pg_index`, `DROP TABLE bad`, "pg_node_tree"},
		{`SELECT lo_create(4711)`, `SELECT lo_unlink(4711)`, "large object"},
		{`CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, enabled = false, slot_name = NONE)`, `DROP SUBSCRIPTION s`, "subscription"},
	} {
		a.exec(c, x.make)
		if _, err := Init(a.ctx(), a.cfg, InitOptions{}); err == nil || !strings.Contains(full(err)+err.Error(), x.want) {
			t.Errorf("%s: got %v, want a refusal about %s", short(x.make), full(err), x.want)
			if err == nil {
				if err := Uninstall(a.ctx(), a.cfg, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := a.query(1, `SELECT count(*)::text FROM pg_namespace WHERE nspname = 'pgdist'`); got != "0" {
			t.Errorf("%s: the refused init left schema pgdist behind", short(x.make))
		}
		a.exec(c, x.undo)
	}
	if _, err := Init(context.Background(), a.cfg, InitOptions{}); err != nil {
		t.Errorf("with all undone: %v", full(err))
	}
}
