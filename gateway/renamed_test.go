package gateway

import "testing"

func TestRenamed(t *testing.T) {
	for _, x := range [][2]string{
		{`prepared statement "pgdist_1a" does not exist`, `prepared statement "mine" does not exist`},
		{`vorbereitete Anweisung »pgdist_1a« existiert nicht`, `vorbereitete Anweisung »mine« existiert nicht`},
		{`"pgdist_1ab" and "pgdist_1a"`, `"pgdist_1ab" and "mine"`},
		{`pgdist_1a`, `mine`},
		{`nothing`, `nothing`},
	} {
		if got := renamed(x[0], "pgdist_1a", "mine"); got != x[1] {
			t.Errorf("%s: %s", x[0], got)
		}
	}
}
