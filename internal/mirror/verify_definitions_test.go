package mirror

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// everyKind makes an object of every kind there is.
const everyKind = `
CREATE ROLE alice; CREATE ROLE bob; GRANT alice TO bob; ALTER ROLE alice SET work_mem = '1MB';
ALTER ROLE bob PASSWORD 'sesame'; ALTER DATABASE postgres SET lock_timeout = '10s';
CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO alice;
CREATE TABLE s.t (id int PRIMARY KEY, v text NOT NULL DEFAULT 'x', n numeric CHECK (n > 0), gone int, d date);
ALTER TABLE s.t DROP COLUMN gone; GRANT SELECT ON s.t TO alice, bob; GRANT UPDATE (v) ON s.t TO alice;
CREATE TABLE s.ref (id int REFERENCES s.t, k int UNIQUE);
CREATE TABLE s.part (id int, r int) PARTITION BY RANGE (r);
CREATE TABLE s.part1 PARTITION OF s.part FOR VALUES FROM (0) TO (10);
CREATE TABLE s.kid () INHERITS (s.ref);
CREATE INDEX t_v ON s.t (v); CREATE INDEX t_e ON s.t ((n + 1));
CREATE STATISTICS s.st ON v, n FROM s.t;
CREATE VIEW s.w AS SELECT id, v FROM s.t;
CREATE SEQUENCE s.q; CREATE SEQUENCE s.owned OWNED BY s.t.id;
CREATE FUNCTION s.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
CREATE FUNCTION s.trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION s.ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE PROCEDURE s.p() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE s.agg(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE TRIGGER trg BEFORE INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.trg();
CREATE RULE r AS ON DELETE TO s.ref WHERE OLD.id < 0 DO INSTEAD NOTHING;
ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; CREATE POLICY pol ON s.t FOR SELECT TO alice USING (n > 1);
CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION s.ev();
CREATE TYPE s.mood AS ENUM ('sad', 'glad'); CREATE DOMAIN s.dom AS int CHECK (VALUE > 0);
CREATE TYPE s.comp AS (a int, b text); CREATE TYPE s.rng AS RANGE (SUBTYPE = int);
CREATE FUNCTION s.mt(s.mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE CAST (s.mood AS int) WITH FUNCTION s.mt(s.mood);
CREATE FUNCTION s.eq(s.comp, s.comp) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR s.=== (LEFTARG = s.comp, RIGHTARG = s.comp, FUNCTION = s.eq);
CREATE OPERATOR FAMILY s.fam USING hash;
CREATE OPERATOR CLASS s.cls FOR TYPE s.comp USING hash FAMILY s.fam AS OPERATOR 1 s.===;
CREATE COLLATION s.coll (LOCALE = 'C');
CREATE CONVERSION s.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH DICTIONARY s.dict (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION s.cfg (COPY = simple);
CREATE TEXT SEARCH PARSER s.prs (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE s.tpl (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE FOREIGN DATA WRAPPER fdw; CREATE SERVER srv FOREIGN DATA WRAPPER fdw OPTIONS (host 'a');
CREATE USER MAPPING FOR alice SERVER srv OPTIONS (password 'x'); CREATE FOREIGN TABLE s.ft (a int) SERVER srv;
CREATE PUBLICATION pub FOR TABLE s.t;
CREATE ACCESS METHOD am TYPE INDEX HANDLER bthandler;
ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO alice;
`

