package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// option is a setting as SHOW CONFIG tells it; live ones are put in force by Reload.
type option struct {
	key, value, standard string
	live                 bool
}

// options are all of c but the DSN, without secrets.
func (c *Config) options() []option {
	d := Config{}.withDefaults()
	tls := "none"
	if c.TLS != nil {
		tls = "offered"
		if c.TLS.ClientCAs != nil {
			tls = "offered, clients' certificates are checked"
		}
	}
	names := slices.Clone(c.Databases)
	for _, name := range slices.Sorted(maps.Keys(c.DatabaseOptions)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	list := func(names []string) string { return strings.Join(names, ",") }
	return []option{
		{"auth", string(c.Auth), string(d.Auth), true},
		{"hba", c.HBA.String(), "", true},
		{"trust_remote", yes(c.TrustRemote), "no", true},
		{"databases", list(names), "", true},
		{"users", list(slices.Sorted(maps.Keys(c.Users))), "", true},
		{"admins", list(c.Admins), "", true},
		{"tls", tls, "none", true},
		{"tls_require", yes(c.RequireTLS), "no", true},
		{"login_timeout", c.LoginTimeout.String(), d.LoginTimeout.String(), true},
		{"max_clients", fmt.Sprint(c.MaxClients), fmt.Sprint(d.MaxClients), true},
		{"pool_mode", string(c.PoolMode), string(d.PoolMode), true},
		{"max_db_connections", fmt.Sprint(c.MaxDBConnections), "0", true},
		{"max_user_connections", fmt.Sprint(c.MaxUserConnections), "0", true},
		{"max_db_client_connections", fmt.Sprint(c.MaxDBClients), "0", true},
		{"max_user_client_connections", fmt.Sprint(c.MaxUserClients), "0", true},
		{"query_wait_timeout", c.QueryWaitTimeout.String(), time.Duration(0).String(), false},
		{"max_starting", fmt.Sprint(c.MaxStarting), fmt.Sprint(d.MaxStarting), true},
		{"max_prepared", fmt.Sprint(c.MaxPrepared), fmt.Sprint(d.MaxPrepared), false},
		{"slow_statement", c.SlowStatement.String(), time.Duration(0).String(), true},
	}
}

// Reload puts config in force for what comes from now on; nobody is sent away. Sets of names that
// are new are opened, which ctx bounds; if one cannot be, all stays as it was. It returns the names
// of settings that differ and cannot change while the server runs.
func (s *Server) Reload(ctx context.Context, config Config) (fixed []string, err error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	config = config.withDefaults()
	old := s.conf()
	if config.DSN != old.DSN {
		fixed = append(fixed, "dsn")
	}
	changed, options := s.keepSets(old.DatabaseOptions, config.DatabaseOptions)
	fixed, config.DatabaseOptions = append(fixed, changed...), options
	if config.QueryWaitTimeout != old.QueryWaitTimeout {
		fixed = append(fixed, "query_wait_timeout")
	}
	if config.MaxPrepared != old.MaxPrepared {
		fixed = append(fixed, "max_prepared")
	}
	config.DSN, config.MaxPrepared, config.QueryWaitTimeout, config.Logger = old.DSN, old.MaxPrepared, old.QueryWaitTimeout, old.Logger
	config.Reload, config.Stop, config.Tracing = old.Reload, old.Stop, old.Tracing
	opened, err := s.openMore(ctx, config.DatabaseOptions)
	if err != nil {
		return nil, err
	}
	s.adopt(&config)
	s.history.add("", "configuration read again")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing { // whoever closes the others may not have seen these
		return fixed, errors.Join(ErrServerClosed, closeAll(opened))
	}
	for _, src := range opened {
		s.spawn("follow", func() { s.follow(src) })
	}
	return fixed, nil
}

// keepSets has every name lead where it did, if it led to a set of its own, or clients are there
// under it. It returns those that would lead elsewhere now, and the options with what stays.
func (s *Server) keepSets(old, next map[string]DatabaseOptions) (fixed []string, kept map[string]DatabaseOptions) {
	kept = maps.Clone(next)
	for name, o := range next {
		was, had := old[name]
		if o.DSN == was.DSN || was.DSN == "" && !s.used(name) {
			continue
		}
		fixed = append(fixed, "databases "+name)
		if o.DSN = was.DSN; had {
			kept[name] = o
		} else { // as it was: among those that are not named
			delete(kept, name)
		}
	}
	for name, was := range old {
		if _, is := next[name]; !is && was.DSN != "" {
			fixed = append(fixed, "databases "+name)
			if kept == nil {
				kept = map[string]DatabaseOptions{}
			}
			kept[name] = was
		}
	}
	slices.Sort(fixed)
	return fixed, kept
}

// used tells whether a client is there under a database's name; "*" is any that would lead to its set.
func (s *Server) used(name string) (any bool) {
	s.each(func(c *client) { any = any || c.db == name || name == "*" && s.named(c.db) == nil })
	return any
}

// Ready tells whether the set, every one of several, can be written: a leader is known and its breaker lets
// statements through, and the server is not about to close.
func (s *Server) Ready() bool {
	return !s.isClosing() && !slices.ContainsFunc(s.sources(), func(src *source) bool { return !src.engine.Ready() })
}
