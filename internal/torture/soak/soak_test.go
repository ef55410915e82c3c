//go:build linux

package soak

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
	"github.com/pgdist/pgdist/internal/torture"
)

var (
	seed  = flag.Int64("soak.seed", 0, "seed of the clients' and the faults' choices; 0 picks one")
	long  = flag.Duration("soak.for", 15*time.Second, "how long clients work, in all rounds together")
	round = flag.Duration("soak.round", 5*time.Second, "how long a round is")
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// run is one soak.
type run struct {
	t       *testing.T
	servers []*pgtest.Server
	gateway *Process
	name    string // of the database
}

// Many kinds of clients for a long time, servers killed meanwhile: nothing grows, nobody
// sees what he must not, and all databases hold what the clients were told.
func TestSoak(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Int64()
	}
	t.Logf("seed %d", *seed)
	r := begin(t)
	crowd := &Crowd{DSN: r.gateway.DSN(r.name, ""), Seed: uint64(*seed)}
	var rests []Sample
	var histories []*torture.History
	for i := range max(3, int(*long / *round)) {
		histories = append(histories, r.round(crowd, *seed+int64(i)))
		s, err := r.rest()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: %v", i, s)
		rests = append(rests, s)
		if t.Failed() {
			break
		}
	}
	t.Log(crowd)
	for _, err := range append(crowd.Wrong(), Growth(rests)...) {
		t.Error(err)
	}
	r.end(crowd, histories)
}

// begin starts three servers and a gateway over them.
func begin(t *testing.T) *run {
	t.Helper()
	r := &run{t: t, servers: pgtest.Set(t, 3, pgtest.Options{Settings: map[string]string{"deadlock_timeout": "50ms", "max_connections": "200"}})}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var cfg mirror.Config
	var hosts []string
	for _, s := range r.servers {
		c, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		cfg.Members = append(cfg.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, s.Addr())
		r.name = c.Database
	}
	if _, err := mirror.Init(ctx, cfg, mirror.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	var err error
	// What is kept for every text of a statement, up to that size, is soon all that it will ever be.
	dsn := fmt.Sprintf("pgdist://postgres@%s/%s?sslmode=disable&pool_size=16&cache_size=262144", strings.Join(hosts, ","), r.name)
	if r.gateway, err = Start(dsn, lines{t}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.gateway != nil {
			r.stop()
		}
	})
	db := r.door("")
	for _, q := range append(torture.Schema(), Tables...) {
		if _, err := db.ExecContext(ctx, q); err != nil {
			t.Fatalf("%v\n%s", err, q)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// stop ends the gateway, which must end well.
func (r *run) stop() {
	r.t.Helper()
	if err := r.gateway.Stop(); err != nil {
		r.t.Error("the gateway ended with: ", err)
	}
	r.gateway = nil
}

type lines struct{ t *testing.T }

func (w lines) Write(b []byte) (int, error) {
	w.t.Logf("gateway: %s", b)
	return len(b), nil
}

// door is a database/sql pool of connections to the gateway.
func (r *run) door(more string) *sql.DB {
	r.t.Helper()
	db, err := sql.Open("pgx", r.gateway.DSN(r.name, more))
	if err != nil {
		r.t.Fatal(err)
	}
	return db
}

// round lets all clients in, and faults, and returns when all are gone.
func (r *run) round(crowd *Crowd, seed int64) *torture.History {
	ctx, cancel := context.WithTimeout(r.t.Context(), *round+5*time.Minute)
	defer cancel()
	var doors []*sql.DB
	for _, mode := range []string{"cache_statement", "simple_protocol", "exec", "cache_describe", "describe_exec"} {
		doors = append(doors, r.door("&default_query_exec_mode="+mode))
	}
	faulty, stop := context.WithTimeout(ctx, *round)
	defer stop()
	faults, crowded := make(chan error, 1), make(chan struct{})
	go func() {
		_, err := torture.Faults{Servers: r.servers, Seed: seed, Every: time.Second, Away: time.Second, Logf: r.t.Logf,
			Rejoined: func(ctx context.Context, i int) error { return r.rejoined(ctx) }}.Run(faulty)
		faults <- err
	}()
	go func() {
		crowd.Visit(faulty)
		close(crowded)
	}()
	h, err := torture.Run(ctx, doors[0], torture.Options{Seed: seed, Duration: *round, Doors: doors[1:], Logf: r.t.Logf})
	<-crowded
	if e := <-faults; e != nil && faulty.Err() == nil {
		r.t.Error(e)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range doors {
		if err := d.Close(); err != nil {
			r.t.Error(err)
		}
	}
	for _, v := range h.Violations() {
		r.t.Error(v)
	}
	return h
}

// rejoined waits until the console says that all members are in sync.
func (r *run) rejoined(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, r.gateway.DSN("pgdist", "&default_query_exec_mode=simple_protocol"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it has been read from
	for {
		out, err := r.members(ctx, conn)
		if err != nil {
			return err
		}
		if len(out) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not in sync: %v: %w", out, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// members lists who is not in sync.
func (r *run) members(ctx context.Context, conn *pgx.Conn) (out []string, err error) {
	rows, err := conn.Query(ctx, "SHOW MEMBERS")
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m["in_sync"] != "yes" || m["usable"] != "yes" {
			out = append(out, fmt.Sprint(m["host"], " ", m["state"], " ", m["last_error"]))
		}
	}
	return out, nil
}

// rest waits until the gateway has nothing to do any more and measures it: it has come to
// rest when what it has in use does not become less for some seconds.
func (r *run) rest() (least Sample, err error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	if err := r.rejoined(ctx); err != nil {
		return least, err
	}
	const patience = 3 * time.Second
	for since := time.Now(); time.Since(since) < patience; {
		s, err := r.gateway.Sample()
		if err != nil {
			return least, err
		}
		for _, server := range r.servers {
			n, err := connections(ctx, server)
			if err != nil {
				return least, err
			}
			s.Connections += n
		}
		if least.Goroutines == 0 || s.Goroutines < least.Goroutines || s.Connections < least.Connections {
			least, since = s, time.Now()
		}
		if s.Heap < least.Heap {
			least.Heap, least.Objects = s.Heap, s.Objects
		}
		select {
		case <-ctx.Done():
			return least, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return least, nil
}

// connections counts those of clients to a server, the counter's own left out.
func connections(ctx context.Context, s *pgtest.Server) (n int, err error) {
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it has been read from
	err = conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(&n)
	return n, err
}

// end compares what the clients know with what is there.
func (r *run) end(crowd *Crowd, histories []*torture.History) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Minute)
	defer cancel()
	if err := r.rejoined(ctx); err != nil {
		r.t.Fatal(err)
	}
	db := r.door("")
	for _, h := range histories {
		if err := h.Check(ctx, db); err != nil {
			r.t.Error(err)
		}
	}
	// Behind everything that was acknowledged comes one more flush.
	if _, err := db.ExecContext(ctx, `INSERT INTO soak.visits (kind) VALUES ('the last')`); err != nil {
		r.t.Error(err)
	}
	if err := db.Close(); err != nil {
		r.t.Error(err)
	}
	conn, err := pgx.Connect(ctx, r.gateway.DSN(r.name, ""))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := crowd.Check(ctx, conn); err != nil {
		r.t.Error(err)
	}
	if err := conn.Close(ctx); err != nil {
		r.t.Error(err)
	}
	r.stop()
	pgtest.SameBytes(r.t, r.servers...)
}
