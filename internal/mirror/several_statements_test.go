package mirror

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// EXECUTE may be given several statements in one string. The one that an event trigger hears of
// is journaled, and no other.
func TestSeveralStatementsInOneString(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE there (id int PRIMARY KEY)`)
	c := r.client()
	for _, text := range []string{
		`create table a1 (a int); insert into a1 values (1)`,
		`create table a2 (a int); insert into a2 values (1); alter table a2 add b int default 5;`,
		`create table a3 (a int); create unique index a3_a on a3 (a); comment on table a3 is 'x; y'; insert into a3 values (7)`,
		`create table a4 (a int); create table b4 (a int); insert into b4 values (1); create table c4 as select * from b4; create index on c4 (a); drop table a4`,
		`insert into there values (5); create table a5 as select 1 as a; drop table a5;`,
		`/* one; /* two; */ */ create function f1() returns int language plpgsql as $f$ begin perform 1; return 2; end $f$; insert into there select f1()`,
		`create view v1 as select 'a;b' as x, E'c\';d' as y, 1 as "e;f" -- ;`,
		`create table a6 (a int)  ;  `,
	} {
		do := `DO $do$ BEGIN EXECUTE ` + quoteLiteral(text) + `; END $do$`
		tx, err := c.Begin(r.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if _, err = tx.Exec(r.ctx(), `SELECT set_config('pgdist.ddl', $1, true)`, do); err == nil {
			_, err = tx.Exec(r.ctx(), do)
		}
		if err == nil {
			err = tx.Commit(r.ctx())
		} else {
			_ = tx.Rollback(r.ctx())
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		r.ack()
	}
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 || len(r.set.View().InSync) != 2 {
		t.Errorf("in sync are %v, and %v", r.set.View().InSync, said(rep))
	}
	r.same()
}

// A text is divided where the server divides it.
func TestPieces(t *testing.T) {
	r := newRig(t, 1, ``)
	c := pgtest.Connect(t, r.servers[0].DSN())
	for text, want := range map[string][]string{
		`a; b`:  {`a`, ` b`},
		`a;;b;`: {`a`, `b`},
		`'x;''y' ; E'\';' "q;"";" ; $$;$$ $t$ ; $$ ; $t$ b`:                                {`'x;''y' `, ` E'\';' "q;"";" `, ` $$;$$ $t$ ; $$ ; $t$ b`},
		"a -- ; c\n b; /* ; /* ; */ ; */ c":                                                {"a -- ; c\n b", `  c`},
		`create rule r as on insert to t do (a; b); c`:                                     {`create rule r as on insert to t do (a; b)`, ` c`},
		`create function f() begin atomic select case when a then b end; select 2; end; c`: {`create function f() begin atomic select case when a then b end; select 2; end`, ` c`},
		`a$1$ ; b`:      {`a$1$ `, ` b`},
		`type'\' ; b`:   {`type'\' `, ` b`},
		`'never ; ends`: {`'never `, ` ends`},
	} {
		var got []string
		if err := c.QueryRow(r.ctx(), `SELECT pgdist.pieces($1)`, text).Scan(&got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s\nis %q, want %q: %v", text, got, want, err)
		}
	}
	long := `create table t (` + strings.Repeat(`column_with_a_name int default 5, `, 5000) + `z int); b`
	var n int
	if err := c.QueryRow(r.ctx(), `SELECT cardinality(pgdist.pieces($1))`, long).Scan(&n); err != nil || n != 2 {
		t.Errorf("a long one has %d pieces: %v", n, err)
	}
}

