package engine

import "testing"

func TestHasWord(t *testing.T) {
	for _, c := range []struct {
		sql, name string
		want      bool
	}{
		{"SELECT * FROM mv", "mv", true},
		{"SELECT * FROM MV m", "mv", true},
		{"select*from(mv)", "mv", true},
		{`SELECT * FROM "mv"`, "mv", true},
		{"SELECT * FROM s.mv", "mv", true},
		{"SELECT * FROM mvs", "mv", false},
		{"SELECT * FROM a_mv", "mv", false},
		{"SELECT mv1 FROM t", "mv", false},
		{"SELECT * FROM émv", "mv", false},
		{`SELECT * FROM "odd ""n"`, `odd "n`, true},
		{"m", "mv", false},
		{"", "mv", false},
	} {
		if got := hasWord(c.sql, c.name); got != c.want {
			t.Errorf("%q in %q: %v", c.name, c.sql, got)
		}
	}
}
