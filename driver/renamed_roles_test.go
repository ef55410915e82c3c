package driver

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
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

// TestRolesOfEarlierLeaders: a role is the same whoever leads. What was renamed, dropped or made anew
// under one leader, on a member that comes back under another, or led before, is what it is there.
func TestRolesOfEarlierLeaders(t *testing.T) {
	db, servers := mirrored(t, "")
	d := defined{t, db}
	d.session([]string{
		`CREATE ROLE a; CREATE ROLE b; CREATE ROLE c; CREATE ROLE e; GRANT ALL ON SCHEMA public TO a, b, c; GRANT a TO b WITH ADMIN OPTION; CREATE TABLE t (k int PRIMARY KEY, v int); GRANT SELECT ON t TO a; GRANT INSERT ON t TO b; GRANT UPDATE (v) ON t TO c; GRANT DELETE ON t TO e`,
		`CREATE SCHEMA of_b AUTHORIZATION b; CREATE TABLE of_b.t (k int PRIMARY KEY); ALTER TABLE of_b.t OWNER TO b; ALTER DEFAULT PRIVILEGES FOR ROLE b GRANT SELECT ON TABLES TO c; ALTER ROLE c SET work_mem = '3MB'`,
	})
	if pgtest.SameBytes(t, servers...); t.Failed() {
		t.FailNow()
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	numbers := func() (list []uint32) { // which a copy would change
		for _, s := range servers {
			var oid uint32
			if err := pgtest.Connect(t, s.DSN()).QueryRow(ctx, `SELECT oid FROM pg_database WHERE datname = current_database()`).Scan(&oid); err != nil {
				t.Fatal(err)
			}
			list = append(list, oid)
		}
		return list
	}
	before := numbers()
	var config mirror.Config
	for _, s := range servers {
		c, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
	}
	admin, err := mirror.Open(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	lead := func(i int) {
		t.Helper()
		for v := admin.View(); !v.Has(health.MemberID(i + 1)); {
			var err error
			if v, err = admin.WaitView(ctx, v.Epoch); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := admin.Switchover(ctx, servers[i].Addr(), ages); err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(ctx, `INSERT INTO t VALUES ($1)`, i); err != nil { // which finds the new leader
			t.Fatal(err)
		}
	}
	away := func(i int, while func()) {
		t.Helper()
		if err := servers[i].Kill(); err != nil {
			t.Fatal(err)
		}
		while()
		if err := servers[i].StartAgain(); err != nil {
			t.Fatal(err)
		}
		converge(ctx, t, servers)
	}
	away(2, func() {
		d.session([]string{
			`GRANT REFERENCES ON t TO b; GRANT TRUNCATE ON t TO c; ALTER ROLE b RENAME TO was_b; CREATE ROLE b; GRANT SELECT ON of_b.t TO b`,
			`DROP OWNED BY a; DROP ROLE a; CREATE ROLE a; GRANT TRIGGER ON t TO a`,
		})
		lead(1)
		d.session([]string{
			`ALTER ROLE c RENAME TO x; ALTER ROLE e RENAME TO c; ALTER ROLE x RENAME TO e; GRANT REFERENCES ON t TO e; CREATE ROLE brief; GRANT SELECT ON t TO brief; DROP OWNED BY brief; DROP ROLE brief; CREATE ROLE brief`,
		})
	})
	away(0, func() { // which led, and knows its roles by its own numbers
		d.session([]string{`GRANT SELECT ON t TO was_b; ALTER ROLE was_b RENAME TO again; ALTER ROLE b RENAME TO was_b; CREATE ROLE b; GRANT UPDATE ON t TO b`})
		lead(2)
		d.session([]string{`DROP OWNED BY brief; DROP ROLE brief; ALTER ROLE b RENAME TO brief; ALTER ROLE again RENAME TO b; GRANT DELETE ON t TO b`})
	})
	for i, n := range numbers() {
		if n != before[i] {
			t.Errorf("member %d was copied: its database was %d and is %d", i+1, before[i], n)
		}
	}
}
