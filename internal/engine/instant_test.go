package engine

import (
	"testing"

	"github.com/pgdist/pgdist/classify"
)

// TestPlain: what is not certain to depend on nothing in the session, and to leave nothing
// behind in it, takes the ordinary way.
func TestPlain(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT v FROM t WHERE id = 1":                  true,
		"/* pgdist:leader */ SELECT 1":                  true,
		"VALUES (1), (2)":                               true,
		"WITH a AS (SELECT 1) TABLE a":                  true,
		"SELECT pg_sleep(1)":                            true,
		"":                                              false,
		"SELECT 1; SELECT 2":                            false,
		"SELECT v FROM t FOR UPDATE":                    false,
		"SELECT nextval('s')":                           false,
		"SELECT currval('s')":                           false,
		"SELECT set_config('a.b', 'c', false)":          false,
		"SELECT pg_advisory_lock(1)":                    false,
		"SELECT setseed(0.5)":                           false,
		"SELECT mine(1)":                                false,
		"SELECT v INTO u FROM t":                        false,
		"WITH a AS (DELETE FROM t RETURNING 1) TABLE a": false,
		"SHOW TimeZone":                                 false,
		"SET TimeZone = 'UTC'":                          false,
		"BEGIN":                                         false,
		"COMMIT":                                        false,
		"EXPLAIN SELECT 1":                              false,
		"EXECUTE p":                                     false,
		"DEALLOCATE p":                                  false,
		"DECLARE c CURSOR FOR SELECT 1":                 false,
		"FETCH c":                                       false,
		"COPY t TO STDOUT":                              false,
		"LISTEN c":                                      false,
		"UPDATE t SET v = 1":                            false,
		"no statement at all":                           false,
	} {
		if got := Plain(classify.Parse(sql)); got != want {
			t.Errorf("%q: %t", sql, got)
		}
	}
}
