package driver

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// definitions are scripts of DDL, each a client's session. "fails CODE: " in front
// of a statement says how it ends, "since MAJOR: " that it fails on older servers; all
// else succeeds.
var definitions = map[string][]string{
	"roles": {
		`CREATE ROLE app LOGIN PASSWORD 'secret' VALID UNTIL '2030-01-01 00:00+02' CONNECTION LIMIT 7`,
		`CREATE ROLE "Odd ""role" NOINHERIT; CREATE ROLE grp; CREATE USER boss CREATEROLE CREATEDB`,
		`GRANT grp TO app WITH ADMIN OPTION; GRANT pg_read_all_stats TO "Odd ""role"; GRANT app TO boss`,
		`COMMENT ON ROLE app IS 'it''s ours'`,
		`ALTER ROLE app SET search_path = "$user", public, "Odd ""s"; ALTER ROLE app SET work_mem = '7MB'`,
		`ALTER ROLE app IN DATABASE postgres SET my.own = 'a=b, "c"'; ALTER ROLE "Odd ""role" SET search_path = ''`,
		`ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'; ALTER ROLE ALL SET my.every = 'x'`,
		`CREATE TABLE theirs (k int PRIMARY KEY); ALTER TABLE theirs OWNER TO app; GRANT SELECT ON theirs TO grp`,
		`CREATE TABLE "Their ""2" (k serial PRIMARY KEY, m int GENERATED ALWAYS AS IDENTITY); ALTER TABLE "Their ""2" OWNER TO app; CREATE SCHEMA ours AUTHORIZATION app`,
		`CREATE TYPE ours.t AS (a int); CREATE FUNCTION ours.f(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW ours.v AS SELECT 1; CREATE DOMAIN ours.d AS int; CREATE SEQUENCE ours.s`,
		`ALTER TYPE ours.t OWNER TO app; ALTER FUNCTION ours.f OWNER TO app; ALTER VIEW ours.v OWNER TO app; ALTER DOMAIN ours.d OWNER TO app; ALTER SEQUENCE ours.s OWNER TO app`,
		`ALTER ROLE app RENAME TO app2; ALTER ROLE "Odd ""role" RENAME TO app; ALTER ROLE app PASSWORD 'x' SUPERUSER`,
		`GRANT CREATE ON DATABASE postgres TO grp WITH GRANT OPTION; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC`,
		`COMMENT ON DATABASE postgres IS 'here'; ALTER DATABASE postgres CONNECTION LIMIT 90`,
		`ALTER DEFAULT PRIVILEGES FOR ROLE app2 GRANT SELECT ON TABLES TO grp`,
		`REVOKE grp FROM app2; ALTER ROLE app2 RESET work_mem; ALTER DATABASE postgres RESET timezone`,
		`REASSIGN OWNED BY app2 TO boss; DROP OWNED BY app2; DROP OWNED BY grp; DROP ROLE app2, grp`,
		`DO $$ BEGIN CREATE ROLE hidden LOGIN; GRANT app TO hidden; END $$`,
		`fails 0A000: ALTER DATABASE template1 SET work_mem = '1MB'`,
		`fails 0A000: ALTER ROLE app IN DATABASE template1 SET work_mem = '1MB'`,
		`fails 0A000: GRANT CONNECT ON DATABASE template1 TO app`,
		`ALTER TABLE theirs OWNER TO app`,
	},
	"a role that comes and goes with its tables": {
		`CREATE ROLE brief; CREATE TABLE briefly (k int); ALTER TABLE briefly OWNER TO brief; INSERT INTO briefly VALUES (1)`,
		`DROP OWNED BY brief; DROP ROLE brief`,
		`BEGIN; CREATE ROLE never; CREATE TABLE never (k int); ALTER TABLE never OWNER TO never; ROLLBACK`,
	},
	"within functions": {
		`DO $$ BEGIN CREATE TABLE hid (id serial PRIMARY KEY, t text DEFAULT clock_timestamp()::text); INSERT INTO hid DEFAULT VALUES; END $$`,
		`CREATE FUNCTION maker(n text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
			EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, "quoted ""col" text DEFAULT %L)', n, E'it''s "a"\nPL/x');
			EXECUTE format('CREATE INDEX ON %I ("quoted ""col")', n); EXECUTE format('INSERT INTO %I VALUES (1)', n);
			EXECUTE format('ALTER TABLE %I ADD COLUMN r float8 DEFAULT random()', n); RETURN 1; END $$`,
		`SELECT maker('made'), maker('Made "2"')`,
		`INSERT INTO made VALUES (2)`,
		`CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE step (i int); INSERT INTO step VALUES (1); COMMIT;
			ALTER TABLE step ADD j int; UPDATE step SET j = 5; ALTER TABLE step ALTER j SET NOT NULL; COMMIT; DROP TABLE IF EXISTS nothing; END $$`,
		`CALL steps()`,
		`CREATE FUNCTION as_owner() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = other AS $$ BEGIN CREATE TABLE placed (k int PRIMARY KEY); END $$`,
		`CREATE SCHEMA other; CREATE ROLE maker_role; GRANT ALL ON SCHEMA other TO maker_role; ALTER FUNCTION as_owner() OWNER TO maker_role`,
		`SELECT as_owner()`,
		`DO $$ DECLARE v int := 5; BEGIN CREATE TABLE computed AS SELECT v * g AS p, random() AS r FROM generate_series(1, v) g; END $$`,
		`DO $$ DECLARE t text; BEGIN FOR t IN SELECT 'part' || i FROM generate_series(1, 3) i LOOP EXECUTE 'CREATE TABLE ' || t || ' (LIKE made INCLUDING ALL)'; END LOOP; END $$`,
		`CREATE TEMP TABLE IF NOT EXISTS brief AS SELECT 1 AS a`, `CREATE TEMP TABLE IF NOT EXISTS brief AS SELECT 2 AS a`, `CREATE TEMP TABLE IF NOT EXISTS brief (a int)`,
		`DROP TABLE IF EXISTS pg_temp.nothing`, `DO $$ BEGIN DROP TABLE IF EXISTS pg_temp.nothing; END $$`,
		`DO $$ BEGIN DROP TABLE part1; CREATE TEMP TABLE mine (i int); DROP TABLE mine; ALTER TABLE part2 RENAME TO part1; END $$`,
		`CREATE FUNCTION in_sql() RETURNS void LANGUAGE sql AS $$ CREATE TABLE by_sql (i int) $$`,
		`fails 0A000: SELECT in_sql()`,
		`DO $$ BEGIN PERFORM maker('x'); RAISE 'undone'; EXCEPTION WHEN OTHERS THEN NULL; END $$`,
		`CREATE TABLE told (t text); CREATE FUNCTION teller() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE TABLE IF NOT EXISTS per_' || NEW.t || ' (i int)'; RETURN NEW; END $$`,
		`CREATE TRIGGER teller BEFORE INSERT ON told FOR EACH ROW EXECUTE FUNCTION teller(); INSERT INTO told VALUES ('a'), ('b'), ('a')`,
	},
	"generated by a function that is replaced": {
		`CREATE FUNCTION times(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1'`,
		`CREATE TABLE by_key (id int PRIMARY KEY, g int GENERATED ALWAYS AS (times(id)) STORED); INSERT INTO by_key SELECT generate_series(1, 10)`,
		`CREATE TABLE by_col (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (times(a)) STORED); INSERT INTO by_col SELECT g, g FROM generate_series(1, 10) g`,
		`CREATE TABLE loose (a int, b int, g int GENERATED ALWAYS AS (times(a)) STORED); INSERT INTO loose SELECT g % 3, g FROM generate_series(1, 10) g`,
		`CREATE OR REPLACE FUNCTION times(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3 * $1'`,
		`UPDATE by_key SET id = id`, `UPDATE by_col SET a = a`, `UPDATE loose SET a = a`,
	},
	"event triggers of the user": {
		`CREATE TABLE audit (tag text, at timestamptz DEFAULT clock_timestamp())`,
		`CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (tg_tag); END $$`,
		`CREATE FUNCTION guarded() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN
			FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP EXECUTE 'ALTER TABLE ' || r.object_identity || ' ENABLE ROW LEVEL SECURITY'; END LOOP; END $$`,
		`CREATE EVENT TRIGGER a_first ON ddl_command_end EXECUTE FUNCTION noted()`,
		`CREATE EVENT TRIGGER b_second ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION guarded(); COMMENT ON EVENT TRIGGER b_second IS 'rls'`,
		`CREATE TABLE watched (k int PRIMARY KEY)`, `ALTER EVENT TRIGGER a_first DISABLE`, `ALTER EVENT TRIGGER a_first RENAME TO z_first`, `CREATE TABLE watched2 (k int)`,
		`DROP EVENT TRIGGER z_first`, `DROP EVENT TRIGGER b_second; DROP FUNCTION guarded()`,
	},
	"concurrently": {
		`CREATE TABLE big (k int PRIMARY KEY, a int, b text); INSERT INTO big SELECT g, g % 7, g::text FROM generate_series(1, 1000) g`,
		`CREATE INDEX CONCURRENTLY ON big (a)`, `CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "odd ""i" ON big (b) WHERE a > 2`,
		`CREATE INDEX CONCURRENTLY IF NOT EXISTS "odd ""i" ON big (b)`, `fails 23505: CREATE UNIQUE INDEX CONCURRENTLY bad ON big (a)`,
		`CREATE COLLATION worded (provider = icu, locale = 'de')`, `ALTER COLLATION worded REFRESH VERSION`, `BEGIN`, `ALTER COLLATION public.worded REFRESH VERSION`, `COMMIT`,
		`REINDEX TABLE CONCURRENTLY big`, `REINDEX INDEX CONCURRENTLY big_a_idx`, `DROP INDEX CONCURRENTLY big_a_idx`, `DROP INDEX CONCURRENTLY IF EXISTS nothing`,
		`BEGIN`, `fails 25001: CREATE INDEX CONCURRENTLY ON big (a)`, `ROLLBACK`,
		`CREATE TABLE root (k int PRIMARY KEY, v text) PARTITION BY RANGE (k); CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10); INSERT INTO root VALUES (1, 'a')`,
		`fails 0A000: ALTER TABLE root DETACH PARTITION leaf CONCURRENTLY`, `ALTER TABLE root DETACH PARTITION leaf`, `UPDATE leaf SET v = 'b'`, `VACUUM (ANALYZE) big`, `CLUSTER big USING big_pkey`,
	},
	"labels of an enum that was there before": {
		`ALTER TYPE early ADD VALUE 'c'`, `ALTER TYPE early ADD VALUE 'b' BEFORE 'c'`, `CREATE TABLE earlies (e early); INSERT INTO earlies VALUES ('b'), ('c')`,
		`BEGIN; ALTER TYPE early RENAME VALUE 'a' TO 'z'; ALTER TYPE early ADD VALUE 'd' AFTER 'z'; COMMIT`, `INSERT INTO earlies VALUES ('d'), ('z')`,
		`ALTER TYPE early RENAME VALUE 'b' TO 'y'`, `ALTER TYPE early ADD VALUE 'b'`, `INSERT INTO earlies VALUES ('y'), ('b')`,
	},
	"rules": {
		`CREATE TABLE ruled (k int PRIMARY KEY, v text); INSERT INTO ruled VALUES (1, 'a'), (2, 'b'); CREATE TABLE noted (t text)`, `UPDATE ruled SET v = 'c' WHERE k = 1`,
		`CREATE RULE u AS ON UPDATE TO ruled DO ALSO INSERT INTO noted VALUES (NEW.v)`, `UPDATE ruled SET v = 'd'`, `INSERT INTO ruled VALUES (3, 'e')`,
		`CREATE RULE i AS ON INSERT TO ruled DO ALSO INSERT INTO noted VALUES (NEW.v)`, `INSERT INTO ruled VALUES (4, 'f')`, `DROP RULE u ON ruled; DROP RULE i ON ruled`, `UPDATE ruled SET v = 'g'`,
	},
	"enums": {
		`CREATE TYPE mood AS ENUM ('b'); CREATE TABLE moods (k serial PRIMARY KEY, m mood, l mood[])`,
		`ALTER TYPE mood ADD VALUE 'd'`, `INSERT INTO moods (m) VALUES ('d')`,
		`ALTER TYPE mood ADD VALUE IF NOT EXISTS 'c' BEFORE 'd'`, `ALTER TYPE mood ADD VALUE 'a''s' BEFORE 'b'`, `INSERT INTO moods (m, l) VALUES ('a''s', '{b,c}')`,
		`ALTER TYPE mood RENAME VALUE 'b' TO 'ADD VALUE'`, `UPDATE moods SET m = 'c'`, `ALTER TYPE mood RENAME TO humour; ALTER TYPE humour ADD VALUE 'e' AFTER 'c'`,
		`BEGIN`, `CREATE TYPE fresh AS ENUM ('x'); ALTER TYPE fresh ADD VALUE 'y'`, `CREATE TABLE freshes (f fresh)`, `INSERT INTO freshes VALUES ('x')`, `COMMIT`, `INSERT INTO freshes VALUES ('y')`,
		`ALTER TABLE moods ALTER m TYPE text USING m::text || random()::text`,
	},
	"constraints that old rows need not meet": {
		`CREATE TABLE odd (k int PRIMARY KEY, v int, w int); CREATE TABLE ref (k int PRIMARY KEY); INSERT INTO odd VALUES (1, 5, 5)`,
		`BEGIN; INSERT INTO odd VALUES (2, 5000, 1); ALTER TABLE odd ADD CONSTRAINT small CHECK (v < 1000) NOT VALID; COMMENT ON CONSTRAINT small ON odd IS 'c'; COMMIT`,
		`INSERT INTO odd VALUES (3, 7, 1)`, `fails 23514: INSERT INTO odd VALUES (4, 7000, 1)`, `ALTER TABLE odd ADD COLUMN r float8 DEFAULT random()`,
		`ALTER TABLE odd ADD FOREIGN KEY (w) REFERENCES ref NOT VALID`, `DELETE FROM odd WHERE k = 3`, `UPDATE odd SET v = 1, w = NULL WHERE k = 2`, `ALTER TABLE odd VALIDATE CONSTRAINT small`,
	},
	"materialized views": {
		`CREATE SCHEMA "Odd ""s"; CREATE TABLE b (k int PRIMARY KEY, v text COLLATE "C", n numeric(8,2)); INSERT INTO b SELECT g, 'x' || g, g FROM generate_series(1, 20) g`,
		`CREATE MATERIALIZED VIEW m AS SELECT *, random() AS r FROM b`, `CREATE MATERIALIZED VIEW IF NOT EXISTS m AS SELECT 1`,
		`CREATE MATERIALIZED VIEW "Odd ""s"."M ""2" ("a ""b", c) WITH (fillfactor = 70, toast.autovacuum_enabled = off) AS SELECT DISTINCT k, v || 'it''s' FROM m WHERE v LIKE '%1%' ORDER BY 2 DESC WITH NO DATA`,
		`CREATE UNIQUE INDEX ON m (k)`, `CREATE INDEX CONCURRENTLY m_v ON m (lower(v) text_pattern_ops) WHERE n > 3`, `REFRESH MATERIALIZED VIEW CONCURRENTLY m`, `CLUSTER m USING m_k_idx`, `VACUUM ANALYZE m`,
		`fails 55000: SELECT * FROM "Odd ""s"."M ""2"`, `fails 0A000: REFRESH MATERIALIZED VIEW CONCURRENTLY "Odd ""s"."M ""2"`, `REFRESH MATERIALIZED VIEW "Odd ""s"."M ""2"`,
		`CREATE VIEW over AS SELECT "a ""b" FROM "Odd ""s"."M ""2"`, `CREATE MATERIALIZED VIEW third AS SELECT count(*) FROM over`, `CREATE TABLE taken AS SELECT * FROM m`, `INSERT INTO taken SELECT * FROM m`,
		`CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.b VALUES ((SELECT max(k) + 1 FROM public.b), random()::text); RETURN 1; END $$`,
		`CREATE MATERIALIZED VIEW writing AS SELECT writes()`, `REFRESH MATERIALIZED VIEW writing`, `SELECT * FROM writing`,
		`DO $$ BEGIN CREATE MATERIALIZED VIEW inside AS SELECT random() FROM b; CREATE INDEX ON inside (random); REFRESH MATERIALIZED VIEW inside; REFRESH MATERIALIZED VIEW CONCURRENTLY m; END $$`,
		`CREATE FUNCTION again() RETURNS void LANGUAGE sql AS 'REFRESH MATERIALIZED VIEW inside'`, `SELECT again()`,
		`BEGIN; CREATE MATERIALIZED VIEW undone AS SELECT 1; REFRESH MATERIALIZED VIEW third WITH NO DATA; ROLLBACK`, `BEGIN; REFRESH MATERIALIZED VIEW third WITH NO DATA; SAVEPOINT a; REFRESH MATERIALIZED VIEW third; ROLLBACK TO a; COMMIT`,
		`fails 22012: CREATE MATERIALIZED VIEW bad AS SELECT 1 / 0`, `fails 23505: CREATE UNIQUE INDEX ON m ((k % 2))`, `fails 42809: ALTER TABLE m ADD COLUMN z int`,
		`ALTER MATERIALIZED VIEW third RENAME TO fourth; ALTER MATERIALIZED VIEW fourth SET SCHEMA "Odd ""s"; ALTER MATERIALIZED VIEW m ALTER v SET STATISTICS 5; ALTER MATERIALIZED VIEW m SET (fillfactor = 50); ALTER MATERIALIZED VIEW m RENAME r TO rr`,
		`CREATE ROLE owns; GRANT ALL ON b, m TO owns; ALTER MATERIALIZED VIEW inside OWNER TO owns; COMMENT ON MATERIALIZED VIEW m IS 'm'; COMMENT ON COLUMN m.rr IS 'r'; GRANT SELECT ON m TO PUBLIC; CREATE STATISTICS ms ON k, v FROM m`,
		`CREATE ROLE heir; REASSIGN OWNED BY owns TO heir; DROP MATERIALIZED VIEW writing`, `REFRESH MATERIALIZED VIEW m`, `ALTER TABLE b ADD COLUMN later int DEFAULT 5; ALTER TABLE b RENAME v TO w`, `REFRESH MATERIALIZED VIEW m`,
		`fails 2BP01: DROP MATERIALIZED VIEW "Odd ""s"."M ""2"`, `DROP MATERIALIZED VIEW "Odd ""s"."M ""2" CASCADE`, `SELECT sum(rr) FROM m`,
	},
	"out of trees and into them": {
		`CREATE TABLE tree (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k); CREATE TABLE one PARTITION OF tree FOR VALUES FROM (0) TO (10); CREATE TABLE two PARTITION OF tree FOR VALUES FROM (10) TO (20)`,
		`INSERT INTO tree SELECT g, 'a' FROM generate_series(1, 15) g`, `ALTER TABLE tree DETACH PARTITION two`, `UPDATE two SET v = 'b' WHERE k = 12`,
		`CREATE TABLE three (k int PRIMARY KEY, v text); INSERT INTO three VALUES (30, 'c')`, `ALTER TABLE tree ATTACH PARTITION three FOR VALUES FROM (30) TO (40)`, `INSERT INTO tree VALUES (31, 'd')`,
		`CREATE TABLE kl (k int, v text) PARTITION BY LIST (k); CREATE TABLE kl1 PARTITION OF kl FOR VALUES IN (1); CREATE TABLE kl2 PARTITION OF kl FOR VALUES IN (2); INSERT INTO kl VALUES (1, 'a'), (2, 'b'), (2, 'c')`,
		`ALTER TABLE kl DETACH PARTITION kl2`, `UPDATE kl2 SET v = 'd' WHERE v = 'b'`, `CREATE TABLE kl3 (k int, v text); INSERT INTO kl3 VALUES (3, 'x'), (3, 'x')`, `ALTER TABLE kl ATTACH PARTITION kl3 FOR VALUES IN (3)`, `DELETE FROM kl WHERE ctid = '(0,1)'`,
		`CREATE TABLE sub PARTITION OF tree FOR VALUES FROM (50) TO (60) PARTITION BY RANGE (k); CREATE TABLE subsub PARTITION OF sub DEFAULT; INSERT INTO tree VALUES (55, 's')`, `ALTER TABLE tree DETACH PARTITION sub`, `ALTER TABLE sub DETACH PARTITION subsub`, `INSERT INTO subsub VALUES (56, 't')`,
	},
	"large objects and foreign tables": {
		`fails 0A000: SELECT lo_create(0)`, `fails 0A000: SELECT lo_from_bytea(0, 'x')`, `fails 0A000: SELECT lowrite(1, 'x')`, `fails 0A000: SELECT lo_import('/etc/hosts')`, `fails 0A000: SELECT lo_unlink(1)`,
		`fails 0A000: DO $$ BEGIN PERFORM lo_create(0); END $$`, `fails 0A000: CREATE FUNCTION makes() RETURNS oid LANGUAGE plpgsql AS $$ BEGIN RETURN pg_catalog.lo_create(0); END $$`,
		`fails 0A000: CREATE FUNCTION makes() RETURNS oid LANGUAGE sql AS 'SELECT lo_from_bytea(0, ''x'')'`, `fails 0A000: CREATE PROCEDURE makes() LANGUAGE sql BEGIN ATOMIC SELECT lo_put(1, 0, 'x'); END`,
		`CREATE FUNCTION loose() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `fails 0A000: CREATE OR REPLACE FUNCTION loose() RETURNS int LANGUAGE sql AS 'SELECT lo_unlink(1)'`,
		`fails 0A000: CREATE TABLE lo_t (k int PRIMARY KEY, o oid DEFAULT lo_create(0))`, `fails 0A000: COMMENT ON LARGE OBJECT 1 IS 'x'`, `fails 0A000: GRANT SELECT ON LARGE OBJECT 1 TO PUBLIC`, `fails 0A000: ALTER LARGE OBJECT 1 OWNER TO postgres`,
		`fails 0A000: INSERT INTO pg_largeobject VALUES (1, 0, 'x')`, `fails 0A000: COPY pg_largeobject_metadata FROM '/dev/null'`,
		`CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing; CREATE FOREIGN TABLE far (a int) SERVER nowhere`, `fails 55000: INSERT INTO far VALUES (1)`, `fails 55000: SELECT * FROM far`,
		`CREATE TABLE tree (k int PRIMARY KEY) PARTITION BY RANGE (k)`, `fails 42809: CREATE FOREIGN TABLE leaf PARTITION OF tree DEFAULT SERVER nowhere`, `CREATE TABLE free (k int) PARTITION BY RANGE (k)`, `fails 0A000: CREATE FOREIGN TABLE leaf PARTITION OF free DEFAULT SERVER nowhere`,
	},
	"unlogged": {
		`CREATE UNLOGGED TABLE u (k serial PRIMARY KEY, v text DEFAULT random(), i int GENERATED ALWAYS AS IDENTITY); INSERT INTO u (v) VALUES ('a'), (DEFAULT)`,
		`CREATE UNLOGGED TABLE kl (a int, t timestamptz DEFAULT clock_timestamp()); INSERT INTO kl SELECT g % 3 FROM generate_series(1, 9) g; DELETE FROM kl WHERE a = 1`,
		`CREATE UNLOGGED TABLE made AS SELECT random() AS r FROM u`, `SELECT 1 AS a INTO UNLOGGED into_u`, `DO $$ BEGIN CREATE UNLOGGED TABLE within AS SELECT random() AS r; INSERT INTO within VALUES (1); END $$`,
		`BEGIN; UPDATE u SET v = 'before'; ALTER TABLE u SET LOGGED; INSERT INTO u (v) VALUES ('after'); ALTER TABLE u SET UNLOGGED; DELETE FROM u WHERE k = 1; COMMIT`,
		`ALTER TABLE u ADD COLUMN r float8 DEFAULT random()`, `ALTER TABLE kl SET LOGGED, ADD COLUMN c text DEFAULT clock_timestamp()::text`, `ALTER TABLE before SET UNLOGGED`, `INSERT INTO before VALUES (1)`,
		`fails 42P16: CREATE TABLE lrefs (k int REFERENCES u)`, `CREATE UNLOGGED TABLE urefs (k int REFERENCES u ON DELETE CASCADE); INSERT INTO urefs VALUES (2)`, `DELETE FROM u WHERE k = 2`,
		`CREATE TABLE tree (k int, v text) PARTITION BY LIST (k); CREATE UNLOGGED TABLE one PARTITION OF tree FOR VALUES IN (1); CREATE TABLE two PARTITION OF tree FOR VALUES IN (2); INSERT INTO tree VALUES (1, 'a'), (2, 'b')`,
		`UPDATE tree SET k = 3 - k; ALTER TABLE one SET LOGGED; ALTER TABLE two SET UNLOGGED`, `ALTER TABLE tree DETACH PARTITION two; UPDATE two SET v = 'c'`, `TRUNCATE u CASCADE; INSERT INTO u (v) VALUES ('t')`,
		`since 15: CREATE UNLOGGED SEQUENCE us START 5; SELECT nextval('us')`, `since 15: SELECT nextval('us')`, `since 15: ALTER SEQUENCE us SET LOGGED; ALTER SEQUENCE us SET UNLOGGED`, `since 15: SELECT setval('us', 70)`,
		`CREATE UNLOGGED TABLE par (k int); CREATE UNLOGGED TABLE child (x text) INHERITS (par); INSERT INTO child VALUES (1, 'x'); UPDATE par SET k = 2`, `CREATE INDEX ON u (v)`, `CREATE INDEX CONCURRENTLY ON kl (a)`, `CLUSTER u USING u_pkey`,
	},
	"all kinds": {
		`CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE TABLE ext (k citext PRIMARY KEY, h hstore); INSERT INTO ext VALUES ('A', 'a=>1')`,
		`UPDATE ext SET k = 'a'`, `CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a positive, b text)`,
		`CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`, `CREATE TABLE cis (t text COLLATE ci PRIMARY KEY, p pair)`,
		`INSERT INTO cis VALUES ('Ab', (1, 'x'))`, `UPDATE cis SET t = 'aB'`,
		`CREATE PUBLICATION pub FOR TABLE ext`, `CREATE STATISTICS st ON k, h FROM ext`, `COMMENT ON TABLE ext IS 'commented'; COMMENT ON COLUMN ext.h IS 'h'`,
		`ALTER TABLE ext ENABLE ROW LEVEL SECURITY; CREATE POLICY pol ON ext USING (k <> 'z') WITH CHECK (true)`, `CREATE RULE r AS ON DELETE TO ext DO ALSO UPDATE cis SET p = NULL`,
		`DELETE FROM ext`, `CREATE AGGREGATE agg (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')`, `CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)`,
		`CREATE CAST (pair AS text) WITH INOUT`, `CREATE TEXT SEARCH CONFIGURATION tsc (COPY = english)`, `CREATE FOREIGN DATA WRAPPER fdw; CREATE SERVER srv FOREIGN DATA WRAPPER fdw; CREATE FOREIGN TABLE ft (a int) SERVER srv`,
		`CREATE TABLE copied AS SELECT g AS k, random() AS r, ('x' || g)::citext AS c, 'a'::text COLLATE ci AS t FROM generate_series(1, 5) g`, `SELECT * INTO into_it FROM copied WHERE k > 2`,
		`CREATE TABLE IF NOT EXISTS copied AS SELECT 1 AS k`, `CREATE TABLE opts WITH (fillfactor = 70) AS SELECT 1 AS a`, `CREATE TABLE none AS SELECT`, `INSERT INTO copied SELECT * FROM copied`,
	},
}

