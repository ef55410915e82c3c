package classify

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewerDefinitions(t *testing.T) {
	for sql, want := range map[string]Statement{
		`CREATE TABLE t (a int, v int GENERATED ALWAYS AS (a * 2))`:                       {Class: DDL, Tag: "CREATE TABLE"},
		"-- new\n/* x */ create unlogged table if not exists s.t (a int, b int AS (a)) ;": {Class: DDL, Tag: "CREATE TABLE"},
		`CREATE TABLE t (id int, d daterange, PRIMARY KEY (id, d WITHOUT OVERLAPS))`:      {Class: DDL, Tag: "CREATE TABLE"},
		`ALTER TABLE ONLY "S x"."T""" ADD CHECK (a > 0) NOT ENFORCED`:                     {Class: DDL, Tag: "ALTER TABLE", Relations: []RelRef{{"S x", `T"`}}},
		`ALTER TABLE IF EXISTS Big ALTER COLUMN v SET EXPRESSION AS (a + 1)`:              {Class: DDL, Tag: "ALTER TABLE", Relations: []RelRef{{"", "big"}}},
		`CREATE TABLE t (v int AS (1)); DROP TABLE u`:                                     {},
		`CREATE TEMP TABLE t (a int, v int GENERATED ALWAYS AS (a))`:                      {},
		`CREATE TABLE t (v text DEFAULT ';' AS)`:                                          {},
		`ALTER TABLE pgdist.journal ALTER COLUMN v SET EXPRESSION AS (a)`:                 {},
		`CREATE TABEL t (a int)`: {},
		`DROP TABLE t NOW`:       {},
	} {
		v := Parse(sql)
		got := Statement{Class: v.Class, Tag: v.Statements[0].Tag, Relations: v.Statements[0].Relations}
		if want.Class != v.Statements[0].Class || !cmp.Equal(got.Relations, want.Relations) || got.Tag != want.Tag || got.Class != want.Class {
			t.Errorf("%s\n%v, %s, %v", sql, got.Class, got.Tag, got.Relations)
		}
	}
}
