//go:build !race

package driver

import "testing"

// TestHugeValue: one value of 500 MB. Not with the race detector, which would need
// several times the memory; it takes a minute.
func TestHugeValue(t *testing.T) {
	db, servers := mirrored(t, "&sync_timeout=2m")
	run(t, db, "CREATE TABLE huge (k int PRIMARY KEY, v text)")
	run(t, db, "INSERT INTO huge SELECT 1, repeat('0123456789', 50000000)")
	const q = "SELECT k, length(v), md5(v) FROM huge"
	want := contents(t, servers[0], q)
	for _, s := range servers[1:] {
		if got := contents(t, s, q); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}