type defined struct {
	*testing.T
	db *sql.DB
}

// session runs a script over one connection.
func (d defined) session(script []string) {
	d.Helper()
	ctx := context.Background()
	c, err := d.db.Conn(ctx)
	if err != nil {
		d.Fatal(err)
	}
	defer c.Close()
	major := 0
	if err := c.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&major); err != nil {
		d.Fatal(err)
	}
	for _, q := range script {
		if rest, ok := strings.CutPrefix(q, "since "); ok {
			first, text, _ := strings.Cut(rest, ": ")
			if q = text; strconv.Itoa(major) < first {
				if _, err := c.ExecContext(ctx, text); err == nil {
					d.Errorf("%s succeeded on PostgreSQL %d", text, major)
				}
				continue
			}
		}
		code, text, fails := strings.Cut(strings.TrimPrefix(q, "fails "), ": ")
		if fails = fails && strings.HasPrefix(q, "fails "); !fails {
			code, text = "", q
		}
		if _, err := c.ExecContext(ctx, text); sqlState(err) != code || code == "" && err != nil {
			d.Errorf("%s\n%v, want %q", text, err, code)
		}
	}
}

// TestMirroredDefinitions: DDL of every kind leaves all databases the same, on
// those that were there and on one that was away and finds it all at once.
func TestMirroredDefinitions(t *testing.T) {
	for name, script := range definitions {
		t.Run(name, func(t *testing.T) {
			db, servers := mirrored(t, "")
			d := defined{t, db}
			d.session([]string{"CREATE TABLE before (k int PRIMARY KEY)", "CREATE TYPE early AS ENUM ('a')"})
			if err := servers[2].Kill(); err != nil {
				t.Fatal(err)
			}
			d.session(script)
			pgtest.SameBytes(t, servers[:2]...)
			if err := servers[2].StartAgain(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), ages)
			defer cancel()
			converge(ctx, t, servers)
		})
	}
}

