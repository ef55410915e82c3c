package mirror

import "testing"

// Settings that a database makes for all sessions, and that change how text is read, change
// nothing of what followers get, nor what pgdist's own functions do in clients' sessions.
func TestOddSettings(t *testing.T) {
	r := newRig(t, 3, `ALTER DATABASE postgres SET array_nulls = off; ALTER DATABASE postgres SET gin_fuzzy_search_limit = 1; ALTER DATABASE postgres SET transform_null_equals = on;
		ALTER DATABASE postgres SET plpgsql.extra_errors = 'all'; ALTER DATABASE postgres SET plpgsql.extra_warnings = 'all'; ALTER DATABASE postgres SET check_function_bodies = off;
		ALTER DATABASE postgres SET IntervalStyle = 'sql_standard'; ALTER DATABASE postgres SET DateStyle = 'German'; ALTER DATABASE postgres SET backslash_quote = off; ALTER DATABASE postgres SET quote_all_identifiers = on;
		CREATE TABLE t (k int PRIMARY KEY, v text[], n int[], d text[] DEFAULT ARRAY[NULL, 'NULL'], i interval DEFAULT '-1 days +02:00'); CREATE TABLE bag (v text[]); CREATE INDEX ON t USING gin (v)`)
	c := r.client()
	r.do(c, `INSERT INTO t (k, v, n) VALUES (1, ARRAY[NULL, 'NULL', 'a'], ARRAY[NULL, 1]), (2, '{NULL}', NULL)`, `INSERT INTO bag VALUES (ARRAY[NULL, 'NULL']), ('{NULL}'), (NULL)`,
		`UPDATE t SET v = v || v WHERE k = 1`, `DELETE FROM bag WHERE ctid = '(0,1)'`, `UPDATE bag SET v = v || ARRAY[NULL]`)
	r.inSync(3)
	r.same()
	if err := r.servers[2].Kill(); err != nil {
		t.Fatal(err)
	}
	r.do(c, `INSERT INTO t (k, v) VALUES (3, ARRAY[NULL, 'NULL'])`)
	r.ddl(c, `ALTER TABLE t ADD e text[] DEFAULT '{NULL}', ADD f text[] DEFAULT ARRAY[NULL, 'b']`)
	r.do(c, `INSERT INTO t (k, v) VALUES (4, ARRAY[NULL, 'NULL'])`)
	if err := r.servers[2].StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.same()
	if _, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) { yes(o); o.Force = true }); err != nil {
		t.Fatal(err)
	}
	r.do(c, `INSERT INTO t (k) VALUES (5)`)
	r.inSync(3)
	r.same()
}
