package mirror

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A server that crashes while its database is dropped, for a copy, keeps the rest of it:
// programs start all the same, and the member is copied afresh, unasked or by hand.
func TestInvalidDatabase(t *testing.T) {
	soon(t)
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY)`)
	invalid := func() {
		t.Helper()
		c := pgtest.Connect(t, r.server(3).DSN("template1"))
		for _, q := range []string{`UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'postgres'`, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'`} {
			if _, err := c.Exec(r.ctx(), q); err != nil {
				t.Fatal(err)
			}
		}
	}
	invalid()
	r.inSync(2)
	r.set.Close()
	r.open()
	if res, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) { o.Wait = ages }); err != nil || !res.InSync {
		t.Fatalf("%+v, %v", res, err)
	}
	r.inSync(3)
	r.reopen(func(c *Config) { c.AutoResync = true })
	before := r.set.View()
	invalid()
	r.back(before)
	r.same()
}
