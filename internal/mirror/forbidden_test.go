package mirror

import "testing"

// Rows are put in place as their table's owner. A right to execute what this calls is not
// taken from him, nor are tables made, or given away, whose owner lacks it: their rows could
// be written, by whoever may, and then be applied nowhere.
func TestOwnersMayExecuteWhatRowsCall(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE ROLE keeper; CREATE ROLE writer; CREATE ROLE other; GRANT ALL ON SCHEMA public TO keeper, other;
		CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
		CREATE FUNCTION free(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
		CREATE FUNCTION pluck(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > $2'; CREATE OPERATOR >>> (LEFTARG = int, RIGHTARG = int, FUNCTION = pluck);
		CREATE DOMAIN inner_d AS int CHECK (f(VALUE) > 0); CREATE TYPE holds AS (d inner_d);
		CREATE TABLE plain (k int PRIMARY KEY, n int DEFAULT free(1)); ALTER TABLE plain OWNER TO keeper`}.on(t, ground(t, 2, nil))
	c := a.client()
	for what, define := range map[string][]string{
		"generated":           {`ddl: CREATE TABLE t (k int PRIMARY KEY, n int GENERATED ALWAYS AS (f(k)) STORED)`},
		"a CHECK":             {`ddl: CREATE TABLE t (k int PRIMARY KEY CHECK (k > 0 AND f(k) > 0))`},
		"an index":            {`ddl: CREATE TABLE t (k int PRIMARY KEY)`, `ddl: CREATE INDEX ON t ((f(k) + 1))`},
		"an index's WHERE":    {`ddl: CREATE TABLE t (k int PRIMARY KEY)`, `ddl: CREATE INDEX ON t (k) WHERE f(k) > 1`},
		"where rows lie":      {`ddl: CREATE TABLE t (k int) PARTITION BY RANGE (f(k))`, `ddl: CREATE TABLE t1 PARTITION OF t DEFAULT`},
		"a partition's CHECK": {`ddl: CREATE TABLE t (k int PRIMARY KEY) PARTITION BY RANGE (k)`, `ddl: CREATE TABLE t1 PARTITION OF t (CHECK (f(k) > 0)) DEFAULT`, `ddl: ALTER TABLE t1 OWNER TO postgres`},
		"a domain":            {`ddl: CREATE TABLE t (k int PRIMARY KEY, d inner_d[])`},
		"a composite type":    {`ddl: CREATE TABLE t (k int PRIMARY KEY, d holds)`},
		"a cast to a domain":  {`ddl: CREATE TABLE t (k int PRIMARY KEY CHECK (k::inner_d IS NOT NULL))`},
	} {
		a.tx(c, append(define, `ddl: ALTER TABLE t OWNER TO keeper`, `ddl: GRANT ALL ON t TO writer`)...)
		a.refused(c, "0A000", "public.f(integer)", `ddl: REVOKE EXECUTE ON FUNCTION f FROM PUBLIC`)
		a.tx(c, `ddl: GRANT EXECUTE ON FUNCTION f TO keeper, writer`, `ddl: REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA public FROM PUBLIC`)
		a.refused(c, "0A000", "public.f(integer)", `ddl: ALTER TABLE t OWNER TO other`)
		a.refused(c, "0A000", "public.f(integer)", `ddl: REVOKE EXECUTE ON ROUTINE f(int) FROM keeper`)
		a.do(c, `SET ROLE writer`, `INSERT INTO t (k) VALUES (5)`, `DELETE FROM t`, `INSERT INTO t (k) VALUES (6)`, `RESET ROLE`)
		a.everywhere("1", `SELECT count(*)::text FROM t`)
		a.tx(c, `ddl: DROP TABLE t`, `ddl: GRANT EXECUTE ON ALL ROUTINES IN SCHEMA public TO PUBLIC`, `ddl: REVOKE EXECUTE ON FUNCTION f FROM keeper, writer`)
		if t.Failed() {
			t.Fatal(what)
		}
	}
	a.tx(c, `ddl: REVOKE EXECUTE ON FUNCTION free, pluck FROM PUBLIC`) // of defaults, and what nobody uses
	a.refused(c, "0A000", "public.pluck(integer,integer)", `ddl: ALTER TABLE plain ADD CHECK (k >>> 0)`)
	a.refused(c, "0A000", "public.free(integer)", `ddl: ALTER DOMAIN inner_d ADD CHECK (free(VALUE) > 0)`, `ddl: CREATE TABLE t (d inner_d)`, `ddl: ALTER TABLE t OWNER TO keeper`)
	a.tx(c, `ddl: REVOKE EXECUTE ON FUNCTION int4pl(int, int) FROM PUBLIC`)
	a.refused(c, "0A000", "int4pl(integer,integer)", `ddl: ALTER TABLE plain ADD COLUMN m int GENERATED ALWAYS AS (k + 1) STORED`)
	a.refused(c, "0A000", "int4eq(integer,integer)", `ddl: REVOKE EXECUTE ON FUNCTION int4eq(int, int) FROM PUBLIC`)
	a.tx(c, `ddl: CREATE TABLE theirs (k int PRIMARY KEY CHECK (free(k) > 0))`, `INSERT INTO theirs VALUES (1)`) // a superuser's
	a.inSync(2)
	a.same()
}
