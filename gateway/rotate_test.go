package gateway

import (
	"context"
	"testing"
)

// With pool_rotate no two transactions of a session in a row have the same connection, on the
// leader or elsewhere, be there others or not; what a session is pinned to stays.
func TestRotate(t *testing.T) {
	t.Parallel()
	s := newSet(t, nil)
	one := &set{servers: s.servers, dsn: s.dsn + "&pool_size=1"}
	one.serve(t, nil)
	for name, s := range map[string]*set{"many": s, "one": one} {
		t.Run(name, func(t *testing.T) { rotates(t, s) })
	}
}

func rotates(t *testing.T, s *set) {
	ctx := context.Background()
	c := connect(t, s.url(""))
	pid := func(sql string) string {
		t.Helper()
		return ask(t, c, sql)
	}
	for _, sql := range []string{
		"/* pgdist: leader */ SELECT pg_backend_pid()::text",
		"SELECT pg_backend_pid()::text FROM txid_current()",
	} {
		before := ""
		for i := range 20 {
			now := pid(sql)
			if now == before {
				t.Errorf("%s, number %d: backend %s once more", sql, i, now)
			}
			before = now
		}
	}
	if _, err := c.Exec(ctx, "CREATE TEMP TABLE held (a int)"); err != nil {
		t.Fatal(err)
	}
	if a, b := pid("SELECT pg_backend_pid()::text"), pid("SELECT pg_backend_pid()::text"); a != b {
		t.Errorf("a session with a temporary table was at backend %s, and then at %s", a, b)
	}
}
