//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // sql.Open("pgx", …)

	"github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

const (
	database = "bench"
	setSize  = 3  // servers of whoever replicates
	poolSize = 16 // connections, for everybody: the most clients
)

// settings are the same for every server: PostgreSQL's defaults where pgtest
// has smaller ones, so that checkpoints are as rare as in the field.
var settings = map[string]string{"shared_buffers": "128MB", "max_wal_size": "1GB"}

// fleet is what one part of a run needs; close ends all of it.
type fleet struct {
	closers []func() error
}

func (f *fleet) onClose(fn func() error) { f.closers = append(f.closers, fn) }

// close ends everything, the latest first.
func (f *fleet) close() error {
	var errs []error
	for i := len(f.closers) - 1; i >= 0; i-- {
		errs = append(errs, f.closers[i]())
	}
	f.closers = nil
	return errors.Join(errs...)
}

// launch starts n servers and fills them with the same data.
func (f *fleet) launch(ctx context.Context, n int, schema []string) ([]*pgtest.Server, error) {
	servers, err := pgtest.LaunchSet(n, pgtest.Options{Databases: []string{database}, Settings: settings})
	if err != nil {
		return nil, err
	}
	for _, s := range servers {
		f.onClose(s.Close)
	}
	for _, s := range servers {
		if err := execAll(ctx, s, append(schema, "VACUUM ANALYZE", "CHECKPOINT")); err != nil {
			return nil, err
		}
	}
	return servers, nil
}

func execAll(ctx context.Context, s *pgtest.Server, statements []string) error {
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return err
	}
	for _, q := range statements {
		if _, err := conn.Exec(ctx, q); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", q, err), conn.Close(ctx))
		}
	}
	return conn.Close(ctx)
}

// open opens a database; the fleet closes it if nobody did before.
func (f *fleet) open(driverName, dsn string) (*sql.DB, error) {
	db, err := sql.Open(driverName, dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(poolSize)
	db.SetMaxIdleConns(poolSize)
	f.onClose(db.Close)
	return db, nil
}

// openEach opens the database of each server.
func (f *fleet) openEach(driverName string, servers []*pgtest.Server) (dbs []*sql.DB, err error) {
	for _, s := range servers {
		db, err := f.open(driverName, s.DSN())
		if err != nil {
			return nil, err
		}
		dbs = append(dbs, db)
	}
	return dbs, nil
}

// mirrored is a set of servers with pgdist over them.
type mirrored struct {
	servers []*pgtest.Server
	dsn     string
	db      *sql.DB
}

// mirror launches servers and makes a set of them.
func (f *fleet) mirror(ctx context.Context, schema []string) (*mirrored, error) {
	servers, err := f.launch(ctx, setSize, schema)
	if err != nil {
		return nil, err
	}
	m := &mirrored{servers: servers}
	hosts := make([]string, len(servers))
	var cfg mirror.Config
	for i, s := range servers {
		hosts[i] = s.Addr()
		conn, err := pgx.ParseConfig(s.DSN())
		if err != nil {
			return nil, err
		}
		cfg.Members = append(cfg.Members, mirror.MemberConfig{Conn: &conn.Config})
	}
	if _, err := mirror.Init(ctx, cfg, mirror.InitOptions{}); err != nil {
		return nil, err
	}
	m.dsn = fmt.Sprintf("pgdist://postgres@%s/%s?sslmode=disable&pool_size=%d", strings.Join(hosts, ","), database, poolSize)
	if m.db, err = f.open(driver.Name, m.dsn); err != nil {
		return nil, err
	}
	return m, m.wait(ctx, "the set to be in sync", (*cast).complete)
}

// cast is who plays which part in a set.
type cast struct {
	leader    *pgtest.Server
	followers []*pgtest.Server // in sync
}

func (c *cast) complete() bool { return c.leader != nil && len(c.followers) == setSize-1 }

// cast asks the driver.
func (m *mirrored) cast(ctx context.Context) (*cast, error) {
	stats, err := driver.Stats(ctx, m.db)
	if err != nil {
		return nil, err
	}
	c := &cast{}
	for _, st := range stats {
		for _, s := range m.servers {
			switch {
			case s.Addr() != st.Host:
			case st.Leader:
				c.leader = s
			case st.InSync:
				c.followers = append(c.followers, s)
			}
		}
	}
	return c, nil
}

// setLimit bounds every wait for a set to react.
const setLimit = 5 * time.Minute

// wait asks until the set's cast is as wanted.
func (m *mirrored) wait(ctx context.Context, what string, ok func(*cast) bool) error {
	ctx, cancel := context.WithTimeout(ctx, setLimit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := m.cast(ctx)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if ok(c) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// sameBytes tells whether the servers hold the same, and the difference if not.
func sameBytes(ctx context.Context, servers []*pgtest.Server) (difference string, err error) {
	err = pgtest.CompareServers(ctx, servers...)
	var d *pgtest.DifferenceError
	if errors.As(err, &d) {
		return d.Error(), nil
	}
	return "", err
}
