package classify

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewerDefinitions(t *testing.T) {
	for sql, want := range map[string]Statement{
		`CREATE TABLE t (a int, v int GENERATED ALWAYS AS (a * 2))`:                                                                                                                      {Class: DDL, Tag: "CREATE TABLE"},
		"-- new\n/* x */ create unlogged table if not exists s.t (a int, b int AS (a)) ;":                                                                                                {Class: DDL, Tag: "CREATE TABLE"},
		`CREATE TABLE t (id int, d daterange, PRIMARY KEY (id, d WITHOUT OVERLAPS))`:                                                                                                     {Class: DDL, Tag: "CREATE TABLE"},
		`ALTER TABLE ONLY "S x"."T""" ADD CHECK (a > 0) NOT ENFORCED`:                                                                                                                    {Class: DDL, Tag: "ALTER TABLE", Relations: []RelRef{{"S x", `T"`}}},
		`ALTER TABLE IF EXISTS Big ALTER COLUMN v SET EXPRESSION AS (a + 1)`:                                                                                                             {Class: DDL, Tag: "ALTER TABLE", Relations: []RelRef{{"", "big"}}},
		`CREATE OR REPLACE RECURSIVE VIEW s.v AS SELECT JSON_VALUE(j, '$.a;' RETURNING int) FROM t`:                                                                                      {Class: DDL, Tag: "CREATE VIEW"},
		`CREATE MATERIALIZED VIEW v AS SELECT * FROM JSON_TABLE(jsonb '[1]', '$[*]' COLUMNS (a int PATH '$')) x`:                                                                         {Class: DDL, Tag: "CREATE MATERIALIZED VIEW"},
		`CREATE FUNCTION f() RETURNS SETOF int BEGIN ATOMIC MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN UPDATE SET a = CASE WHEN true THEN 1 END RETURNING t.a; SELECT 2; END`: {Class: DDL, Tag: "CREATE FUNCTION"},
		`ALTER DEFAULT PRIVILEGES GRANT SELECT ON LARGE OBJECTS TO PUBLIC`:                                                                                                               {Class: DDL, Tag: "ALTER DEFAULT PRIVILEGES"},
		`ALTER STATISTICS s SET STATISTICS DEFAULT`:                                                                                                                                      {Class: DDL, Tag: "ALTER STATISTICS"},
		`ALTER OPERATOR = (a, a) SET (HASHES)`:                                                                                                                                           {Class: DDL, Tag: "ALTER OPERATOR"},
		`MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE RETURNING t.*`:                                                                                                     {Class: Write, Tag: "MERGE"},
		`WITH x AS (MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE RETURNING t.*) SELECT 1`:                                                                                {Class: Write, Tag: "SELECT"},
		`CREATE TABLE t (v int AS (1)); ALTER TABEL u`:                                                                                                                                   {},
		`CREATE TEMP VIEW v AS SELECT JSON_VALUE(j, '$.a' RETURNING int) FROM t`:                                                                                                         {},
		`CREATE VIEW pgdist.v AS SELECT JSON_VALUE(j, '$.a' RETURNING int) FROM t`:                                                                                                       {},
		`CREATE ROLE r NEWLY`:                                             {},
		`CREATE TABLE t (v int AS (1)`:                                    {Class: DDL, Tag: "CREATE TABLE"},
		`CREATE TABLE t (v int AS ('1)`:                                   {},
		`CREATE TEMP TABLE t (a int, v int GENERATED ALWAYS AS (a))`:      {},
		`CREATE TABLE t (v text DEFAULT ';' AS)`:                          {Class: DDL, Tag: "CREATE TABLE"},
		`ALTER TABLE pgdist.journal ALTER COLUMN v SET EXPRESSION AS (a)`: {},
		`CREATE TABEL t (a int)`:                                          {},
		`DROP TABLE t NOW`:                                                {},
	} {
		v := Parse(sql)
		got := Statement{Class: v.Class, Tag: v.Statements[0].Tag, Relations: v.Statements[0].Relations}
		if want.Class != v.Statements[0].Class || !cmp.Equal(got.Relations, want.Relations) || got.Tag != want.Tag || got.Class != want.Class {
			t.Errorf("%s\n%v, %s, %v", sql, got.Class, got.Tag, got.Relations)
		}
	}
}

// TestNewerAmongOthers: the statements of a string of which one is in newer words.
func TestNewerAmongOthers(t *testing.T) {
	sql := "-- first\n SELECT 1 ; CREATE TABLE t (a int, v int AS (a));; /* then */ INSERT INTO t VALUES (';') ; update t SET a = 1 RETURNING OLD.a;ALTER TABLE \"U\".w ADD CHECK (a > 0) NOT ENFORCED"
	v := Parse(sql)
	var got []string
	for i := range v.Statements {
		st := &v.Statements[i]
		got = append(got, st.Class.String()+" "+st.Tag+": "+st.Text(sql))
	}
	want := []string{
		"read SELECT: SELECT 1",
		"ddl CREATE TABLE: CREATE TABLE t (a int, v int AS (a))",
		"write INSERT: INSERT INTO t VALUES (';')",
		"write UPDATE: update t SET a = 1 RETURNING OLD.a",
		"ddl ALTER TABLE: ALTER TABLE \"U\".w ADD CHECK (a > 0) NOT ENFORCED",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if r := v.Statements[4].Relations; !cmp.Equal(r, []RelRef{{"U", "w"}}) {
		t.Error(r)
	}
	if v.Class != DDL {
		t.Error(v.Class)
	}
}
