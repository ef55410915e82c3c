package mirror

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A copy's partitions have their foreign keys under the names that they have at the source, those
// that they had before they were attached among them: DDL names them afterwards. And what is said of what every
// database has, and whose it is, is kept. What a copy cannot have as it was, and need not, is no difference.
func TestResyncKeepsNames(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE refd (k int PRIMARY KEY); CREATE TABLE par (k int CONSTRAINT fk1 REFERENCES refd, l int CONSTRAINT fk2 REFERENCES refd) PARTITION BY RANGE (k);
		CREATE TABLE one PARTITION OF par FOR VALUES FROM (0) TO (10); ALTER TABLE one RENAME CONSTRAINT fk1 TO x; ALTER TABLE one RENAME CONSTRAINT fk2 TO fk1; ALTER TABLE one RENAME CONSTRAINT x TO fk2;
		CREATE TABLE two (k int CONSTRAINT "Own 'k'" REFERENCES refd, l int CONSTRAINT own_l REFERENCES refd) PARTITION BY RANGE (l);
		CREATE TABLE below (k int, l int CONSTRAINT "lo""w" REFERENCES refd); COMMENT ON CONSTRAINT "lo""w" ON below IS 'it''s low\';
		ALTER TABLE two ATTACH PARTITION below DEFAULT; ALTER TABLE par ATTACH PARTITION two FOR VALUES FROM (10) TO (20);
		CREATE COLLATION plain FROM "C"; CREATE TABLE tree (k int PRIMARY KEY) PARTITION BY RANGE (k); CREATE TABLE leaf PARTITION OF tree DEFAULT; CREATE TABLE late (k int);
		ALTER TABLE late ADD FOREIGN KEY (k) REFERENCES tree NOT VALID; ALTER TABLE late VALIDATE CONSTRAINT late_k_fkey;
		CREATE ROLE extender SUPERUSER; SET ROLE extender; CREATE EXTENSION hstore; RESET ROLE;
		COMMENT ON EXTENSION plpgsql IS 'ours'; COMMENT ON LANGUAGE plpgsql IS NULL; COMMENT ON EXTENSION hstore IS NULL; ALTER LANGUAGE plpgsql OWNER TO extender`)
	c := r.client()
	r.do(c, `INSERT INTO refd VALUES (1), (11)`, `INSERT INTO par VALUES (1, 1), (11, 1)`)
	r.replace(3)
	r.do(c, `INSERT INTO refd VALUES (2)`)
	r.ack()
	r.inSync(2)
	if _, err := r.resync(r.ctx(), 3, yes); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	const names = `SELECT string_agg(concat_ws(' ', conrelid::regclass, conname, conkey, obj_description(oid, 'pg_constraint')), ', ' ORDER BY conrelid::regclass::text, conname) || (SELECT string_agg(concat_ws(' ', extname, extowner::regrole, obj_description(oid, 'pg_extension')), ', ' ORDER BY extname) FROM pg_extension)
		|| (SELECT string_agg(concat_ws(' ', lanname, lanowner::regrole, obj_description(oid, 'pg_language')), ', ' ORDER BY lanname) FROM pg_language) FROM pg_constraint WHERE contype = 'f'`
	var want, got string
	for i, into := range []*string{&want, &got} {
		if err := pgtest.Connect(t, r.servers[2*i].DSN()).QueryRow(r.ctx(), names).Scan(into); err != nil {
			t.Fatal(err)
		}
	}
	if want != got {
		t.Errorf("keys are\n%s\nnot\n%s", got, want)
	}
	r.ddl(c, `ALTER TABLE par DETACH PARTITION two`)
	r.ddl(c, `ALTER TABLE two DROP CONSTRAINT "Own 'k'", DROP CONSTRAINT own_l`)
	r.inSync(3)
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
	r.ddl(c, `DROP TABLE late`)
	r.ddl(c, `DROP COLLATION plain`)
	r.same()
}

// A copy has the privileges of the source also where pg_dump is silent about them: of the functions that come
// with a range type, and of what extensions make, if default privileges had a part in them.
func TestResyncKeepsPrivileges(t *testing.T) {
	r := newRig(t, 3, `CREATE ROLE permits_a; CREATE ROLE "permits 'b'"; CREATE SCHEMA ours; GRANT USAGE ON SCHEMA ours TO PUBLIC;
		ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO permits_a; ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC; ALTER DEFAULT PRIVILEGES GRANT USAGE ON TYPES TO permits_a;
		CREATE EXTENSION hstore SCHEMA ours; CREATE EXTENSION pg_stat_statements SCHEMA ours; REVOKE EXECUTE ON FUNCTION ours.akeys(ours.hstore) FROM permits_a;
		CREATE TYPE ours.span AS RANGE (subtype = float8); CREATE TYPE untouched AS RANGE (subtype = int8); GRANT EXECUTE ON FUNCTION untouched(int8, int8, text) TO PUBLIC;
		GRANT EXECUTE ON FUNCTION ours.span(float8, float8) TO permits_a WITH GRANT OPTION; SET ROLE permits_a; GRANT EXECUTE ON FUNCTION ours.span(float8, float8) TO "permits 'b'" WITH GRANT OPTION; RESET ROLE;
		CREATE TABLE t (id int PRIMARY KEY, s ours.span)`)
	c := r.client()
	r.replace(3)
	r.do(c, `INSERT INTO t VALUES (1, '[1,2]')`)
	r.ack()
	r.inSync(2)
	if _, err := r.resync(r.ctx(), 3, yes); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
	const granted = `SELECT string_agg(concat_ws(' ', oid::regprocedure, proacl), ', ' ORDER BY oid::regprocedure::text) FROM pg_proc WHERE pronamespace = 'ours'::regnamespace`
	var want, got string
	for i, into := range []*string{&want, &got} {
		if err := pgtest.Connect(t, r.servers[2*i].DSN()).QueryRow(r.ctx(), granted).Scan(into); err != nil {
			t.Fatal(err)
		}
	}
	if want != got {
		t.Errorf("granted is\n%s\nnot\n%s", got, want)
	}
	r.ddl(c, `DROP OWNED BY permits_a, "permits 'b'"`)
	r.ddl(c, `DROP ROLE permits_a, "permits 'b'"`)
	r.ddl(c, `DROP TYPE untouched`)
	r.same()
}

// What a copy's definitions grant gets who had the name when they were read, and not who has it by the time
// at which they are made.
func TestResyncBesideRenamedRoles(t *testing.T) {
	r := newRig(t, 3, `CREATE ROLE renamed_a; CREATE TABLE w (id int PRIMARY KEY); GRANT INSERT ON w TO renamed_a; CREATE SCHEMA of_a AUTHORIZATION renamed_a`)
	r.replace(3)
	c := r.client()
	r.do(c, `INSERT INTO w VALUES (1)`) // which notices, had the other server come between two probes
	r.inSync(2)
	var once sync.Once
	res, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) {
		yes(o)
		o.Report = func(format string, args ...any) {
			t.Logf(format, args...)
			if strings.HasPrefix(format, "making the database") {
				once.Do(func() { r.do(c, `ALTER ROLE renamed_a RENAME TO renamed_b`, `CREATE ROLE renamed_a`) })
			}
		}
	})
	if err != nil || !res.InSync {
		t.Fatalf("%+v, %v", res, err)
	}
	r.ddl(c, `GRANT SELECT ON w TO renamed_a`)
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
}

// Roles that were dropped while a member could not be brought up to date are not left on its server by the
// copy: they would be back everywhere once it leads. What another database there needs stays, and is told.
func TestResyncDropsRoles(t *testing.T) {
	r := newRig(t, 3, `CREATE ROLE shed_gone SUPERUSER LOGIN; CREATE ROLE shed_needed; CREATE ROLE shed_renamed; GRANT shed_needed TO shed_renamed; CREATE TABLE w (id int PRIMARY KEY); GRANT SELECT ON w TO shed_renamed`)
	c := r.client()
	r.ddl(c, `GRANT INSERT ON w TO shed_renamed`)
	r.server(3).Exec(t, `CREATE ROLE shed_own`)
	r.server(3).Exec(t, `CREATE DATABASE beside OWNER shed_needed`)
	if err := r.set.expel(r.ctx(), r.set.View(), 3, []wound{{}}, "test"); err != nil {
		t.Fatal(err)
	}
	r.do(c, `DROP ROLE shed_gone`, `DROP ROLE shed_needed`, `ALTER ROLE shed_renamed RENAME TO shed_now`, `CREATE ROLE shed_renamed`)
	var said strings.Builder
	res, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) {
		yes(o)
		o.Report = func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
	})
	if err != nil || !res.InSync {
		t.Fatalf("%+v, %v", res, err)
	}
	var names string
	if err := pgtest.Connect(t, r.server(3).DSN()).QueryRow(r.ctx(), `SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname ~ '^(shed|pgdist)'`).Scan(&names); err != nil {
		t.Fatal(err)
	}
	if names != "shed_needed shed_now shed_own shed_renamed" {
		t.Errorf("roles: %s", names)
	}
	if !strings.Contains(said.String(), "use roles that the set has no more: shed_needed; they stay") {
		t.Errorf("said: %s", said.String())
	}
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", rep.Differences)
	}
}

// The same of a member that led, whose own list of roles is not what it had as the leader.
func TestResyncDropsRolesOfWhoLed(t *testing.T) {
	r := newRig(t, 3, `CREATE ROLE led_gone SUPERUSER LOGIN; CREATE TABLE w (id int PRIMARY KEY)`)
	if err := r.server(1).Kill(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	r.do(r.client(), `DROP ROLE led_gone`)
	r.set.Close() // or it would come back before it can be copied
	if err := r.server(1).StartAgain(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.resync(r.ctx(), 1, func(o *ResyncOptions) { yes(o); o.Wait = -1 }); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.inSync(3)
	var there bool
	if err := pgtest.Connect(t, r.server(1).DSN()).QueryRow(r.ctx(), `SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'led_gone')`).Scan(&there); err != nil || there {
		t.Errorf("the role is there: %v, %v", there, err)
	}
	r.same()
}