// Which of them it is follows from their order, whatever else runs in between or is undone.
func TestSeveralStatementsOfOneKind(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE there (id int PRIMARY KEY); CREATE ROLE one; CREATE ROLE two`)
	c := r.client()
	for _, x := range []struct{ what, do string }{
		{"in turn", `EXECUTE 'create table in_turn1 (a int); create table in_turn2 (b text); create table in_turn3 (c date); comment on table in_turn1 is ''1''; comment on table in_turn3 is ''3''';`},
		{"again, in a loop", `FOR i IN 1 .. 3 LOOP EXECUTE 'drop table if exists looped1; drop table if exists looped2; create table looped1 (a int); create table looped2 (b int); alter table looped1 add x int; alter table looped2 add y int'; END LOOP;`},
		{"other names each", `FOR i IN 1 .. 3 LOOP EXECUTE format('create table named%1$s_a (a int); create table named%1$s_b (b int)', i); END LOOP;`},
		{"undone half-way", `FOR i IN 0 .. 2 LOOP BEGIN EXECUTE 'create table half1 (a int); create table half2 (b int); insert into there select 1 / current_setting(''my.ok'')::int; create table half3 (c int)'; EXCEPTION WHEN division_by_zero THEN PERFORM set_config('my.ok', i::text, true); END; EXIT WHEN to_regclass('half3') IS NOT NULL; END LOOP;`},
		{"the same undone", `FOR i IN 1 .. 2 LOOP BEGIN EXECUTE 'create table same1 (a int); create table same2 (b int)'; IF i = 1 THEN RAISE division_by_zero; END IF; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP;`},
		{"within each other", `EXECUTE 'create table outer1 (a int); do $x$ begin execute ''create table inner1 (a int); create table inner2 (b int)''; end $x$; create table outer2 (b int); do $x$ begin execute ''create table inner3 (a int); create table inner4 (b int)''; end $x$; create table outer3 (c int)';`},
		{"none of its own", `EXECUTE 'create table rights1 (a int); create table rights2 (a int); grant one to two; grant connect on database ' || current_database() || ' to one; grant select on rights1 to one; comment on role one is ''x''; comment on table rights1 is ''on database''; comment on /* on role */ table rights2 is ''x''; create /* a */ table rights3 /* b */ (a int); grant select on rights2 to two; revoke one from two; revoke select on rights1 from one; reassign owned by one to two; drop owned by one; create table rights4 (a int)';`},
		{"selected", `EXECUTE 'select 1; create table selected1 (a int); select 2; create table selected2 as select 3 as a; select 4; create table selected3 as select 5 as a';`},
		{"replaced", `EXECUTE 'create function replaced() returns int language sql as ''select 1''; create or replace function replaced() returns int language sql as ''select 2; select 3''; create view replaced1 as select 1 as a; create or replace view replaced1 as select replaced() as a';`},
		{"of an extension", `EXECUTE 'create table extended1 (a int); create extension intarray; create table extended2 (a int[]); create index on extended2 using gin (a gin__int_ops); grant execute on function icount(int[]) to one; create function extended() returns int language sql as ''select icount(array[1])''; create extension pg_stat_statements; grant select on pg_stat_statements to one; create view extended3 as select 1 as a';`},
		{"skipped", `EXECUTE 'create table skipped1 (a int); create table if not exists skipped1 (b int); create table skipped2 (c int); drop table if exists skipped3; drop table if exists skipped2; create table skipped2 (d int)';`},
		{"temporary", `EXECUTE 'create temp table passing1 (a int); create table staying1 (a int); create temp table passing2 (a int); create table staying2 (b int); grant select on passing1 to one; grant select on staying2 to one; drop table passing1; drop table staying1; drop table passing2';`},
		{"temporary, twice", `FOR i IN 1 .. 2 LOOP EXECUTE 'create temp sequence tempseq; create temp table temptab (a int default nextval(''tempseq'')); grant all on table temptab to public; grant all on table tempseq to public; drop table temptab; drop sequence tempseq'; END LOOP;`},
		{"views made anew", `EXECUTE 'create materialized view filled1 as select 1 as a; create materialized view filled2 as select 2 as a; refresh materialized view filled1; refresh materialized view filled2; create unique index on filled2 (a); create unique index on filled1 (a)';`},
		{"functions call some", `CREATE FUNCTION calls(n int) RETURNS int LANGUAGE plpgsql AS $f$ BEGIN IF n > 0 THEN EXECUTE format('create table calls%1$s_a (a int); select calls(%2$s); create table calls%1$s_b (b int)', n, n - 1); END IF; RETURN n; END $f$; PERFORM calls(3);`},
	} {
		r.do(c, `SET my.ok = 0`)
		r.ddl(c, `DO $do$ BEGIN `+x.do+` END $do$`)
		if n := len(r.set.View().InSync); n != 2 {
			t.Fatalf("%s: %d in sync", x.what, n)
		}
		if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
			t.Fatalf("%s: %v", x.what, said(rep))
		}
	}
	for rel, want := range map[string]string{"half3": "c", "same2": "b", "looped2": "b,y", "in_turn2": "b", "outer2": "b", "inner4": "b", "skipped2": "d", "staying1": "", "staying2": "b", "calls2_b": "b", "selected3": "a"} {
		got := asked(r, 2, `SELECT coalesce(string_agg(attname, ',' ORDER BY attnum), '') FROM pg_attribute WHERE attrelid = to_regclass('`+rel+`') AND attnum > 0 AND NOT attisdropped`)
		if got != want {
			t.Errorf("%s has columns %q on a follower, want %q", rel, got, want)
		}
	}
	if got := asked(r, 2, `SELECT relacl::text FROM pg_class WHERE relname = 'staying2'`); !strings.Contains(got, "one=r/") {
		t.Errorf("privileges of staying2 on a follower: %s", got)
	}
	r.same()
}

// asked is a member's answer of one text.
func asked(r *rig, id health.MemberID, sql string) (s string) {
	r.t.Helper()
	c := pgtest.Connect(r.t, r.server(id).DSN())
	if err := c.QueryRow(r.ctx(), sql).Scan(&s); err != nil {
		r.t.Fatalf("member %d: %s: %v", id, sql, err)
	}
	return s
}

// Of what is temporary no follower knows, nor does an event trigger tell of a GRANT what it is about.
func TestPrivilegesOnWhatIsTemporary(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE "to" (a int, b int); CREATE TABLE kept (a int, b int); CREATE SEQUENCE kept_seq; CREATE ROLE one; CREATE SCHEMA s; CREATE TABLE s.deep (a int)`)
	c := r.client()
	for _, q := range []string{`CREATE TEMP TABLE passing (a int, b int)`, `CREATE TEMP SEQUENCE passing_seq`, `CREATE TEMP VIEW passing_view AS SELECT 1`, `CREATE TYPE pg_temp.passing_type AS (a int)`,
		`CREATE TEMP TABLE "On ""odd"", from" (a int)`, `CREATE TEMP TABLE kept_too (a int)`, `CREATE TEMP TABLE pass$ing$ (a int)`, `CREATE FUNCTION pg_temp.passing(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1'`} {
		r.do(c, q)
	}
	for _, q := range []string{
		`GRANT SELECT ON passing TO one`,
		`GRANT ALL ON TABLE passing_seq TO PUBLIC`,
		`GRANT USAGE ON SEQUENCE passing_seq TO one WITH GRANT OPTION`,
		`GRANT SELECT (a), UPDATE (a, b) ON passing TO one`,
		`grant select on passing_view, pg_temp.passing to one`,
		`REVOKE GRANT OPTION FOR SELECT ON passing FROM one CASCADE`,
		`GRANT USAGE ON TYPE pg_temp.passing_type TO one`,
		`GRANT EXECUTE ON FUNCTION pg_temp.passing(int, text) TO one`,
		`GRANT SELECT ON ALL TABLES IN SCHEMA pg_temp TO one`,
		`GRANT SELECT ON ALL TABLES IN SCHEMA s, pg_temp TO one`,
		`GRANT SELECT ON "On ""odd"", from", "to" TO one`,
		`GRANT SELECT (b), /* on passing to */ INSERT (a) ON -- from
			kept, passing /* to */ TO one`,
		`GRANT DELETE ON kept, passing, s . deep TO one`,
		`GRANT UPDATE ON public.kept TO one`, `GRANT INSERT /* /* to */ */ ON pass$ing$, kept TO one`,
		`GRANT USAGE ON SEQUENCE passing_seq, kept_seq TO one`,
		`DO $$ BEGIN GRANT DELETE ON passing, kept TO one; GRANT DELETE ON passing TO one; END $$`,
		`REVOKE SELECT ON passing, "to" FROM one RESTRICT`,
	} {
		r.ddl(c, q)
		if n := len(r.set.View().InSync); n != 2 {
			t.Fatalf("%s: %d in sync", q, n)
		}
	}
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
	const rights = `SELECT string_agg(relname || relacl::text || coalesce((SELECT string_agg(attname || attacl::text, ' ' ORDER BY attname) FROM pg_attribute WHERE attrelid = c.oid AND attacl IS NOT NULL), ''), ' ' ORDER BY relname)
		FROM pg_class c WHERE relacl IS NOT NULL AND relnamespace IN ('s'::regnamespace, 'public'::regnamespace)`
	got, want := asked(r, 2, rights), asked(r, 1, rights)
	if got != want {
		t.Errorf("a follower has %s, the leader %s", got, want)
	}
	for _, has := range []string{"deep{", "kept_seq{", "b{one=r/", "a{one=a/"} {
		if !strings.Contains(want, has) {
			t.Errorf("the leader has %s, without %s", want, has)
		}
	}
	r.same()
}

