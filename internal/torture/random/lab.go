//go:build unix

package random

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	pgdist "github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// lab is running servers on which fresh databases are set up again and again.
type lab struct {
	members []*pgtest.Server
	plain   *pgtest.Server // nil: no reference
	logger  *slog.Logger   // of pgdist; nil discards
	// params are added to the DSN.
	params string
	n      int
}

// rig is one set of databases, ready for a client.
type rig struct {
	lab    *lab
	name   string
	config mirror.Config
	db     *sql.DB // through pgdist
	plain  *sql.DB
}

// on runs statements on a server's database "postgres".
func on(ctx context.Context, s *pgtest.Server, statements ...string) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	for _, q := range statements {
		if _, e := conn.Exec(ctx, q); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", q, e))
		}
	}
	return errors.Join(err, conn.Close(ctx))
}

// all are the servers, the reference last.
func (l *lab) all() []*pgtest.Server {
	if l.plain == nil {
		return l.members
	}
	return append(append([]*pgtest.Server{}, l.members...), l.plain)
}

// open makes an empty database on each server and a set of the members' ones.
func (l *lab) open(ctx context.Context) (*rig, error) {
	l.n++
	r := &rig{lab: l, name: fmt.Sprintf("rnd_%d", l.n)}
	var hosts []string
	if err := l.each(func(s *pgtest.Server) error { return on(ctx, s, "CREATE DATABASE "+r.name) }); err != nil {
		return nil, err
	}
	for _, s := range l.members {
		c, err := pgconn.ParseConfig(s.DSN(r.name))
		if err != nil {
			return nil, err
		}
		r.config.Members = append(r.config.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, s.Addr())
	}
	if _, err := mirror.Init(ctx, r.config, mirror.InitOptions{}); err != nil {
		return nil, err
	}
	conf, err := pgdist.ParseConfig("pgdist://postgres@" + strings.Join(hosts, ",") + "/" + r.name + "?sslmode=disable" + l.params)
	if err != nil {
		return nil, err
	}
	conf.Logger = l.logger
	connector, err := pgdist.NewConnector(conf)
	if err != nil {
		return nil, err
	}
	r.db = sql.OpenDB(connector)
	if l.plain != nil {
		r.plain, err = sql.Open("pgx", l.plain.DSN(r.name)+"&default_query_exec_mode=describe_exec")
	}
	return r, err
}

// close drops the databases and the roles.
func (r *rig) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := r.db.Close()
	if r.plain != nil {
		err = errors.Join(err, r.plain.Close())
	}
	return errors.Join(err, r.lab.each(func(s *pgtest.Server) error {
		return on(ctx, s, "DROP DATABASE "+r.name+" WITH (FORCE)",
			`DO $$ DECLARE r text; BEGIN FOR r IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'rnd\_%' LOOP EXECUTE format('DROP ROLE %I', r); END LOOP; END $$`)
	}))
}

// each runs f for all servers at once.
func (l *lab) each(f func(*pgtest.Server) error) error {
	errs := make([]error, len(l.all()))
	var wg sync.WaitGroup
	for i, s := range l.all() {
		wg.Go(func() { errs[i] = f(s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// same tells whether all databases hold the same bytes.
func (r *rig) same(ctx context.Context) error {
	var dsns []string
	for _, s := range r.lab.all() {
		dsns = append(dsns, s.DSN(r.name))
	}
	return pgtest.Compare(ctx, dsns...)
}
