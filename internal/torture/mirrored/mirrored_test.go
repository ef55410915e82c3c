//go:build unix

// Package mirrored runs the torture workload through the driver over three
// real servers, with and without faults.
package mirrored

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
	"github.com/pgdist/pgdist/internal/torture"
)

var (
	seed = flag.Int64("torture.seed", 0, "seed of the torture runs; 0 picks one")
	long = flag.Duration("torture.for", 20*time.Second, "how long the run with faults goes on")
	only = flag.String("torture.only", "", "run only these operations, separated by commas; -name runs all but it")
)

// set starts n mirrored servers and opens them.
func set(t *testing.T, n int) ([]*pgtest.Server, mirror.Config, *sql.DB) {
	t.Helper()
	servers := pgtest.Set(t, n, pgtest.Options{Settings: map[string]string{"deadlock_timeout": "50ms"}})
	var cfg mirror.Config
	var hosts []string
	for _, s := range servers {
		c, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		cfg.Members = append(cfg.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, s.Addr())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := mirror.Init(ctx, cfg, mirror.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	db := door(t, hosts, cfg.Members[0].Conn.Database, "1", "")
	for _, q := range torture.Schema() {
		if _, err := db.ExecContext(ctx, q); err != nil {
			t.Fatalf("%v\n%s", err, q)
		}
	}
	return servers, cfg, db
}

// door opens a set once more, as a program of its own would.
func door(t *testing.T, hosts []string, database, name, more string) *sql.DB {
	t.Helper()
	conf, err := driver.ParseConfig("pgdist://postgres@" + strings.Join(hosts, ",") + "/" + database + "?sslmode=disable" + more)
	if err != nil {
		t.Fatal(err)
	}
	conf.Logger = slog.New(slog.NewTextHandler(writer{t, name}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	connector, err := driver.NewConnector(conf)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

type writer struct {
	t    *testing.T
	name string
}

func (w writer) Write(b []byte) (int, error) {
	w.t.Logf("%s: %s", w.name, b)
	return len(b), nil
}

func options(t *testing.T) torture.Options {
	o := torture.Options{Seed: *seed, Logf: t.Logf}
	if not, minus := strings.CutPrefix(*only, "-"); minus {
		o.Only = slices.DeleteFunc(torture.Names(), func(n string) bool { return n == not })
	} else if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	return o
}

// settled waits until all members are in sync and returns when they hold the same.
func settled(ctx context.Context, t *testing.T, cfg mirror.Config, servers []*pgtest.Server, db *sql.DB) {
	t.Helper()
	if err := rejoined(ctx, cfg, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, `SELECT nextval('torture_settle')`); err != nil && !strings.Contains(err.Error(), "42P01") {
		t.Fatal(err)
	}
	pgtest.SameBytes(t, servers...)
}

// rejoined waits until member i (all: -1) is in sync.
func rejoined(ctx context.Context, cfg mirror.Config, i int) error {
	var last string
	for {
		st, err := mirror.Inspect(ctx, cfg)
		ok := err == nil
		if err != nil {
			last = err.Error()
		} else {
			last = fmt.Sprintf("%v %+v", st.View, st.Members)
			for _, m := range st.Members {
				if (i < 0 || int(m.ID) == i+1) && !m.InSync {
					ok = false
				}
			}
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not in sync: %s: %w", last, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestWorkload(t *testing.T) {
	servers, cfg, db := set(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	o := options(t)
	o.Ops = 150
	h, err := torture.Run(ctx, db, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(h)
	if err := h.Check(ctx, db); err != nil {
		t.Error(err)
	}
	settled(ctx, t, cfg, servers, db)
}

func TestWorkloadUnderFaults(t *testing.T) {
	servers, cfg, db := set(t, 3)
	underFaults(t, servers, cfg, db, options(t))
}

// underFaults runs the workload while servers are killed, frozen and restarted, and
// compares with what the clients know, and all members.
func underFaults(t *testing.T, servers []*pgtest.Server, cfg mirror.Config, db *sql.DB, o torture.Options) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), *long+3*time.Minute)
	defer cancel()
	o.Duration, o.AllowDisconnects = *long, false
	faulty, stop := context.WithTimeout(ctx, *long)
	defer stop()
	done := make(chan error, 1)
	go func() {
		_, err := torture.Faults{Servers: servers, Seed: *seed, Every: time.Second, Away: time.Second, Logf: t.Logf,
			Rejoined: func(ctx context.Context, i int) error { return rejoined(ctx, cfg, i) }}.Run(faulty)
		done <- err
	}()
	h, err := torture.Run(ctx, db, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil && faulty.Err() == nil {
		t.Error(err)
	}
	t.Log(h)
	if err := rejoined(ctx, cfg, -1); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(o.Doors, db) {
		if err := h.Check(ctx, d); err != nil {
			t.Error(err)
		}
	}
	settled(ctx, t, cfg, servers, db)
}