// What a text merely says is not what it does.
func TestNamedExtension(t *testing.T) {
	r := newRig(t, 2, ``)
	c := r.client()
	r.ddl(c, `DO $do$ BEGIN CREATE VIEW silent AS SELECT 'create extension x'::text AS a; CREATE TABLE told (a text DEFAULT 'alter extension x'); END $do$`)
	r.ddl(c, `CREATE TABLE dx (a text DEFAULT 'create extension x')`)
	r.ddl(c, `CREATE FUNCTION f7() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN ALTER EXTENSION citext SET SCHEMA public; END $f$`)
	r.do(c, `SET timezone_abbreviations = 'Australia'`, `SET transform_null_equals = on`)
	r.ddl(c, `CREATE TABLE zones (t timestamptz DEFAULT '2020-01-01 00:00 EST', a int CHECK (a = null))`)
	r.ack()
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
	r.same()
}

// What an ALTER has dropped is not taken for what a DROP of something temporary, that is not
// there, has dropped after it.
func TestDropOfNothingAfterAnAlter(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE counted (id serial PRIMARY KEY, what text)`)
	c := r.client()
	const alter = `ALTER TABLE counted ALTER id DROP DEFAULT, ALTER id TYPE text USING id::text`
	for _, q := range []string{`BEGIN`, `SELECT set_config('pgdist.ddl', '` + alter + `', true)`, alter, `DROP TABLE IF EXISTS pg_temp.tmp`, `COMMIT`} {
		if _, err := c.Exec(r.ctx(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	r.ack()
	r.same()
}

// What a statement only looks at while it runs may be temporary as well: the leader alone has it.
func TestDefinitionsByWhatIsTemporary(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE kept (a int, b int); CREATE TABLE shadowed (a int); CREATE SCHEMA s; CREATE TABLE s.passing (z text)`)
	c := r.client()
	r.do(c, `CREATE TEMP TABLE passing (a int, "b c" text)`, `CREATE TEMP TABLE pass$ing (a int)`, `CREATE TEMP TABLE shadowed (a int, b int)`, `CREATE FUNCTION pg_temp.twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'`)
	for _, q := range []string{
		`CREATE TABLE bad (LIKE passing)`, `CREATE TABLE bad (x int, LIKE /* a */ shadowed INCLUDING ALL)`, `CREATE TABLE bad (LIKE pg_temp.passing)`, `CREATE TABLE bad (LIKE pass$ing)`,
		`ALTER TABLE kept ALTER a TYPE bigint USING pg_temp.twice(a)`, `CREATE FUNCTION bad(x passing.a%TYPE) RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE FUNCTION bad(x int) RETURNS pg_temp.passing."b c" % TYPE LANGUAGE sql AS 'SELECT ''x'''`,
	} {
		_, err := c.Exec(r.ctx(), `DO $do$ BEGIN `+q+`; END $do$`)
		if sqlState(err) != "0A000" || !strings.Contains(err.Error(), "depends on something temporary") {
			t.Errorf("%s: %v", q, err)
		}
	}
	r.ddl(c, `DO $do$ BEGIN CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int REFERENCES parent); END $do$`)
	const own = `DO $do$ BEGIN EXECUTE format('ALTER TABLE child DISABLE TRIGGER %I', (SELECT min(tgname) FROM pg_trigger WHERE tgrelid = 'child'::regclass AND tgisinternal)); END $do$`
	if _, err := c.Exec(r.ctx(), own); sqlState(err) != "0A000" || !strings.Contains(err.Error(), "triggers of foreign keys cannot be named") {
		t.Errorf("%s: %v", own, err)
	}
	for _, q := range []string{
		`CREATE TABLE fine1 (LIKE s.passing)`, `CREATE TABLE fine2 (a text CHECK (a LIKE 'passing'), passing int)`, `CREATE TABLE fine3 (LIKE public.shadowed)`, `CREATE FUNCTION fine4(x kept.a%TYPE) RETURNS int LANGUAGE sql SET search_path = public, pg_temp AS 'SELECT 1'`,
		`ALTER TABLE kept ALTER a TYPE text USING a || ' pg_temp.twice'`, `CREATE TABLE fine5 AS SELECT * FROM passing`,
	} {
		r.ddl(c, `DO $do$ BEGIN `+q+`; END $do$`)
		if n := len(r.set.View().InSync); n != 2 {
			t.Fatalf("%s: %d in sync", q, n)
		}
	}
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
	r.same()
}
