package classify

import "testing"

func TestNormalize(t *testing.T) {
	for sql, want := range map[string]string{
		"":                                       "",
		"SELECT 1":                               "SELECT ?",
		"select  a,\n b from t where c = 'x''y'": "select a, b from t where c = ?",
		"SELECT $1, 'a' -- secret":               "SELECT $1, ?",
		"/* secret */ SELECT E'\\'s', $$secret$$": "SELECT ?, ?",
		"CREATE ROLE r PASSWORD 'secret'":         "CREATE ROLE r PASSWORD ?",
		"ALTER ROLE r PASSWORD 'secret":           "ALTER ROLE r PASSWORD …",
		`SELECT 'a\' || secret`:                   "SELECT ?…",
		"SELECT 0xFF":                             "SELECT …",
		"SELECT 1.5e3 + .5; SELECT \"C\"":         "SELECT ? + ?; SELECT \"C\"",
		"DO $x$ secret $x$":                       "DO ?",
		"SELECT U&'secret'":                       "SELECT …",
	} {
		if got := Normalize(sql); got != want {
			t.Errorf("Normalize(%q) = %q, want %q", sql, got, want)
		}
	}
}
