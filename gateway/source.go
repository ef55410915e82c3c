package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/engine"
)

// source is a set that clients reach, under one name or several.
type source struct {
	engine       *engine.Engine
	dsn          string
	key          string // what the set is called where sets are told apart: a name that leads to it
	database     string
	owner        string // the DSN's user
	pool         engine.PoolConfig
	resultBuffer int
	hub          *hub
	flies        bool               // loops can carry out its reads
	tenants      map[string]*tenant // guarded by Server.mu
}

// openSource opens a set; name is the one that it is opened for, "" the DSN's.
func (s *Server) openSource(ctx context.Context, dsn, name string) (*source, error) {
	ec, err := engine.Parse(dsn)
	if err != nil {
		return nil, err
	}
	src := &source{dsn: dsn, database: ec.Members[0].Conn.Database, owner: ec.Members[0].Conn.User, tenants: map[string]*tenant{}}
	src.hub = newHub(s, src)
	src.key = src.database
	if name != "" && name != "*" {
		src.key = name
	}
	ec.Dial = func(ctx context.Context, config *pgx.ConnConfig) (engine.ServerConn, error) {
		return s.servers.dialOwn(ctx, src.key, config)
	}
	src.flies = loopsHelp(&ec) && (s.loops != nil || s.live.Load() == nil) // clients find loops, or none, once and for all
	if src.flies && s.loops == nil {
		if s.loops, err = newLoops(); err != nil {
			return nil, err
		}
	}
	if src.flies {
		ec.Wrap = s.loops.adopt
	}
	ec.Logger = s.log
	ec.Notice = func(text string) { s.history.add(src.key, "%s", text) }
	if name != "" {
		ec.Logger = s.log.With("database", src.key)
	}
	if src.engine, err = openEngine(ctx, ec); err != nil {
		return nil, err
	}
	ec = src.engine.Config()
	src.pool, src.resultBuffer = ec.Pool, ec.ResultBuffer
	return src, nil
}

// sets are the sets that clients reach. It is immutable.
type sets struct {
	list   []*source          // that of the DSN first
	byName map[string]*source // that have a DSN of their own in Config.DatabaseOptions
}

// names are those that lead to a set of their own which is src.
func (s *sets) names(src *source) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		if s.byName[name] == src {
			list = append(list, name)
		}
	}
	return list
}

// sources are all sets.
func (s *Server) sources() []*source {
	if sets := s.sets.Load(); sets != nil {
		return sets.list
	}
	return nil
}

// openSources opens the set of config.DSN and all others; on an error none stays open.
func (s *Server) openSources(ctx context.Context, config *Config) (err error) {
	if s.source, err = s.openSource(ctx, config.DSN, ""); err != nil {
		return err
	}
	s.sets.Store(&sets{list: []*source{s.source}})
	if _, err = s.openMore(ctx, config.DatabaseOptions); err != nil {
		err = errors.Join(err, s.closeSources())
	}
	return err
}

// openMore opens the sets of those names that lead to none of their own yet, and returns them. On
// an error all is as it was.
func (s *Server) openMore(ctx context.Context, options map[string]DatabaseOptions) (opened []*source, err error) {
	old := s.sets.Load()
	next := &sets{list: slices.Clone(old.list), byName: map[string]*source{}}
	maps.Copy(next.byName, old.byName)
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(options))) { // "*" last
		dsn := options[name].DSN
		if dsn == "" || next.byName[name] != nil {
			continue
		}
		i := slices.IndexFunc(next.list, func(src *source) bool { return src.dsn == dsn }) // a set is opened once
		if i < 0 {
			src, err := s.openSource(ctx, dsn, name)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("database %s: %w", name, err), closeAll(opened))
			}
			i, opened, next.list = len(next.list), append(opened, src), append(next.list, src)
		}
		next.byName[name] = next.list[i]
	}
	s.sets.Store(next)
	return opened, nil
}

func (s *Server) closeSources() error { return closeAll(s.sources()) }

func closeAll(list []*source) error {
	var errs []error
	for _, src := range list {
		errs = append(errs, src.engine.Close())
	}
	return errors.Join(errs...)
}

// find returns the set that a database's name leads to, nil if there is none: one of its own, the
// DSN's, "*".
func (s *Server) find(name string) *source {
	c := s.conf()
	if src := s.named(name); src != nil {
		return src
	}
	_, listed := c.DatabaseOptions[name]
	if name == s.database || listed || slices.Contains(c.Databases, name) {
		return s.source
	}
	if src := s.named("*"); src != nil {
		return src
	}
	if _, all := c.DatabaseOptions["*"]; all || slices.Contains(c.Databases, "*") {
		return s.source
	}
	return nil
}

// named is the set of that name in the configuration.
func (s *Server) named(name string) *source { return s.sets.Load().byName[name] }

// leads tells whether a database's name leads to a set.
func (s *Server) leads(name string) bool { return s.find(name) != nil }

// each calls f for every member of every set.
func (s *Server) eachMember(f func(src *source, m engine.MemberStats)) {
	for _, src := range s.sources() {
		for _, m := range src.engine.Stats() {
			f(src, m)
		}
	}
}

// tenantOf is the user of a client.
func (s *Server) tenantOf(src *source, user string) *tenant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return src.tenants[user]
}

// tenant returns the connections of a user, as which cred is good.
func (s *Server) tenant(src *source, user string, cred *credential) (*tenant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := src.tenants[user]; t != nil {
		t.set(cred)
		return t, nil
	}
	t := &tenant{cred: cred}
	pool := src.pool
	if wait := s.conf().QueryWaitTimeout; wait != 0 {
		pool.WaitTimeout = wait
	}
	et, err := src.engine.NewTenant(user, pool, func(ctx context.Context, config *pgx.ConnConfig) (engine.ServerConn, error) {
		return s.servers.dial(ctx, src.key, config, t.credential())
	})
	if err != nil {
		return nil, err
	}
	t.Tenant = et
	src.tenants[user] = t
	return t, nil
}
