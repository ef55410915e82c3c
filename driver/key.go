package driver

import "strings"

// dsnKey is the same for DSNs that differ in nothing but the scheme's name and
// the space around them.
func dsnKey(dsn string) string {
	dsn = strings.TrimSpace(dsn)
	for _, scheme := range []string{"pgdist://", "postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(dsn, scheme); ok {
			return "pgdist://" + rest
		}
	}
	return dsn
}
