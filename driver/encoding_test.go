package driver

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestOtherEncodings: a database in LATIN1 is mirrored, definitions and functions that name what is no
// ASCII among it, for programs that are of its encoding and for those that are not.
func TestOtherEncodings(t *testing.T) {
	servers := pgtest.Set(t, 3, pgtest.Options{})
	var config mirror.Config
	var hosts []string
	for _, s := range servers {
		s.Exec(t, `CREATE DATABASE enc TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'`)
		c, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		c.Database = "enc"
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, s.Addr())
	}
	if _, err := mirror.Init(context.Background(), config, mirror.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, enc := range []string{"UTF8", "LATIN1", ""} {
		p := ""
		if enc != "" {
			p = "&client_encoding=" + enc
		}
		db, err := sql.Open(Name, "pgdist://postgres@"+strings.Join(hosts, ",")+"/enc?sslmode=disable"+unhurried+p)
		if err != nil {
			t.Fatal(err)
		}
		odd := "\u00e9\u00fc"
		if enc != "UTF8" {
			odd = "\xe9\x80"
		}
		for _, q := range []string{`DROP TABLE IF EXISTS "t` + odd + `"`, `CREATE TABLE "t` + odd + `" (k text PRIMARY KEY DEFAULT '` + odd + `')`, `INSERT INTO "t` + odd + `" DEFAULT VALUES`, `UPDATE "t` + odd + `" SET k = k || '` + odd + `'`,
			`CREATE OR REPLACE FUNCTION "f` + odd + `"() RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO "t` + odd + `" DEFAULT VALUES; RETURN '` + odd + `'; END $$`, `SELECT "f` + odd + `"()`, `DO $$ BEGIN CREATE TABLE IF NOT EXISTS "x` + odd + `" (k text DEFAULT '` + odd + `'); INSERT INTO "x` + odd + `" DEFAULT VALUES; END $$`,
			`SELECT * FROM "t` + odd + `"`, `CREATE ROLE "r` + odd + enc + `"`, `DROP ROLE "r` + odd + enc + `"`, `ALTER TABLE "t` + odd + `" FORCE ROW LEVEL SECURITY`, `SELECT 1/0 AS "` + odd + `"`} {
			want := ""
			switch {
			case strings.Contains(q, "FORCE"):
				want = "0A000"
			case strings.Contains(q, "1/0"):
				want = "22012"
			}
			if _, err := db.Exec(q); sqlState(err) != want || want == "" && err != nil {
				t.Errorf("%s: %q: %v", enc, q, err)
			}
		}
		var k string
		for range 5 { // of all members
			if err := db.QueryRow(`SELECT string_agg(k, ',' ORDER BY length(k) DESC) FROM "t`+odd+`" WHERE k <> $1`, "zz"+odd).Scan(&k); err != nil {
				t.Error(err)
			}
			if k != odd+odd+","+odd {
				t.Errorf("%s: %q", enc, k)
			}
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	set, err := mirror.Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	rep, err := set.Verify(context.Background(), mirror.VerifyOptions{})
	if err != nil || rep.Tables != 4 || len(rep.Differences) > 0 || len(rep.Unread) > 0 {
		t.Errorf("%+v %v", rep, err)
	}
}
