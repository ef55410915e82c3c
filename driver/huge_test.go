//go:build !race

package driver

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// TestHugeValue: one value of 400 MB, and one of half as many bytes that need
// quoting. Not with the race detector, which would need several times the memory.
func TestHugeValue(t *testing.T) {
	db, servers := mirrored(t, "&sync_timeout=2m")
	run(t, db, "CREATE TABLE huge (k int PRIMARY KEY, v text, b bytea)")
	run(t, db, "INSERT INTO huge (k, v) SELECT 1, repeat('0123456789', 40000000)")
	run(t, db, `INSERT INTO huge (k, b) SELECT 2, convert_to(repeat('"\0', 60000000), 'UTF8')`)
	run(t, db, "UPDATE huge SET k = k + 10")
	const q = "SELECT k, length(v), md5(v), length(b), md5(b) FROM huge ORDER BY 1"
	want := contents(t, servers[0], q)
	for _, s := range servers[1:] {
		if got := contents(t, s, q); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	run(t, db, "TRUNCATE huge")
	pgtest.SameBytes(t, servers...)
}
