package driver

import (
	"context"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// belongings are of every kind that REASSIGN OWNED gives away. (A role that is no superuser
// cannot have them all.)
var belongings = []string{
	`CREATE ROLE bob SUPERUSER; CREATE ROLE "Bob ""2" SUPERUSER; CREATE ROLE other; SET ROLE bob`,
	`CREATE SCHEMA bobs; CREATE SCHEMA "Bob's ""s"`,
	`CREATE TABLE bobs.t (k serial PRIMARY KEY, m int GENERATED ALWAYS AS IDENTITY, v text); INSERT INTO bobs.t (v) VALUES ('a')`,
	`CREATE TABLE "Bob's ""s"."T ""2" (a int) PARTITION BY LIST (a); CREATE TABLE bobs.part PARTITION OF "Bob's ""s"."T ""2" DEFAULT; CREATE UNLOGGED TABLE bobs.u (a int)`,
	`CREATE VIEW bobs.v AS SELECT * FROM bobs.t; CREATE MATERIALIZED VIEW bobs.mv AS SELECT * FROM bobs.t; CREATE SEQUENCE bobs.seq; CREATE INDEX ON bobs.t (v)`,
	`CREATE FUNCTION bobs.f(int, VARIADIC text[]) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION bobs.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
	`CREATE PROCEDURE bobs.p(a int, INOUT b text) LANGUAGE plpgsql AS 'BEGIN END'; CREATE PROCEDURE "Bob's ""s"."P ""2"() LANGUAGE plpgsql AS 'BEGIN END'`,
	`CREATE AGGREGATE bobs.agg (int) (SFUNC = int4pl, STYPE = int); CREATE AGGREGATE bobs.none (*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0')`,
	`CREATE AGGREGATE bobs.ordered (float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA)`,
	`CREATE TYPE bobs.comp AS (a int); CREATE TYPE bobs.mood AS ENUM ('x'); CREATE TYPE bobs.rng AS RANGE (subtype = float8); CREATE DOMAIN bobs.dom AS int; CREATE TYPE bobs.shell; CREATE TABLE bobs.of OF bobs.comp`,
	`CREATE OPERATOR bobs.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq); CREATE OPERATOR bobs.!!! (RIGHTARG = int, FUNCTION = int4um)`,
	`CREATE OPERATOR FAMILY bobs.fam USING btree; CREATE OPERATOR CLASS bobs.cls FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int)`,
	`CREATE COLLATION bobs.coll FROM "C"; CREATE CONVERSION bobs.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8`,
	`CREATE TEXT SEARCH DICTIONARY bobs.dict (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION bobs.conf (COPY = english)`,
	`CREATE STATISTICS bobs.st ON k, v FROM bobs.t; CREATE LANGUAGE bobl HANDLER plpgsql_call_handler`,
	`CREATE FOREIGN DATA WRAPPER bobw; CREATE SERVER bobsrv FOREIGN DATA WRAPPER bobw; CREATE FOREIGN TABLE bobs.ft (a int) SERVER bobsrv; CREATE USER MAPPING FOR bob SERVER bobsrv`,
	`CREATE PUBLICATION bobpub FOR TABLE bobs.t; CREATE EXTENSION hstore; CREATE TABLE bobs.ext (h hstore)`,
	`CREATE FUNCTION bobs.evt() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER bobevt ON ddl_command_end EXECUTE FUNCTION bobs.evt()`,
	`ALTER DEFAULT PRIVILEGES FOR ROLE bob IN SCHEMA bobs GRANT SELECT ON TABLES TO other; ALTER DEFAULT PRIVILEGES FOR ROLE bob GRANT USAGE ON SEQUENCES TO other`,
	`GRANT SELECT ON bobs.t TO other; CREATE POLICY pol ON bobs.t TO bob, other USING (true); SET ROLE "Bob ""2"; CREATE TABLE second (k int PRIMARY KEY); CREATE FUNCTION second() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
	`RESET ROLE; CREATE TABLE not_his (k int); GRANT SELECT ON not_his TO bob; CREATE TABLE stays (k int); ALTER TABLE stays OWNER TO other; CREATE ROLE carol SUPERUSER`,
}

// reassigning are ways to give them all away. What was given away must be there on all
// servers when its old owner's things are dropped.
var reassigning = map[string][]string{
	"to the first superuser": {`REASSIGN OWNED BY bob, "Bob ""2" TO postgres`, `DROP OWNED BY bob; DROP OWNED BY "Bob ""2"`, `DROP ROLE bob; DROP ROLE "Bob ""2"`},
	"to another":             {`REASSIGN OWNED BY bob, "Bob ""2" TO carol`, `DROP OWNED BY bob, "Bob ""2"`, `DROP ROLE bob, "Bob ""2"`},
	"to one of the server's": {`REASSIGN OWNED BY "Bob ""2" TO pg_read_all_settings; DROP OWNED BY "Bob ""2"`},
	"in a transaction":       {`BEGIN; REASSIGN OWNED BY bob TO postgres; DROP OWNED BY bob; ALTER TABLE bobs.t RENAME TO t2; REASSIGN OWNED BY "Bob ""2" TO carol; DROP OWNED BY "Bob ""2"; DROP ROLE bob, "Bob ""2"; COMMIT`},
	"in a DO block":          {`DO $$ BEGIN REASSIGN OWNED BY bob TO postgres; EXECUTE 'REASSIGN OWNED BY "Bob ""2" TO carol'; END $$`, `DROP OWNED BY bob; DROP OWNED BY "Bob ""2"`, `DROP ROLE bob, "Bob ""2"`},
	"all in a DO block":      {`DO $$ BEGIN REASSIGN OWNED BY bob, "Bob ""2" TO postgres; DROP OWNED BY bob, "Bob ""2"; DROP ROLE bob; DROP ROLE "Bob ""2"; END $$`},
	"before the role goes": {
		`CREATE FUNCTION gives(a text, b text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('REASSIGN OWNED BY %I TO %I', a, b); END $$`,
		`BEGIN; SELECT gives('Bob "2', 'postgres'); DROP ROLE "Bob ""2"; COMMIT`, `SELECT gives('bob', 'carol')`, `ALTER TABLE bobs.t RENAME TO t2; DROP OWNED BY bob`,
	},
	"undone, then by a procedure": {
		`DO $$ BEGIN REASSIGN OWNED BY bob TO postgres; RAISE 'undone'; EXCEPTION WHEN OTHERS THEN NULL; END $$`, `BEGIN; REASSIGN OWNED BY bob TO carol; ROLLBACK`,
		`CREATE PROCEDURE gives() LANGUAGE plpgsql AS $$ BEGIN REASSIGN OWNED BY "Bob ""2" TO carol; COMMIT; ALTER TABLE stays OWNER TO carol; COMMIT; DROP OWNED BY "Bob ""2"; END $$`, `CALL gives()`,
		`CREATE FUNCTION alters() RETURNS void LANGUAGE plpgsql AS $$ BEGIN ALTER TABLE bobs.t OWNER TO postgres; ALTER SCHEMA bobs OWNER TO carol; DROP OWNED BY bob CASCADE; END $$`, `SELECT alters()`,
	},
	"beside other DDL": {
		`CREATE FUNCTION gives() RETURNS int LANGUAGE plpgsql AS $$ BEGIN REASSIGN OWNED BY bob TO carol; RETURN 1; END $$`, `CREATE MATERIALIZED VIEW beside AS SELECT gives() AS g`, `DROP OWNED BY bob`,
		`CREATE TEMP TABLE mine (k int); ALTER TABLE mine OWNER TO "Bob ""2"; GRANT SELECT ON not_his TO "Bob ""2"; ALTER TABLE second OWNER TO postgres`, `DROP OWNED BY "Bob ""2"`,
	},
	"dropped, not given away": {`DROP OWNED BY bob CASCADE`, `DO $$ BEGIN DROP OWNED BY "Bob ""2"; END $$`, `DROP ROLE bob, "Bob ""2"`},
}

// ownersSQL tells whom everything belongs to that can belong to anybody.
const ownersSQL = `SELECT i.type, i.identity, pg_get_userbyid(o.owner) FROM (
	SELECT tableoid, oid, relowner AS owner FROM pg_class WHERE relnamespace <> to_regnamespace('pgdist') AND relkind NOT IN ('i', 'I', 't') UNION ALL SELECT tableoid, oid, proowner FROM pg_proc WHERE pronamespace <> to_regnamespace('pgdist')
	UNION ALL SELECT tableoid, oid, typowner FROM pg_type WHERE typnamespace <> to_regnamespace('pgdist') UNION ALL SELECT tableoid, oid, nspowner FROM pg_namespace
	UNION ALL SELECT tableoid, oid, oprowner FROM pg_operator UNION ALL SELECT tableoid, oid, opcowner FROM pg_opclass UNION ALL SELECT tableoid, oid, opfowner FROM pg_opfamily
	UNION ALL SELECT tableoid, oid, collowner FROM pg_collation UNION ALL SELECT tableoid, oid, conowner FROM pg_conversion UNION ALL SELECT tableoid, oid, dictowner FROM pg_ts_dict
	UNION ALL SELECT tableoid, oid, cfgowner FROM pg_ts_config UNION ALL SELECT tableoid, oid, stxowner FROM pg_statistic_ext UNION ALL SELECT tableoid, oid, lanowner FROM pg_language
	UNION ALL SELECT tableoid, oid, fdwowner FROM pg_foreign_data_wrapper UNION ALL SELECT tableoid, oid, srvowner FROM pg_foreign_server UNION ALL SELECT tableoid, oid, pubowner FROM pg_publication
	UNION ALL SELECT tableoid, oid, extowner FROM pg_extension UNION ALL SELECT tableoid, oid, evtowner FROM pg_event_trigger) o, LATERAL pg_identify_object(o.tableoid, o.oid, 0) i
	WHERE o.oid >= 16384 AND i.schema IS DISTINCT FROM 'pg_toast' AND i.identity !~ '^pg_(toast_)?temp' ORDER BY 1, 2, 3`

// TestReassignOwned: what belongs to whom after REASSIGN OWNED, of which no event trigger is
// told, is the same on all servers, and DROP OWNED drops nowhere what was given away.
func TestReassignOwned(t *testing.T) {
	for name, script := range reassigning {
		t.Run(name, func(t *testing.T) {
			db, servers := mirrored(t, "")
			d := defined{t, db}
			d.session(belongings)
			pgtest.SameBytes(t, servers...)
			if err := servers[2].Kill(); err != nil {
				t.Fatal(err)
			}
			for _, q := range script {
				d.session([]string{q})
				pgtest.SameBytes(t, servers[:2]...)
				equal(t, servers[:2], ownersSQL, 0)
			}
			if t.Failed() {
				return // the third will never be the same
			}
			if err := servers[2].StartAgain(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), ages)
			defer cancel()
			converge(ctx, t, servers)
			equal(t, servers, ownersSQL, 0)
		})
	}
}
