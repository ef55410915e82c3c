package mirror

import (
	"strings"
	"testing"
)

// What a definition takes from the session or the moment it is made in is on followers what it
// was at the leader.
func TestSettledDefinitions(t *testing.T) {
	a := trial{schema: `CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT CREATE ON SCHEMA public TO alice, bob; CREATE TABLE told (what text); GRANT ALL ON told TO alice, bob;
		DO $$ BEGIN EXECUTE 'GRANT CREATE ON DATABASE ' || current_database() || ' TO alice, bob'; END $$`}.on(t, ground(t, 2, nil))
	ack := func(q string) {
		t.Helper()
		if err := a.set.Ack(a.ctx(), a.set.View().Term, Change{Schema: true}); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	c := a.clientAs("alice")
	same := func(what string) {
		t.Helper()
		rep, err := a.set.Verify(a.ctx(), VerifyOptions{})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(rep.Differences) > 0 || len(a.set.View().InSync) != 2 {
			t.Fatalf("%s: in sync are %v, and %v", what, a.set.View().InSync, said(rep))
		}
	}
	for _, x := range []struct {
		what string
		list []string
	}{
		{"bounds", []string{
			`CREATE TABLE part (t timestamptz, n int DEFAULT 1) PARTITION BY RANGE (t)`, `CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (now()) TO (now() + interval '1 day')`,
			`CREATE TABLE IF NOT EXISTS part2 PARTITION OF part (n DEFAULT 2, CHECK (n > 0)) FOR /* VALUES */ VALUES FROM (now() + interval '1 day') TO (now() + interval '2 day') PARTITION BY LIST (n)`,
			`CREATE TABLE part3 (t timestamptz, n int)`, `ALTER TABLE part ATTACH PARTITION public . part3 FOR VALUES FROM ('yesterday') TO (now() - interval '1 minute')`, `INSERT INTO part VALUES (now()), (now() - interval '2 minutes')`,
			`CREATE TABLE texts (v text) PARTITION BY LIST (v)`, `CREATE TABLE texts1 PARTITION OF texts FOR VALUES IN (session_user, clock_timestamp()::text, 'a''b)')`, `CREATE TABLE texts2 PARTITION OF texts FOR VALUES IN ('today', 'now')`, `CREATE TABLE texts3 (v text DEFAULT current_date); ALTER TABLE texts ATTACH PARTITION texts3 FOR VALUES IN ('tomorrow', 'yesterday')`,
			`CREATE TABLE pairs (f float8, d date) PARTITION BY RANGE (f, d)`, `CREATE TABLE pairs1 PARTITION OF pairs FOR VALUES FROM (random(), current_date) TO (2, MAXVALUE) TABLESPACE pg_default`,
			`EXECUTE 'CREATE TABLE part5 PARTITION OF part FOR VALUES FROM (now() + interval ''5 day'') TO (now() + interval ''6 day''); CREATE TABLE part6 PARTITION OF part FOR VALUES FROM (now() + interval ''6 day'') TO (now() + interval ''7 day'')'`,
			`PERFORM set_config('TimeZone', 'Asia/Tokyo', true), set_config('DateStyle', 'German', true); CREATE TABLE part7 PARTITION OF part FOR VALUES FROM (now() + interval '7 day') TO (now() + interval '8 day')`,
		}},
		{"moments", []string{
			`CREATE TABLE at1 (id int PRIMARY KEY, t timestamptz DEFAULT 'now'::timestamptz, d date DEFAULT 'today', tm time DEFAULT 'now', tt timestamp DEFAULT E'now')`,
			`PERFORM set_config('TimeZone', 'Asia/Tokyo', true), set_config('DateStyle', 'German', true); CREATE TABLE at2 (id int PRIMARY KEY, t timestamptz DEFAULT 'now'::timestamptz, d date DEFAULT 'Today', tm timetz DEFAULT 'NOW', tt timestamp DEFAULT ' now')`,
			`CREATE TABLE at3 (id int PRIMARY KEY, s text DEFAULT 'now', u text CHECK (u IN ('today', 'tomorrow')), w date DEFAULT ('now'::text)::date)`, `CREATE VIEW at4 AS SELECT 'now'::timestamptz AS t, 'tomorrow 10:00'::timestamp AS u, 'yesterday'::date AS v`,
			`COMMENT ON TABLE at1 IS 'today'`, `CREATE TYPE at10 AS ENUM ('today', 'now')`, `ALTER TYPE at10 ADD VALUE 'tomorrow'`, `CREATE TABLE at11 (e at10 DEFAULT 'now', v text DEFAULT 'today 10:00')`, `ALTER TABLE at11 ADD d date DEFAULT 'today', ADD f text DEFAULT 'now'`,
			`ALTER TABLE at1 ADD CONSTRAINT c CHECK (t <= 'now'::timestamptz)`, `CREATE INDEX at1_i ON at1 (id) WHERE t < 'now'::timestamptz`, `CREATE FUNCTION at5(t timestamptz DEFAULT 'now'::timestamptz) RETURNS timestamptz LANGUAGE sql AS $f$ SELECT 'now'::timestamptz $f$`,
			`CREATE DOMAIN at6 AS timestamptz DEFAULT 'now'::timestamptz CHECK (value < 'tomorrow'::timestamptz)`, `CREATE RULE r AS ON INSERT TO at1 DO ALSO INSERT INTO told VALUES ('now'::timestamptz::text)`,
			`CREATE TABLE at7 (id int PRIMARY KEY, t timestamptz GENERATED ALWAYS AS ('now'::timestamptz) STORED); INSERT INTO at7 VALUES (1)`, `CREATE POLICY p ON at7 USING (t < 'now'::timestamptz)`, `ALTER TABLE at1 ADD u timestamptz DEFAULT 'now', ALTER d SET DEFAULT 'tomorrow'`,
			`CREATE FUNCTION at8() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$`, `CREATE TRIGGER t BEFORE INSERT ON at1 FOR EACH ROW WHEN (NEW.t < 'now'::timestamptz) EXECUTE FUNCTION at8('today')`,
			`CREATE TABLE at9 (t timestamptz) PARTITION BY RANGE (t); CREATE TABLE at9a PARTITION OF at9 (t DEFAULT 'now') FOR VALUES FROM ('yesterday') TO ('tomorrow')`,
		}},
		{"settings", []string{
			`PERFORM set_config('work_mem', '7MB', true), set_config('search_path', 'public, pg_temp', true); CREATE FUNCTION set1() RETURNS text LANGUAGE sql SET work_mem FROM CURRENT SET search_path FROM CURRENT AS $f$ SELECT current_setting('work_mem') $f$`,
			`CREATE FUNCTION set2() RETURNS int LANGUAGE sql AS 'SELECT 1'; PERFORM set_config('extra_float_digits', '-3', true); ALTER FUNCTION set2() SET extra_float_digits FROM CURRENT`,
		}},
		{"who", []string{
			`CREATE TABLE who1 (id int PRIMARY KEY, v text DEFAULT session_user)`, `GRANT SELECT ON who1 TO SESSION_USER`, `CREATE SCHEMA AUTHORIZATION SESSION_USER`, `CREATE SCHEMA who2 AUTHORIZATION session_user CREATE TABLE who3 (v text DEFAULT session_user)`,
			`ALTER TABLE who1 OWNER TO /* me */ SESSION_USER`, `CREATE POLICY p ON who1 TO SESSION_USER USING (v = session_user)`, `ALTER POLICY p ON who1 TO bob, session_user WITH CHECK (v IN ('a', session_user))`,
			`ALTER DEFAULT PRIVILEGES FOR USER SESSION_USER GRANT SELECT ON TABLES TO bob`, `ALTER TABLE who1 ALTER v SET DEFAULT session_user || 'x', ADD w text DEFAULT session_user`, `GRANT UPDATE ON who1 TO bob GRANTED BY SESSION_USER`,
			`CREATE FUNCTION who4() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN EXECUTE 'GRANT DELETE ON who1 TO SESSION_USER'; END $f$`, `PERFORM who4()`, `REVOKE REFERENCES ON who1 FROM session_user`, `CREATE VIEW "session_user" AS SELECT session_user AS a, 'session_user' AS b`,
		}},
	} {
		for _, q := range x.list {
			a.exec(c, `DO $do$ BEGIN `+q+`; END $do$`)
			ack(q)
			if n := len(a.set.View().InSync); n != 2 {
				t.Fatalf("%s: %d in sync", q, n)
			}
		}
		same(x.what)
	}
	if err := a.try(c, `DO $do$ BEGIN CREATE TABLE both_t (a text DEFAULT 'now', b timestamptz DEFAULT 'now'); END $do$`); sqlState(err) != "0A000" || !strings.Contains(err.Error(), "is the time of this moment in one place") {
		t.Errorf("a text and a time: %v", err)
	}
	b := a.clientAs("bob")
	a.exec(b, `DO $do$ BEGIN CREATE TABLE his (id int PRIMARY KEY); INSERT INTO his VALUES (1); CREATE FUNCTION his() RETURNS int LANGUAGE sql AS 'SELECT 1'; END $do$`)
	ack("his")
	a.exec(b, `DO $do$ BEGIN DROP OWNED BY SESSION_USER; END $do$`)
	ack("dropped")
	same("what is dropped")
	if got := a.query(2, `SELECT coalesce(to_regclass('his')::text, 'gone')`); got != "gone" {
		t.Errorf("on a follower it is %s", got)
	}
	a.same()
}
