package driver

import (
	"context"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestRenamedRoles: DDL is about the roles that it named when it was run, on a member that
// finds them renamed already, too, and though a name is another role's by then.
func TestRenamedRoles(t *testing.T) {
	db, servers := mirrored(t, "")
	d := defined{t, db}
	d.session([]string{
		`CREATE ROLE r1 PASSWORD 'x'; CREATE ROLE r2; CREATE ROLE r3; GRANT ALL ON SCHEMA public TO r1, r2, r3; CREATE TABLE t (k int); CREATE TABLE u (k int)`,
		`BEGIN; GRANT SELECT ON t TO r1; SET ROLE r1; CREATE TABLE own (k int PRIMARY KEY); RESET ROLE; ALTER ROLE r1 RENAME TO r9; GRANT INSERT ON t TO r9; INSERT INTO own VALUES (1); COMMIT`,
	})
	if pgtest.SameBytes(t, servers...); t.Failed() {
		t.FailNow()
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, `GRANT UPDATE ON t TO r9`); err != nil {
		t.Fatal(err)
	}
	d.session([]string{`ALTER ROLE r9 RENAME TO r8`})
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if pgtest.SameBytes(t, servers...); t.Failed() {
		t.FailNow()
	}
	if err := servers[2].Kill(); err != nil {
		t.Fatal(err)
	}
	d.session([]string{
		`GRANT SELECT ON u TO r2; GRANT INSERT ON u TO r3; SET ROLE r2; CREATE TABLE of_r2 (k int); RESET ROLE; INSERT INTO of_r2 VALUES (1); DO $$ BEGIN ALTER TABLE own OWNER TO r3; END $$`,
		`ALTER ROLE r2 RENAME TO r; ALTER ROLE r3 RENAME TO r2; ALTER ROLE r RENAME TO r3; CREATE ROLE r1; GRANT DELETE ON u TO r1`,
	})
	if err := servers[2].StartAgain(); err != nil {
		t.Fatal(err)
	}
	converge(ctx, t, servers)
}

// TestRolesWhoseNameAnotherHas: what a role was given that is dropped by now, nobody gets who has
// its name since, on a member that missed it; and what it was given under one name goes when it
// is taken under another.
func TestRolesWhoseNameAnotherHas(t *testing.T) {
	db, servers := mirrored(t, "")
	d := defined{t, db}
	d.session([]string{`CREATE ROLE known; GRANT ALL ON SCHEMA public TO known; CREATE TABLE t (k int PRIMARY KEY); GRANT SELECT ON t TO known`})
	pgtest.SameBytes(t, servers...)
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	number := func() (oid uint32) { // which a copy would change
		if err := pgtest.Connect(t, servers[2].DSN()).QueryRow(ctx, `SELECT oid FROM pg_database WHERE datname = current_database()`).Scan(&oid); err != nil {
			t.Fatal(err)
		}
		return oid
	}
	before := number()
	if err := servers[2].Kill(); err != nil {
		t.Fatal(err)
	}
	d.session([]string{
		`GRANT UPDATE ON t TO known; SET ROLE known; CREATE TABLE own (k int); RESET ROLE; REASSIGN OWNED BY known TO postgres; DROP OWNED BY known; DROP ROLE known; CREATE ROLE known; GRANT INSERT ON t TO known`,
		`CREATE ROLE r2; GRANT SELECT ON t TO r2; ALTER ROLE r2 RENAME TO r3; CREATE ROLE r2; DROP OWNED BY r3; DROP ROLE r3`,
		`CREATE ROLE r4; GRANT DELETE ON t TO r4; ALTER ROLE r4 RENAME TO r5; DROP OWNED BY r5; DROP ROLE r5`,
	})
	if err := servers[2].StartAgain(); err != nil {
		t.Fatal(err)
	}
	converge(ctx, t, servers)
	if after := number(); after != before {
		t.Errorf("the member was copied: its database was %d and is %d", before, after)
	}
}

// TestRightsThatWentSince: DDL is run on followers with the rights that its role had, though
// what it was a member of, that it was a superuser, or might make schemas, is no more.
func TestRightsThatWentSince(t *testing.T) {
	db, servers := mirrored(t, "")
	d := defined{t, db}
	d.session([]string{
		`CREATE ROLE own; CREATE ROLE grp; CREATE ROLE m; GRANT own TO grp; CREATE TABLE t (k int PRIMARY KEY); ALTER TABLE t OWNER TO own`,
		`BEGIN; GRANT grp TO m; SET ROLE m; ALTER TABLE t ADD COLUMN a int; INSERT INTO t VALUES (1, 1); RESET ROLE; REVOKE grp FROM m; COMMIT`,
		`BEGIN; GRANT CREATE ON DATABASE postgres TO m; SET ROLE m; CREATE SCHEMA of_m; RESET ROLE; REVOKE CREATE ON DATABASE postgres FROM m; COMMIT`,
		`BEGIN; ALTER ROLE m SUPERUSER; SET ROLE m; ALTER TABLE t ADD COLUMN b int; RESET ROLE; ALTER ROLE m NOSUPERUSER; COMMIT`,
	})
	if pgtest.SameBytes(t, servers...); t.Failed() {
		t.FailNow()
	}
	if err := servers[2].Kill(); err != nil {
		t.Fatal(err)
	}
	d.session([]string{
		`GRANT grp TO m; SET ROLE m; ALTER TABLE t ADD COLUMN c int; RESET ROLE; REVOKE grp FROM m`,
		`ALTER ROLE m SUPERUSER; SET ROLE m; ALTER TABLE t ADD COLUMN d int; CREATE TABLE of_m (k int); RESET ROLE; ALTER ROLE m NOSUPERUSER; DROP TABLE of_m; DROP SCHEMA of_m; DROP OWNED BY m; DROP ROLE m`,
		`fails 42501: SET ROLE grp; CREATE EXTENSION hstore`,
	})
	if err := servers[2].StartAgain(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	converge(ctx, t, servers)
}
