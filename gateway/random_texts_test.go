package gateway

// randomTexts are what TestRandom's statements are taken from: a kind by its weight, then
// one of its texts.
var randomTexts = []struct {
	weight int
	texts  []string
}{
	{22, []string{
		"SELECT 1 AS one", "SELECT $1::int AS one", "SELECT id, v FROM f WHERE id < $1 ORDER BY id", "SELECT v, m FROM f ORDER BY id", "SELECT generate_series(1, 5)",
		"SELECT count(*), sum(n) FROM f", "SELECT shout('a')", "SELECT shout(v) FROM f ORDER BY id LIMIT 2", "VALUES (1, 'a'), (2, 'b')", "SELECT array_agg(v ORDER BY id) FROM f",
		"SELECT (id, v) FROM f WHERE id = 1", "SELECT $1::mood", "SELECT repeat('x', 3000) FROM generate_series(1, 30)", "SELECT '2026-01-02'::date", "SELECT now() IS NOT NULL",
		"SELECT $1::text || $2::text", "SELECT id FROM f WHERE id = $1 AND v = $2", "SELECT '\\x41'::bytea", "TABLE d", "SELECT", "WITH w AS (SELECT 1) TABLE w", "", "-- nothing",
		"SELECT current_user, current_database()", "EXPLAIN (COSTS OFF) SELECT 1", "SELECT txid_current_if_assigned() IS NULL",
	}},
	{8, []string{
		"SELECT nosuch", "SELEC 1", "SELECT 1/0", "SELECT 1/$1::int", "SELECT * FROM nosuch", "SELECT 'a'::int", "SELECT 10 / (g - 5) FROM generate_series(1, 9) g", "SELECT $1",
		"SELECT $2::int", "INSERT INTO f VALUES (1)", "INSERT INTO d VALUES (1, 4711)", "SELECT nosuch($1)", "SELECT 'open", "UPDATE f SET nosuch = 1", "SELECT 1 +", "FOO",
	}},
	{16, []string{
		"INSERT INTO f (id, v) VALUES ($1, $2)", "INSERT INTO f (id, v) VALUES (30, 'a') RETURNING id, v, m", "UPDATE f SET v = v || 'x' WHERE id < 3", "UPDATE f SET v = $2 WHERE id = $1 RETURNING v",
		"DELETE FROM f WHERE id = $1", "DELETE FROM f WHERE id > 29", "INSERT INTO f (id) VALUES (1) ON CONFLICT DO NOTHING", "INSERT INTO d VALUES ($1, 1)", "DELETE FROM d",
		"SELECT id FROM f WHERE id < 3 ORDER BY id FOR UPDATE", "WITH w AS (DELETE FROM f WHERE id = 9 RETURNING id) SELECT * FROM w", "DO $$ BEGIN RAISE NOTICE 'hello'; END $$",
		"MERGE INTO f USING (VALUES (31)) s (i) ON f.id = s.i WHEN NOT MATCHED THEN INSERT (id) VALUES (s.i)", "DO $$ BEGIN RAISE EXCEPTION 'oh' USING ERRCODE = 'P0042', DETAIL = 'well', HINT = 'no'; END $$",
	}},
	{18, []string{
		"BEGIN", "BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "ROLLBACK", "END", "ABORT", "SAVEPOINT s", "SAVEPOINT t", "ROLLBACK TO s", "ROLLBACK TO SAVEPOINT t", "RELEASE s",
		"COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "BEGIN READ ONLY", "START TRANSACTION", "SET TRANSACTION READ ONLY",
		"begin work", "/* x */ COMMIT WORK",
	}},
	{12, []string{
		"SET DateStyle = 'German'", "SET LOCAL DateStyle = 'SQL'", "RESET DateStyle", "SHOW DateStyle", "RESET ALL", "SET TimeZone = 'Asia/Tokyo'", "SET LOCAL TimeZone TO 'UTC'", "SHOW TimeZone",
		"SET application_name = 'me'", "SELECT current_setting('DateStyle'), current_setting('TimeZone')", "SELECT set_config('DateStyle', 'SQL', false)", "SELECT set_config('TimeZone', 'Europe/Rome', true)",
		"SET nosuch = 1", "SET DateStyle = 'nonsense'", "SHOW nosuch", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
		"DISCARD PLANS", "DISCARD TEMP", "SET bytea_output = 'escape'", "SET extra_float_digits = 0", "SET search_path = 'public'", "SHOW search_path",
		"SHOW transaction_isolation", "SHOW transaction_read_only", "SET IntervalStyle = 'iso_8601'", "SET statement_timeout = '10s'",
	}},
	{8, []string{
		"DECLARE c CURSOR FOR SELECT id FROM f ORDER BY id", "DECLARE c SCROLL CURSOR FOR SELECT id, v FROM f ORDER BY id", "FETCH 2 FROM c", "FETCH c", "MOVE 2 FROM c", "FETCH ALL c", "FETCH BACKWARD 1 FROM c",
		"CLOSE c", "CLOSE ALL", "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM f ORDER BY id", "FETCH 1 FROM p", "DECLARE q BINARY CURSOR FOR SELECT id FROM f ORDER BY id", "FETCH 1 FROM q",
		"UPDATE f SET v = 'cur' WHERE CURRENT OF c",
	}},
	{7, []string{
		"PREPARE z AS SELECT id, v FROM f WHERE id = $1", "EXECUTE z(3)", "EXECUTE z($1)", "DEALLOCATE x", "DEALLOCATE z", "DEALLOCATE ALL", "DEALLOCATE a", "PREPARE zz AS SELECT 7", "EXECUTE zz", "DEALLOCATE PREPARE b",
		"PREPARE y(int) AS INSERT INTO f (id) VALUES ($1)", "EXECUTE y(33)",
	}},
	{7, []string{
		"CREATE TABLE g (id int PRIMARY KEY, v text)", "DROP TABLE g", "ALTER TABLE g ADD COLUMN w int", "INSERT INTO g VALUES (1, 'a')", "SELECT * FROM g ORDER BY id", "TRUNCATE g", "DROP TABLE IF EXISTS nosuch",
		"CREATE TEMP TABLE tmp (a int)", "INSERT INTO tmp VALUES (1)", "SELECT * FROM tmp", "DROP TABLE tmp", "CREATE INDEX ON g (v)", "LOCK TABLE f", "COMMENT ON TABLE f IS 'x'", "CREATE TABLE IF NOT EXISTS f (id int)",
		"CREATE TABLE g AS SELECT 1 AS id", "SELECT 1 AS id INTO TEMP tmp2", "ANALYZE f", "CREATE TEMP TABLE tmp3 ON COMMIT DROP AS SELECT 1 AS a", "ALTER TABLE g ALTER v TYPE varchar(10)",
	}},
	{6, []string{
		"COPY f (id, v) FROM STDIN", "COPY f (id, v) FROM STDIN", "COPY (SELECT id, v FROM f ORDER BY id) TO STDOUT", "COPY nosuch FROM STDIN", "COPY (SELECT 1/0) TO STDOUT", "COPY f (id, v) FROM STDIN (FORMAT csv)",
		"COPY (SELECT id FROM f ORDER BY id) TO STDOUT (FORMAT binary)", "COPY d FROM STDIN",
	}},
	{3, []string{"LISTEN ch", "NOTIFY ch, 'one'", "UNLISTEN ch", "UNLISTEN *", "SELECT pg_notify('ch', 'two')", "NOTIFY other"}},
}

func (d *dice) text() string {
	sum := 0
	for _, k := range randomTexts {
		sum += k.weight
	}
	n := d.IntN(sum)
	for _, k := range randomTexts {
		if n -= k.weight; n < 0 {
			return d.of(k.texts...)
		}
	}
	panic("unreachable")
}
