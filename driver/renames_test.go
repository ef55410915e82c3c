package driver

import (
	"context"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestRenamesWaitForDDL renames what an open transaction has used by its old name:
// PostgreSQL locks neither schemas nor types for that, and followers, who see the
// rename first, would not know the name that the transaction's text has.
func TestRenamesWaitForDDL(t *testing.T) {
	db, servers := mirrored(t, "")
	ctx := context.Background()
	for _, c := range []struct {
		setup, uses, rename string
		fails               bool
	}{
		{`CREATE SCHEMA s`, `CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `ALTER SCHEMA s RENAME TO s2`, false},
		{`CREATE TYPE mood AS ENUM ('a')`, `CREATE TABLE moods (m mood PRIMARY KEY)`, `ALTER TYPE mood RENAME TO mood2`, false},
		{`CREATE SCHEMA p; CREATE DOMAIN d AS int`, `CREATE TABLE ds (d d PRIMARY KEY)`, `ALTER DOMAIN d SET SCHEMA p`, false},
		// What is used by then is not dropped, as it would be if it did not wait.
		{`CREATE TYPE colour AS ENUM ('a')`, `CREATE TABLE colours (m colour PRIMARY KEY)`, `DROP TYPE colour`, true},
		{`CREATE SCHEMA q`, `CREATE FUNCTION q.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `DROP SCHEMA q`, true},
		{`CREATE TYPE shade AS ENUM ('a')`, `DO $$ BEGIN CREATE TABLE shades (m shade PRIMARY KEY); END $$`, `ALTER TYPE shade RENAME TO shade2`, false},
		{`CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE VIEW gs AS SELECT g()`, `DO $$ BEGIN DROP FUNCTION g(); END $$`, true},
	} {
		if _, err := db.ExecContext(ctx, c.setup); err != nil {
			t.Fatal(err)
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(ctx, c.uses); err != nil {
			t.Fatal(err)
		}
		renamed := make(chan error, 1)
		go func() {
			_, err := db.ExecContext(ctx, c.rename)
			renamed <- err
		}()
		select {
		case err := <-renamed:
			if rerr := tx.Rollback(); rerr != nil {
				t.Error(rerr)
			}
			t.Fatalf("%s did not wait for the transaction that uses the name (%v)", c.rename, err)
		case <-time.After(300 * time.Millisecond):
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-renamed:
			if fails := err != nil; fails != c.fails {
				t.Error(c.rename, err)
			}
		case <-time.After(ages):
			t.Fatalf("%s still waits", c.rename)
		}
	}
	waitInSync(t, db, 3)
	pgtest.SameBytes(t, servers...)
}
