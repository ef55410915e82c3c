package driver

import (
	"context"
	"testing"
	"time"
)

// What ALTER ROLE and ALTER DATABASE … SET say holds for sessions that begin afterwards, on
// whichever connection that was there before; PostgreSQL docs, "ALTER ROLE".
func TestSessionsBeginWithNewDefaults(t *testing.T) {
	db, _ := mirrored(t, "")
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	begin := func() (read, written string) {
		t.Helper()
		c, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.QueryRowContext(ctx, `SELECT string_agg(current_setting('work_mem') || current_setting('intervalstyle'), ' ')`).Scan(&read); err != nil {
			t.Fatal(err)
		}
		if err := c.QueryRowContext(ctx, `/* pgdist: leader */ SELECT current_setting('work_mem') || current_setting('intervalstyle')`).Scan(&written); err != nil {
			t.Fatal(err)
		}
		return read, written
	}
	for range 20 {
		begin()
	}
	for _, x := range []struct {
		sql, want string
		soon      bool // not at once
	}{
		{`ALTER ROLE CURRENT_USER SET work_mem = '7MB'`, "7MBpostgres", false},
		{`ALTER DATABASE postgres SET intervalstyle = 'iso_8601'`, "7MBiso_8601", false},
		{`ALTER ROLE ALL SET work_mem = '9MB'`, "7MBiso_8601", false},
		{`DO $$ BEGIN ALTER ROLE CURRENT_USER RESET work_mem; END $$`, "9MBiso_8601", true},
	} {
		if _, err := db.ExecContext(ctx, x.sql); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(ages); x.soon && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if read, written := begin(); read == x.want && written == x.want {
				break
			}
		}
		for i := range 20 {
			if read, written := begin(); read != x.want || written != x.want {
				t.Errorf("after %s, session %d reads by %s and writes by %s, want %s", x.sql, i, read, written, x.want)
				break
			}
		}
	}
}
