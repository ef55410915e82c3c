package mirror

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// EXECUTE may be given several statements in one string. The one that an event trigger hears of
// is journaled, and no other.
func TestSeveralStatementsInOneString(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE there (id int PRIMARY KEY)`)
	c := r.client()
	for _, x := range []struct {
		text  string
		fails bool
	}{
		{`create table a1 (a int); insert into a1 values (1)`, false},
		{`create table a2 (a int); insert into a2 values (1); alter table a2 add b int default 5;`, false},
		{`create table a3 (a int); create unique index a3_a on a3 (a); comment on table a3 is 'x; y'; insert into a3 values (7)`, false},
		{`create table a4 (a int); create table b4 (a int)`, true},
		{`insert into there values (5); create table a5 as select 1 as a; drop table a5;`, false},
		{`/* one; /* two; */ */ create function f1() returns int language plpgsql as $f$ begin perform 1; return 2; end $f$; insert into there select f1()`, false},
		{`create view v1 as select 'a;b' as x, E'c\';d' as y, 1 as "e;f" -- ;`, false},
		{`create table a6 (a int)  ;  `, false},
	} {
		do := `DO $do$ BEGIN EXECUTE ` + quoteLiteral(x.text) + `; END $do$`
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
		if x.fails != (sqlState(err) == "0A000") || !x.fails && err != nil {
			t.Errorf("%s: %v", x.text, err)
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