// differently changes each of them on one member, and says what is to be found.
var differently = []struct{ sql, what string }{
	{`ALTER ROLE alice CREATEDB`, `role alice is defined differently: options: CREATEDB instead of NOCREATEDB`},
	{`REVOKE alice FROM bob`, `membership of role bob in alice is missing`},
	{`ALTER ROLE alice SET work_mem = '2MB'`, `settings of role alice is defined differently: settings: work_mem=2MB instead of work_mem=1MB`},
	{`ALTER DATABASE postgres RESET lock_timeout`, `settings in this database is missing`},
	{`GRANT CREATE ON DATABASE postgres TO bob`, `database is defined differently: privileges: CREATE to bob instead of none`},
	{`ALTER EVENT TRIGGER et DISABLE`, `event trigger et is defined differently: enabled: D instead of O`},
	{`GRANT CREATE ON SCHEMA s TO alice`, `schema s is defined differently: privileges: alice=UC/postgres instead of alice=U/postgres`},
	{`COMMENT ON TABLE s.t IS 'other'`, `table s.t is defined differently: comment: other instead of none; options: fillfactor=70 instead of none; privileges: none instead of bob=r/postgres`},
	{`ALTER TABLE s.t SET (fillfactor = 70)`, ``}, {`REVOKE SELECT ON s.t FROM bob`, ``},
	{`ALTER TABLE s.t ALTER v SET STORAGE plain, ALTER v SET STATISTICS 7, ALTER v SET COMPRESSION pglz`, `table column s.t.v is defined differently: compression: p instead of none; default: 'y'::text instead of 'x'::text; statistics target: 7 instead of none; storage: p instead of x`},
	{`ALTER TABLE s.t ALTER v SET DEFAULT 'y'`, ``},
	{`COMMENT ON COLUMN s.t.n IS 'number'`, `table column s.t.n is defined differently: comment: number instead of none`},
	{`ALTER TABLE s.t DROP COLUMN d`, `table column s.t.d is missing`},
	{`CREATE TABLE s.more (a int PRIMARY KEY)`, `table s.more is not on the leader`},
	{`ALTER TABLE s.ref DISABLE TRIGGER ALL`, `table constraint ref_id_fkey on s.ref is defined differently: enforced by: "RI_FKey_check_ins" D, "RI_FKey_check_upd" D instead of "RI_FKey_check_ins" O, "RI_FKey_check_upd" O`},
	{`ALTER TABLE s.t DROP CONSTRAINT t_n_check, ADD CONSTRAINT t_n_check CHECK (n > 1)`, `table constraint t_n_check on s.t is defined differently: constraint: CHECK ((n > (1)::numeric)) instead of CHECK ((n > (0)::numeric))`},
	{`ALTER TABLE s.part DETACH PARTITION s.part1`, `table s.part1 is defined differently: parents: none instead of s.part; partition bound: none instead of FOR VALUES FROM (0) TO (10)`},
	{`ALTER TABLE s.kid NO INHERIT s.ref`, `table s.kid is defined differently: parents: none instead of s.ref`},
	{`DROP INDEX s.t_v`, `index s.t_v is missing`},
	{`ALTER INDEX s.t_e ALTER COLUMN 1 SET STATISTICS 9`, `index s.t_e is defined differently: statistics targets: 1, 9 instead of none`},
	{`ALTER STATISTICS s.st SET STATISTICS 5`, `statistics object s.st is defined differently: target: 5 instead of none`},
	{`CREATE OR REPLACE VIEW s.w AS SELECT id, upper(v) AS v FROM s.t`, `view s.w is defined differently: query:`},
	{`ALTER SEQUENCE s.q INCREMENT 5`, `sequence s.q is defined differently: sequence:`},
	{`ALTER SEQUENCE s.owned OWNED BY NONE`, `sequence s.owned is defined differently: owned by: none instead of s.t.id`},
	{`ALTER FUNCTION s.f(int) COST 7`, `function s.f(integer) is defined differently: body: SELECT $1 + 2 instead of SELECT $1 + 1; definition:`},
	{`CREATE OR REPLACE FUNCTION s.f(int) RETURNS int LANGUAGE sql IMMUTABLE COST 7 AS 'SELECT $1 + 2'`, ``},
	{`ALTER PROCEDURE s.p() OWNER TO alice`, `procedure s.p() is defined differently: owner: alice instead of postgres; privileges: =X/alice, alice=X/alice instead of =X/postgres, postgres=X/postgres`},
	{`CREATE OR REPLACE AGGREGATE s.agg(int) (SFUNC = int4pl, STYPE = int, INITCOND = '1')`, `aggregate s.agg(integer) is defined differently: aggregate:`},
	{`ALTER TABLE s.t DISABLE TRIGGER trg`, `trigger trg on s.t is defined differently: enabled: D instead of O`},
	{`COMMENT ON RULE r ON s.ref IS 'c'`, `rule r on s.ref is defined differently: comment: c instead of none`},
	{`ALTER POLICY pol ON s.t TO alice, bob`, `policy pol on s.t is defined differently: to: bob instead of none`},
	{`ALTER TYPE s.mood ADD VALUE 'mad'`, `type s.mood is defined differently: labels: mad instead of none`},
	{`ALTER DOMAIN s.dom SET NOT NULL`, `type s.dom is defined differently: not null: true instead of false`},
	{`ALTER TYPE s.comp ADD ATTRIBUTE c int`, `composite type column s.comp.c is not on the leader`},
	{`COMMENT ON TYPE s.rng IS 'c'`, `type s.rng is defined differently: comment: c instead of none`},
	{`DROP CAST (s.mood AS int)`, `cast (s.mood AS integer) is missing`},
	{`ALTER OPERATOR s.=== (s.comp, s.comp) SET (RESTRICT = eqsel)`, `operator s.===(s.comp,s.comp) is defined differently: restrict: eqsel instead of -`},
	{`ALTER OPERATOR FAMILY s.fam USING hash OWNER TO bob`, `operator family s.fam USING hash is defined differently: owner: bob instead of postgres`},
	{`ALTER OPERATOR CLASS s.cls USING hash OWNER TO bob`, `operator class s.cls USING hash is defined differently: owner: bob instead of postgres`},
	{`ALTER OPERATOR FAMILY integer_ops USING btree ADD FUNCTION 1 (int4, text) s.cmp(int4, text)`, `function of access method function 1 (integer, pg_catalog.text) of pg_catalog.integer_ops USING btree is not on the leader`},
	{`COMMENT ON COLLATION s.coll IS 'c'`, `collation s.coll is defined differently: comment: c instead of none`},
	{`ALTER CONVERSION s.conv OWNER TO bob`, `conversion s.conv is defined differently: owner: bob instead of postgres`},
	{`ALTER TEXT SEARCH DICTIONARY s.dict (Accept = false)`, `text search dictionary s.dict is defined differently: options: accept = 'false' instead of none`},
	{`ALTER TEXT SEARCH CONFIGURATION s.cfg ALTER MAPPING FOR word WITH s.dict`, `text search configuration s.cfg is defined differently: dictionaries: 2 1 s.dict instead of 2 1 simple`},
	{`DROP TEXT SEARCH PARSER s.prs`, `text search parser s.prs is missing`},
	{`COMMENT ON TEXT SEARCH TEMPLATE s.tpl IS 'c'`, `text search template s.tpl is defined differently: comment: c instead of none`},
	{`ALTER FOREIGN DATA WRAPPER fdw OPTIONS (debug 'true')`, `foreign-data wrapper fdw is defined differently: options: debug=true instead of none`},
	{`ALTER SERVER srv OPTIONS (SET host 'b')`, `server srv is defined differently: options: host=b instead of host=a`},
	{`ALTER USER MAPPING FOR alice SERVER srv OPTIONS (SET password 'y')`, `user mapping alice on server srv is defined differently: digest of its options:`},
	{`ALTER FOREIGN TABLE s.ft OPTIONS (path 'p')`, `foreign table s.ft is defined differently: server options: path=p instead of none`},
	{`ALTER PUBLICATION pub SET (publish = 'insert')`, `publication pub is defined differently: delete: false instead of true; truncate: false instead of true; update: false instead of true`},
	{`ALTER PUBLICATION pub ADD TABLE s.ref`, `publication relation s.ref in publication pub is not on the leader`},
	{`COMMENT ON ACCESS METHOD am IS 'c'`, `access method am is defined differently: comment: c instead of none`},
	{`REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC`, `language plpgsql is defined differently: privileges: none instead of =U/postgres`},
	{`ALTER DEFAULT PRIVILEGES IN SCHEMA s REVOKE SELECT ON TABLES FROM alice`, `default acl for role postgres in schema s on tables is missing`},
	{`COMMENT ON EXTENSION plpgsql IS 'c'`, `extension plpgsql is defined differently: comment: c instead of PL/pgSQL procedural language`},
	{`REVOKE EXECUTE ON FUNCTION pg_sleep(float8) FROM PUBLIC`, `function pg_catalog.pg_sleep(double precision) is not on the leader`},
}

