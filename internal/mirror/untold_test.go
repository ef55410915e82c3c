package mirror

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A leader that does not know what others know roles by says so: they are not taken for others that
// have their names.
func TestRolesThatALeaderWasNotToldOf(t *testing.T) {
	r := newRig(t, 3, `CREATE ROLE untold; CREATE TABLE w (id int PRIMARY KEY); GRANT SELECT ON w TO untold`)
	r.do(r.client(), `ALTER ROLE untold CONNECTION LIMIT 7`)
	r.server(3).Exec(t, `DELETE FROM pgdist.roles`)
	if _, err := r.set.Switchover(r.ctx(), r.server(3).Addr(), ages); err != nil {
		t.Fatal(err)
	}
	c := r.client()
	r.do(c, `CREATE ROLE told_of`)
	r.ddl(c, `GRANT INSERT ON w TO told_of`)
	r.inSync(3)
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
	for _, s := range r.servers {
		var n int
		if err := pgtest.Connect(t, s.DSN()).QueryRow(r.ctx(), `SELECT count(*) FROM pg_roles WHERE rolname ~ '^pgdist'`).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d roles were set aside, %v", n, err)
		}
	}
}
