package gateway

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/failpoint"
)

// endAtCommit ends, at the n-th COMMIT from now on, the processes of the leader's that are in a transaction.
func (s *set) endAtCommit(t *testing.T, admin *pgx.Conn, n int64) {
	t.Helper()
	var passed atomic.Int64
	failpoint.Watch(func(name string) {
		if strings.HasSuffix(name, "COMMIT is about to be sent") && passed.Add(1) == n {
			if _, err := admin.Exec(context.Background(), "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE state = 'idle in transaction'"); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() { failpoint.Watch(nil) })
}

// TestPartsAreCommittedOnce has the last COMMIT of what a client sends at once fail, for certain: if it
// was all, it is run again, unseen; if something was committed before, that is not run again.
func TestPartsAreCommittedOnce(t *testing.T) {
	s := newSet(t, nil)
	ctx := context.Background()
	conn := connect(t, s.url(""))
	admin := connect(t, s.servers[s.gateway.leader(t, s)].DSN())
	execute(t, conn, "CREATE TABLE parts (id int GENERATED ALWAYS AS IDENTITY, a text)")
	const one, two = "INSERT INTO parts (a) VALUES ('one')", "INSERT INTO parts (a) VALUES ('two')"
	query := func(sql string) func() error {
		return func() error {
			_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
			return err
		}
	}
	pipeline := func(flush bool, list ...string) func() error {
		return func() error {
			p := conn.PgConn().StartPipeline(ctx)
			for _, sql := range list {
				p.SendQueryParams(sql, nil, nil, nil, nil)
			}
			if flush {
				p.SendFlushRequest()
				if err := p.Flush(); err != nil {
					return err
				}
			}
			err := p.Sync()
			for err == nil {
				var r any
				if r, err = p.GetResults(); r == nil && err == nil {
					break
				}
				if r, ok := r.(*pgconn.ResultReader); ok {
					_, err = r.Close()
				}
				if _, ok := r.(*pgconn.PipelineSync); ok {
					break
				}
			}
			return errors.Join(err, p.Close())
		}
	}
	for _, c := range []struct {
		name string
		send func() error
		code string
		at   int64
		want string
	}{
		{"a Query", query(one), "", 1, "one"},
		{"a string", query(one + "; " + two), "", 1, "one two"},
		{"a string with a setting", query("SET work_mem = '1MB'; " + one + "; " + two), "", 1, "one two"},
		{"a string with COMMIT at its end", query(one + "; SET work_mem = '1MB'; COMMIT"), "", 1, "one"},
		{"a string with COMMIT within", query(one + "; COMMIT; " + two), "40001", 2, "one"},
		{"a string with two of them", query(one + "; COMMIT; " + two + "; COMMIT"), "40001", 2, "one"},
		{"a string with a block", query("BEGIN; " + one + "; COMMIT; " + two), "40001", 2, "one"},
		{"a pipeline", pipeline(false, one, two), "", 1, "one two"},
		{"a pipeline with a setting", pipeline(false, one, "SET work_mem = '1MB'", two), "", 1, "one two"},
		{"a pipeline with a setting at its end", pipeline(false, one, "SET work_mem = '1MB'"), "", 1, "one"},
		{"a pipeline with a Flush", pipeline(true, one, two), "40001", 1, ""},
		{"a pipeline with COMMIT within", pipeline(false, one, "COMMIT", two), "40001", 2, "one"},
	} {
		execute(t, conn, "TRUNCATE parts")
		s.endAtCommit(t, admin, c.at)
		err := c.send()
		failpoint.Watch(nil)
		if got := ""; err != nil {
			if got = code(err); got != c.code {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if c.code != "" {
			t.Errorf("%s succeeded", c.name)
		}
		var got string
		if err := conn.QueryRow(ctx, "SELECT coalesce(string_agg(a, ' ' ORDER BY id), '') FROM parts").Scan(&got); err != nil || got != c.want {
			t.Errorf("%s: there is %q instead of %q (%v)", c.name, got, c.want, err)
		}
	}
}
