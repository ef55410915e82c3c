//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

const resyncTarget = 0.8

// resync measures a full copy of a member against pg_dump and pg_restore with as many
// jobs, from the same server to an empty one, taking turns.
func (b *bench) resync(ctx context.Context) (err error) {
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	rows := b.resyncMB * (1 << 20) / 8 / 128 // eight tables, about 128 bytes a row with its key
	var schema []string
	for i := range 8 {
		schema = append(schema, fmt.Sprintf("CREATE TABLE t%d (id bigint PRIMARY KEY, n int NOT NULL, at timestamptz NOT NULL, filler text NOT NULL)", i),
			fmt.Sprintf("INSERT INTO t%d SELECT g, g %% 1000, '2026-01-01'::timestamptz + g * interval '1 s', repeat(md5(g::text), 2) FROM generate_series(1, %d) g", i, rows),
			fmt.Sprintf("CREATE INDEX ON t%d (n)", i))
	}
	m, err := f.mirror(ctx, schema)
	if err != nil {
		return err
	}
	var ours, theirs, ratios []float64
	for range min(b.reps, 3) {
		c, err := m.cast(ctx)
		if err != nil {
			return err
		}
		d, err := b.dumpAndRestore(ctx, c.followers[0])
		if err != nil {
			return err
		}
		o, err := m.copyMember(ctx, c.followers[1])
		if err != nil {
			return err
		}
		b.say("a copy of %d MB: pg_dump and pg_restore %.1f s, pgdist resync %.1f s", b.resyncMB, d.Seconds(), o.Seconds())
		ours, theirs, ratios = append(ours, o.Seconds()), append(theirs, d.Seconds()), append(ratios, d.Seconds()/o.Seconds())
		if err := m.wait(ctx, "the set to be in sync", (*cast).complete); err != nil {
			return err
		}
	}
	b.verdict(verdict{What: fmt.Sprintf("speed of a copy of %d MB: pgdist resync to pg_dump -j2 | pg_restore -j2", b.resyncMB), Value: median(ratios), Unit: "×",
		Low: quantile(ratios, 0.25), High: quantile(ratios, 0.75), Target: resyncTarget}.judged())
	b.note("copies took pgdist %.1f s, pg_dump and pg_restore %.1f s (medians)", median(ours), median(theirs))
	return b.alike(ctx, m, "copies")
}

// copyMember copies a member afresh and tells how long that took, until the copy was complete.
func (m *mirrored) copyMember(ctx context.Context, s *pgtest.Server) (time.Duration, error) {
	var cfg mirror.Config
	for _, s := range m.servers {
		conn, err := pgx.ParseConfig(s.DSN())
		if err != nil {
			return 0, err
		}
		cfg.Members = append(cfg.Members, mirror.MemberConfig{Conn: &conn.Config})
	}
	began := time.Now()
	_, err := mirror.Resync(ctx, cfg, mirror.ResyncOptions{Member: s.Addr(), Force: true, Wait: -1, Confirm: func(string) error { return nil }})
	return time.Since(began), err
}

// dumpAndRestore does it with PostgreSQL's own tools, into a server of its own.
func (b *bench) dumpAndRestore(ctx context.Context, from *pgtest.Server) (took time.Duration, err error) {
	bin, err := pgtest.BinDir()
	if err != nil {
		return 0, err
	}
	to, err := pgtest.Launch(pgtest.Options{Databases: []string{database}, Settings: settings})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	dir, err := os.MkdirTemp("", "pgdist-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	dump := filepath.Join(dir, "dump")
	began := time.Now()
	for _, args := range [][]string{
		{"pg_dump", "-Fd", "-j2", "-N", "pgdist", "-f", dump, from.DSN()},
		{"pg_restore", "-j2", "-d", to.DSN(), dump},
	} {
		out, err := exec.CommandContext(ctx, filepath.Join(bin, args[0]), args[1:]...).CombinedOutput()
		if err != nil && args[0] == "pg_dump" {
			return 0, fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
	}
	took = time.Since(began)
	n, err := count(ctx, to, "SELECT count(*) FROM t7")
	if err == nil && n == 0 {
		err = errors.New("pg_restore brought nothing")
	}
	return took, err
}