// Every kind of object that is different on one member is found and named, and
// nothing besides.
func TestVerifyDefinitions(t *testing.T) {
	r := newRig(t, 2, everyKind)
	// What a server notes of its own among a column's options, as 15.20 does: another place in another log.
	r.server(2).Exec(t, `SET allow_system_table_mods = on; UPDATE pg_attribute SET attoptions = array_append(ARRAY(SELECT o FROM unnest(attoptions) o WHERE o !~ '^pg_'), 'pg_attver=16') WHERE attrelid = 's.t'::regclass AND attnum > 0`)
	rep, err := r.set.Verify(r.ctx(), VerifyOptions{})
	if err != nil || len(rep.Differences) > 0 {
		t.Fatalf("equal: %+v, %v", rep, err)
	}
	r.server(2).Exec(t, tamper+`CREATE FUNCTION s.cmp(int4, text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0'`)
	want := []string{`function s.cmp(integer,pg_catalog.text) is not on the leader`}
	for _, c := range []string{"s.kid.id", "s.kid.k", "s.part1.id", "s.part1.r"} { // as NO INHERIT and DETACH leave them
		want = append(want, `table column `+c+` is defined differently: inherited: 0 instead of 1; local: true instead of false`)
	}
	major := r.major()
	if major >= 17 { // NOT NULL of a domain has a constraint of its own
		want = append(want, `domain constraint dom_not_null on s.dom is not on the leader`)
	}
	for _, d := range differently {
		if major < 14 {
			d.sql, d.what = strings.Replace(d.sql, ", ALTER v SET COMPRESSION pglz", "", 1), strings.Replace(d.what, "compression: p instead of none; ", "", 1)
		}
		r.server(2).Exec(t, tamper+d.sql)
		if d.what != "" {
			want = append(want, d.what)
		}
	}
	if rep, err = r.set.Verify(r.ctx(), VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, d := range rep.Differences {
		i := slices.IndexFunc(want, func(w string) bool {
			return d.What == w || strings.HasSuffix(w, ":") && strings.HasPrefix(d.What, w) || strings.HasSuffix(w, ": ") && strings.HasPrefix(d.What, w)
		})
		if i < 0 {
			t.Errorf("unexpected: %s", d.What)
			continue
		}
		want = slices.Delete(want, i, i+1)
	}
	if diff := cmp.Diff([]string{}, want); diff != "" {
		t.Errorf("not found: %s", diff)
	}
}

// apart are the catalogs that objectsSQL need not read.
var apart = map[string]string{
	"pg_authid": "shared_state", "pg_auth_members": "shared_state", "pg_database": "shared_state", "pg_db_role_setting": "shared_state",
	"pg_parameter_acl": "shared_state", "pg_event_trigger": "shared_state", "pg_shdescription": "shared_state", "pg_shseclabel": "of roles and databases: of the server",
	"pg_tablespace": "of the server; names are read with tables", "pg_depend": "follows from definitions", "pg_shdepend": "follows from definitions",
	"pg_largeobject": "refused", "pg_largeobject_metadata": "refused", "pg_subscription": "refused", "pg_subscription_rel": "refused",
	"pg_statistic": "what ANALYZE found", "pg_statistic_ext_data": "what ANALYZE found", "pg_replication_origin": "of the server", "pg_user_mapping": "by its view",
	"pg_partitioned_table": "pg_get_partkeydef", "pg_attrdef": "with columns",
}

// A catalog that a new version brings must not be forgotten.
func TestVerifyKnowsAllCatalogs(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	c := pgtest.Connect(t, s.DSN())
	var version int
	if err := c.QueryRow(t.Context(), `SELECT current_setting('server_version_num')::int / 10000`).Scan(&version); err != nil {
		t.Fatal(err)
	}
	sql := objectsSQL(version, 0)
	rows, err := c.Query(t.Context(), `SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'pg_catalog'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(sql, name+" ") && apart[name] == "" {
			t.Errorf("%s is not read", name)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// The mirror's role need not be a superuser, but must be allowed to read.
func TestVerifyWithoutSuperuser(t *testing.T) {
	g := ground(t, 2, nil)
	a := trial{schema: `DO $$ BEGIN CREATE ROLE reader LOGIN BYPASSRLS; EXCEPTION WHEN duplicate_object THEN END $$;` +
		strings.ReplaceAll(everyKind, "ALTER DATABASE postgres SET lock_timeout = '10s';", "")}.bare(t, g)
	a.cfg.Logger = nil
	if _, err := Init(a.ctx(), a.cfg, InitOptions{Mirror: "reader"}); err != nil {
		t.Fatal(err)
	}
	for i := range a.cfg.Members {
		a.cfg.Members[i].Conn.User = "reader"
	}
	a.open()
	_, err := a.set.Verify(a.ctx(), VerifyOptions{})
	var e *Error
	if !errors.As(err, &e) || !strings.HasPrefix(e.Op, "read table s.") || !strings.Contains(e.Hint, "allowed to read") {
		t.Errorf("a role that may not read: %v", err)
	}
	for _, s := range g {
		c := pgtest.Connect(t, s.DSN(a.db))
		if _, err := c.Exec(a.ctx(), tamper+`GRANT USAGE ON SCHEMA s TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA s TO reader; GRANT SELECT ON ALL SEQUENCES IN SCHEMA s TO reader`); err != nil {
			t.Fatal(err)
		}
	}
	if rep := a.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
}
