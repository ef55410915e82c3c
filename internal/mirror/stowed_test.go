package mirror

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// What an apply keeps in a setting, and makes statements of as a superuser, cannot be set by users'
// code that runs in between.
func TestSettingsOfAnApplyAreNotUsers(t *testing.T) {
	r := newRig(t, 1, `CREATE TABLE t (id int PRIMARY KEY, v int); ALTER TABLE t ADD CONSTRAINT late CHECK (v > 0) NOT VALID; CREATE PUBLICATION p FOR TABLE t`)
	for name, pair := range map[string][2]string{
		"pgdist.relaxed":  {`SELECT pgdist.relax()`, `SELECT pgdist.tighten()`},
		"pgdist.withheld": {`SELECT pgdist.withhold()`, `SELECT pgdist.publish_again()`},
	} {
		for set, want := range map[string]string{
			``: "",
			`SELECT set_config('` + name + `', '[[1, "x", "CHECK (true); ALTER ROLE u SUPERUSER", null, false]]', true)`:                                  "42501",
			`SELECT set_config('` + name + `', overlay(current_setting('` + name + `') PLACING '[]' FROM 65), true)`:                                      "42501",
			`SELECT set_config('` + name + `', (SELECT current_setting('pgdist.other', true)), true) WHERE current_setting('pgdist.other', true) IS NULL`: "42501",
		} {
			c := pgtest.Connect(t, r.servers[0].DSN())
			for _, q := range []string{`SELECT pgdist.apply_session()`, `BEGIN`, pair[0]} {
				if _, err := c.Exec(r.ctx(), q); err != nil {
					t.Fatalf("%s: %v", q, err)
				}
			}
			if set != "" {
				if _, err := c.Exec(r.ctx(), set); err != nil {
					t.Fatalf("%s: %v", set, err)
				}
			}
			_, err := c.Exec(r.ctx(), pair[1])
			if got := sqlState(err); got != want {
				t.Errorf("%s after %q: %v", pair[1], set, err)
			}
			if _, err := c.Exec(r.ctx(), `ROLLBACK`); err != nil {
				t.Fatal(err)
			}
		}
	}
}
