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
	"github.com/pgdist/pgdist/internal/bench/pgpool"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

const (
	database = "postgres"
	clients  = 32
)

// contender is one way to have databases. begin makes it ready for a case: all
// of its servers up, equal and empty.
type contender struct {
	name    string
	servers []*pgtest.Server
	begin   func(ctx context.Context) (db *sql.DB, end func() (remark string), err error)
}

// empty is what a case begins with.
const empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC"

// wear uses up object and transaction numbers, on each server another lot.
func wear(ctx context.Context, servers []*pgtest.Server) error {
	for i, s := range servers {
		if err := execOn(ctx, s, strings.Repeat("CREATE TEMP TABLE worn (i int); DROP TABLE worn; SELECT pg_current_xact_id();", 3*i+1)); err != nil {
			return err
		}
	}
	return nil
}

func execOn(ctx context.Context, s *pgtest.Server, text string) error {
	c, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return err
	}
	_, err = c.PgConn().Exec(ctx, text).ReadAll()
	return errors.Join(err, c.Close(ctx))
}

func startAll(servers []*pgtest.Server) error {
	for _, s := range servers {
		if !s.Running() {
			if err := s.StartAgain(); err != nil {
				return err
			}
		}
	}
	return nil
}

func plainPostgres(servers []*pgtest.Server) *contender {
	c := &contender{name: "PostgreSQL", servers: servers}
	c.begin = func(ctx context.Context) (*sql.DB, func() string, error) {
		if err := errors.Join(startAll(servers), execOn(ctx, servers[0], empty)); err != nil {
			return nil, nil, err
		}
		db, err := sql.Open("pgx", servers[0].DSN())
		return db, func() string { return "" }, err
	}
	return c
}

// behindPgpool gives each case a pgpool of its own: what one does to it is not
// held against the next.
func behindPgpool(servers []*pgtest.Server) *contender {
	c := &contender{name: "pgpool-II", servers: servers}
	c.begin = func(ctx context.Context) (*sql.DB, func() string, error) {
		if err := startAll(servers); err != nil {
			return nil, nil, err
		}
		for _, s := range servers {
			if err := execOn(ctx, s, empty); err != nil {
				return nil, nil, err
			}
		}
		if err := wear(ctx, servers); err != nil {
			return nil, nil, err
		}
		pool, err := pgpool.Start(ctx, servers, pgpool.Options{Database: database, Children: clients})
		if err != nil {
			return nil, nil, err
		}
		db, err := sql.Open("pgx", pool.DSN())
		return db, func() string {
			remark := detached(ctx, pool.DSN())
			if err := pool.Stop(); err != nil {
				remark += "; " + err.Error()
			}
			return remark
		}, err
	}
	return c
}

// detached tells which servers pgpool no longer uses.
func detached(ctx context.Context, dsn string) string {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "pgpool no longer answers"
	}
	defer c.Close(ctx)
	all, err := c.PgConn().Exec(ctx, "SHOW pool_nodes").ReadAll() // which pgpool knows in the simple protocol only
	if err != nil || len(all) != 1 {
		return fmt.Sprint("pgpool does not tell its nodes: ", err)
	}
	var gone []string
	for _, row := range all[0].Rows {
		for i, f := range all[0].FieldDescriptions {
			if f.Name == "status" && string(row[i]) != "up" && string(row[i]) != "waiting" {
				gone = append(gone, fmt.Sprintf("server %s is %s to pgpool", row[0], row[i]))
			}
		}
	}
	return strings.Join(gone, ", ")
}

func behindPgdist(ctx context.Context, servers []*pgtest.Server) (*contender, error) {
	var cfg mirror.Config
	var hosts []string
	for _, s := range servers {
		conn, err := pgx.ParseConfig(s.DSN())
		if err != nil {
			return nil, err
		}
		cfg.Members = append(cfg.Members, mirror.MemberConfig{Conn: &conn.Config})
		hosts = append(hosts, s.Addr())
	}
	if _, err := mirror.Init(ctx, cfg, mirror.InitOptions{}); err != nil {
		return nil, err
	}
	dsn := "pgdist://postgres@" + strings.Join(hosts, ",") + "/" + database + "?sslmode=disable"
	c := &contender{name: "pgdist", servers: servers}
	c.begin = func(ctx context.Context) (*sql.DB, func() string, error) {
		db, err := sql.Open(driver.Name, dsn)
		if err == nil {
			err = startAll(servers)
		}
		if err == nil {
			err = inSync(ctx, db, len(servers))
		}
		if err == nil {
			_, err = db.ExecContext(ctx, empty)
		}
		if err == nil {
			err = wear(ctx, servers)
		}
		return db, func() string { return "" }, err
	}
	return c, nil
}

// inSync waits until the set is complete.
func inSync(ctx context.Context, db *sql.DB, n int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		stats, err := driver.Stats(ctx, db)
		have := 0
		for _, m := range stats {
			if m.InSync {
				have++
			}
		}
		if err == nil && have == n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d members in sync: %w", have, n, errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