// converge waits until all servers are the same, one of which came back.
func converge(ctx context.Context, t *testing.T, servers []*pgtest.Server) {
	t.Helper()
	for err := pgtest.CompareServers(ctx, servers...); err != nil; err = pgtest.CompareServers(ctx, servers...) {
		if ctx.Err() != nil || !sleep(ctx, 100*time.Millisecond) {
			t.Fatalf("after its return: %v", err)
		}
	}
}

// sleep waits for d and tells whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Functions of one's own, made and dropped in transactions side by side (Sequelize's findOrCreate),
// keep nobody waiting.
func TestTemporaryFunctionsSideBySide(t *testing.T) {
	db, _ := mirrored(t, "")
	ctx := context.Background()
	var txs [2]*sql.Tx
	for i := range txs {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // committed
		if _, err := tx.Exec(`CREATE OR REPLACE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`); err != nil {
			t.Fatal(err)
		}
		txs[i] = tx
	}
	dropped := make(chan error)
	for _, tx := range txs {
		go func() {
			_, err := tx.Exec(`DROP FUNCTION IF EXISTS pg_temp.f()`)
			dropped <- err
		}()
	}
	for range txs {
		if err := <-dropped; err != nil {
			t.Error(err)
		}
	}
	for _, tx := range txs {
		if err := tx.Commit(); err != nil {
			t.Error(err)
		}
	}
}
