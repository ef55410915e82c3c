package driver

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// shuffled change memberships into others of the same words: who is in whom, and what a
// membership allows.
var shuffled = []struct {
	sql   string
	major int
}{
	{`CREATE ROLE a; CREATE ROLE b; CREATE ROLE c; GRANT a TO b; GRANT a TO c WITH ADMIN OPTION`, 13},
	{`REVOKE a FROM b; GRANT b TO a`, 13},
	{`REVOKE b FROM a; GRANT a TO b WITH ADMIN OPTION`, 13},
	{`REVOKE INHERIT OPTION FOR a FROM b`, 16},
	{`REVOKE SET OPTION FOR a FROM b`, 16},
	{`REVOKE ADMIN OPTION FOR a FROM b; GRANT a TO b WITH SET TRUE`, 16},
	{`GRANT a TO b WITH INHERIT TRUE, SET FALSE`, 16},
	{`SET ROLE c; GRANT a TO b WITH SET TRUE, INHERIT FALSE; RESET ROLE`, 16},
	{`GRANT a TO c WITH ADMIN TRUE, INHERIT TRUE, SET FALSE`, 16},
	{`GRANT a TO c WITH INHERIT FALSE, SET TRUE`, 16},
}

// TestMemberships: memberships of roles are the same on all servers, as is what they allow.
func TestMemberships(t *testing.T) {
	ctx := context.Background()
	db, servers := mirrored(t, "")
	var major int
	if err := db.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&major); err != nil {
		t.Fatal(err)
	}
	d := defined{t, db}
	for _, s := range shuffled {
		if major < s.major {
			continue
		}
		d.session([]string{`BEGIN; ` + s.sql + `; COMMIT`})
		var want string
		for i, server := range servers {
			c, err := pgx.Connect(ctx, server.DSN())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(ctx)
			var got string
			if err := c.QueryRow(ctx, `SELECT string_agg(concat_ws(' ', m.roleid::regrole, m.member::regrole, m.grantor::regrole, to_jsonb(m) - '{oid,roleid,member,grantor}'::text[]), E'\n' ORDER BY m.roleid::regrole::text, m.member::regrole::text, m.grantor::regrole::text)
				FROM pg_auth_members m WHERE m.roleid >= 16384`).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				want = got
			} else if got != want {
				t.Errorf("after %s server %d has\n%s\nthe leader\n%s", s.sql, i+1, got, want)
			}
		}
	}
}
