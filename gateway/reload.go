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
	list := func(names []string) string { return strings.Join(names, ",") }
	return []option{
		{"auth", string(c.Auth), string(d.Auth), true},
		{"hba", c.HBA.String(), "", true},
		{"trust_remote", yes(c.TrustRemote), "no", true},
		{"databases", list(c.Databases), "", true},
		{"users", list(slices.Sorted(maps.Keys(c.Users))), "", true},
		{"admins", list(c.Admins), "", true},
		{"tls", tls, "none", true},
		{"tls_require", yes(c.RequireTLS), "no", true},
		{"login_timeout", c.LoginTimeout.String(), d.LoginTimeout.String(), true},
		{"max_clients", fmt.Sprint(c.MaxClients), fmt.Sprint(d.MaxClients), true},
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
	if config.MaxPrepared != old.MaxPrepared {
		fixed = append(fixed, "max_prepared")
	}
	config.DSN, config.MaxPrepared, config.Logger = old.DSN, old.MaxPrepared, old.Logger
	config.Reload, config.Stop = old.Reload, old.Stop
	s.adopt(&config)
	s.history.add("configuration read again")
	return fixed, nil
}

// Ready tells whether the set can be written: a leader is known and its breaker lets
// statements through, and the server is not about to close.
func (s *Server) Ready() bool { return !s.isClosing() && s.engine.Ready() }
