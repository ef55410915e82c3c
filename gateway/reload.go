package gateway

import (
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

// Reload puts config in force for what comes from now on; nobody is sent away. It returns
// the names of settings that differ and cannot change while the server runs.
func (s *Server) Reload(config Config) (fixed []string, err error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	old := s.conf()
	if config.DSN != old.DSN {
		fixed = append(fixed, "dsn")
	}
	changed, options := keepSets(old.DatabaseOptions, config.DatabaseOptions)
	fixed, config.DatabaseOptions = append(fixed, changed...), options
	if config.QueryWaitTimeout != old.QueryWaitTimeout {
		fixed = append(fixed, "query_wait_timeout")
	}
	if config.MaxPrepared != old.MaxPrepared {
		fixed = append(fixed, "max_prepared")
	}
	config.DSN, config.MaxPrepared, config.QueryWaitTimeout, config.Logger = old.DSN, old.MaxPrepared, old.QueryWaitTimeout, old.Logger
	config.Reload, config.Stop, config.Tracing = old.Reload, old.Stop, old.Tracing
	s.adopt(&config)
	s.history.add("configuration read again")
	return fixed, nil
}

// keepSets has every name lead where it did: sets are opened once. It returns those that would
// lead elsewhere now, and the options with what stays.
func keepSets(old, next map[string]DatabaseOptions) (fixed []string, kept map[string]DatabaseOptions) {
	kept = maps.Clone(next)
	for name, o := range next {
		was, had := old[name]
		if o.DSN == was.DSN {
			continue
		}
		fixed = append(fixed, "databases "+name)
		if o.DSN = was.DSN; had {
			kept[name] = o
		} else { // nowhere yet
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

// Ready tells whether the set, every one of several, can be written: a leader is known and its breaker lets
// statements through, and the server is not about to close.
func (s *Server) Ready() bool {
	return !s.isClosing() && !slices.ContainsFunc(s.sources, func(src *source) bool { return !src.engine.Ready() })
}
