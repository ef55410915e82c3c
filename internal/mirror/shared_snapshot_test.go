package mirror

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// What a batch tells of roles, privileges and event triggers is what its snapshot has: what
// is dropped meanwhile has its name there still, and followers can make it.
func TestSharedObjectsOfTheSnapshot(t *testing.T) {
	r := newRig(t, 2, "")
	c := r.client()
	for _, q := range []string{
		`CREATE ROLE boss SUPERUSER; CREATE ROLE bob; GRANT CREATE ON DATABASE postgres TO bob`, `CREATE SCHEMA "s""1"`,
		`CREATE FUNCTION "s""1"."evt ""2"() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
		`CREATE EVENT TRIGGER evt ON ddl_command_end EXECUTE FUNCTION "s""1"."evt ""2"(); ALTER EVENT TRIGGER evt OWNER TO boss`, `CREATE SCHEMA s2`,
	} {
		r.ddl(c, q)
	}
	leader := r.server(r.set.View().Leader)
	old := pgtest.Connect(t, leader.DSN())
	state := func() (s, marker string) {
		t.Helper()
		if err := old.QueryRow(r.ctx(), `SELECT pgdist.shared_state(), pgdist.shared_marker()`).Scan(&s, &marker); err != nil {
			t.Fatal(err)
		}
		return s, marker
	}
	if _, err := old.Exec(r.ctx(), `BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY`); err != nil {
		t.Fatal(err)
	}
	before, marker := state()
	r.ddl(c, `DROP EVENT TRIGGER evt`)
	r.do(c, `REVOKE CREATE ON DATABASE postgres FROM bob`, `DROP ROLE bob, boss`)
	r.ddl(c, `DROP FUNCTION "s""1"."evt ""2"()`)
	r.same()
	if after, m := state(); after != before || m != marker {
		t.Errorf("before %s %s\nafter %s %s", before, marker, after, m)
	}
}
