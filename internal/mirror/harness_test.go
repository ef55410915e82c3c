package mirror

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror/mirrortest"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// rig is a set of throw-away servers, mirrored.
type rig struct {
	t       *testing.T
	servers []*pgtest.Server
	cfg     Config
	set     *Set
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Helper()
	w.t.Logf("%s", b)
	return len(b), nil
}

// ages is how long a test waits for what is certain to happen, on however slow a machine.
const ages = 3 * time.Minute

// unhurried has nobody taken for lost who is only slow: on a machine that is busy with other
// tests, probes and applies take seconds now and then. Who is gone is noticed at once all the
// same; tests that have somebody stand still, or cut off, wait some seconds longer for it.
func unhurried(c *Config) {
	set(&c.Health.ProbeTimeout, 3*time.Second)
	set(&c.Health.SyncTimeout, 15*time.Second)
}

// newRig starts n servers, runs schema on each and makes a set of them.
func newRig(t *testing.T, n int, schema string) *rig {
	t.Helper()
	r := newRigOn(t, n, pgtest.Options{}, schema)
	if schemaSQL == embedded {
		mirrortest.CheckSync(t, r.servers...)
	}
	r.open()
	return r
}

// newRigOn makes a set of servers that are set up otherwise, for nobody yet to use.
func newRigOn(t *testing.T, n int, o pgtest.Options, schema string) *rig {
	t.Helper()
	r := &rig{t: t, servers: pgtest.Set(t, n, o)}
	for _, s := range r.servers {
		if schema != "" {
			s.Exec(t, schema)
		}
		conn, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		r.cfg.Members = append(r.cfg.Members, MemberConfig{Conn: conn})
	}
	r.cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	unhurried(&r.cfg)
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := Init(ctx, r.cfg, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) open() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	set, err := Open(ctx, r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.set = set
	r.t.Cleanup(set.Close)
}

func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	r.t.Cleanup(cancel)
	return ctx
}

// major is the servers' major version: of the oldest, should they differ.
func (r *rig) major() int {
	r.t.Helper()
	low := 0
	for _, s := range r.servers {
		var v int
		if err := pgtest.Connect(r.t, s.DSN("postgres")).QueryRow(r.ctx(), `SELECT current_setting('server_version_num')::int / 10000`).Scan(&v); err != nil {
			r.t.Fatal(err)
		}
		if low == 0 || v < low {
			low = v
		}
	}
	return low
}

// client connects to the present leader as an application's connection does.
func (r *rig) client() *pgx.Conn {
	r.t.Helper()
	return r.clientOf(r.set.View().Leader)
}

func (r *rig) clientOf(id health.MemberID) *pgx.Conn {
	r.t.Helper()
	cfg, err := pgx.ParseConfig(r.server(id).DSN())
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.RuntimeParams["pgdist.conn"] = uuid.NewString()
	c, err := pgx.ConnectConfig(r.ctx(), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx) // the server may be gone, as the test wanted
	})
	return c
}

func (r *rig) server(id health.MemberID) *pgtest.Server { return r.servers[id-1] }

// do runs statements on the leader and waits for their acknowledgement.
func (r *rig) do(c *pgx.Conn, sql ...string) {
	r.t.Helper()
	for _, q := range sql {
		if _, err := c.Exec(r.ctx(), q); err != nil {
			r.t.Fatalf("%s: %v", q, err)
		}
	}
	r.ack()
}

func (r *rig) ack() {
	r.t.Helper()
	if err := r.set.Ack(r.ctx(), r.set.View().Term, Change{Sequences: true}); err != nil {
		r.t.Fatal(err)
	}
}

// ddl runs one announced statement the way the engine does.
func (r *rig) ddl(c *pgx.Conn, sql string) {
	r.t.Helper()
	ctx := r.ctx()
	tx, err := c.Begin(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after a commit there is nothing to roll back
	if _, err := tx.Exec(ctx, "SELECT set_config('pgdist.ddl', $1, true)", sql); err != nil {
		r.t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, sql); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	if err := tx.Commit(ctx); err != nil {
		r.t.Fatal(err)
	}
	r.ack()
}

// same checks that all in-sync members hold the same bytes.
func (r *rig) same() {
	r.t.Helper()
	if err := r.set.Flush(r.ctx()); err != nil {
		r.t.Fatal(err)
	}
	var in []*pgtest.Server
	for _, id := range r.set.View().InSync {
		in = append(in, r.server(id))
	}
	pgtest.SameBytes(r.t, in...)
}

// back waits until all members are in sync again, one of which was left out after before: it
// may be that nobody sees it out, on a machine that is slow.
func (r *rig) back(before *health.View) {
	r.t.Helper()
	r.await("a member is left out and comes back", func() bool {
		v := r.set.View()
		return v.Epoch >= before.Epoch+2 && len(v.InSync) == len(r.servers)
	})
}

// inSync waits until the view has n members in sync.
func (r *rig) inSync(n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	for v := r.set.View(); len(v.InSync) != n; {
		var err error
		if v, err = r.set.WaitView(ctx, v.Epoch); err != nil {
			for _, m := range r.set.members.all() {
				r.t.Logf("%s: %+v", m.host, m.note.Load())
			}
			r.t.Fatalf("waiting for %d in sync, at %v: %v", n, r.set.View(), err)
		}
	}
}
