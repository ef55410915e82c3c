package gateway

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/pgdist/pgdist/internal/engine"
)

// PoolMode says how long a client keeps a connection to a server.
type PoolMode string

const (
	// TransactionPooling: while a statement or a transaction runs, and as long as something
	// that lives on it needs it. The default.
	TransactionPooling PoolMode = "transaction"
	// SessionPooling: from its first statement to its end.
	SessionPooling PoolMode = "session"
)

// DatabaseOptions are what holds for clients of one database's name. Zero fields are as for others.
type DatabaseOptions struct {
	// DSN names a set of its own for that name; "" is Config.DSN's.
	DSN string
	// PoolMode is that of its clients.
	PoolMode PoolMode
	// MaxConnections overrides Config.MaxDBConnections for a set of its own.
	MaxConnections int
	// MaxClients overrides Config.MaxDBClients.
	MaxClients int
}

// UserOptions are what holds for one user's clients. Zero fields are as for others.
type UserOptions struct {
	// PoolMode overrides that of the database.
	PoolMode PoolMode
	// MaxConnections overrides Config.MaxUserConnections.
	MaxConnections int
	// MaxClients overrides Config.MaxUserClients.
	MaxClients int
}

// first is the first that is not zero.
func first[T comparable](values ...T) (v T) {
	for _, v = range values {
		var zero T
		if v != zero {
			return v
		}
	}
	return v
}

// poolMode is that of a client.
func (c *Config) poolMode(database, user string) PoolMode {
	return first(c.UserOptions[user].PoolMode, c.database(database).PoolMode, c.PoolMode)
}

// database are the options of a name, those of "*" if it has none.
func (c *Config) database(name string) DatabaseOptions {
	if o, ok := c.DatabaseOptions[name]; ok {
		return o
	}
	return c.DatabaseOptions["*"]
}

// limits are those of connections to the servers of a set.
func (c *Config) limits(names []string) engine.Limits {
	l := engine.Limits{Connections: c.MaxDBConnections}
	for _, name := range names {
		l.Connections = first(c.DatabaseOptions[name].MaxConnections, l.Connections)
	}
	some := c.MaxUserConnections > 0
	for _, o := range c.UserOptions {
		some = some || o.MaxConnections > 0
	}
	if some {
		options, others := maps.Clone(c.UserOptions), c.MaxUserConnections
		l.User = func(user string) int { return first(options[user].MaxConnections, others) }
	}
	return l
}

// admits tells whether one more client of a database's name and a user may come in; s.mu is held.
func (s *Server) admitsLocked(c *client) error {
	conf := s.conf()
	if len(s.clients) >= conf.MaxClients {
		return errStarting("53300", fmt.Sprintf("sorry, too many clients already: the gateway takes %d (max_client_conn)", conf.MaxClients))
	}
	ofDB, ofUser := first(conf.database(c.db).MaxClients, conf.MaxDBClients), first(conf.UserOptions[c.user].MaxClients, conf.MaxUserClients)
	if ofDB == 0 && ofUser == 0 {
		return nil
	}
	dbs, users := 0, 0
	for _, o := range s.clients {
		if o.db == c.db {
			dbs++
		}
		if o.user == c.user {
			users++
		}
	}
	switch {
	case ofDB > 0 && dbs >= ofDB:
		return errStarting("53300", fmt.Sprintf(`too many connections for database "%s": the gateway takes %d (max_db_client_connections)`, c.db, ofDB))
	case ofUser > 0 && users >= ofUser:
		return errStarting("53300", fmt.Sprintf(`too many connections for role "%s": the gateway takes %d (max_user_client_connections)`, c.user, ofUser))
	}
	return nil
}

// validateLimits tells what is wrong with them.
func (c *Config) validateLimits() (errs []error) {
	mode := func(where string, m PoolMode) {
		if m != "" && m != TransactionPooling && m != SessionPooling {
			errs = append(errs, fmt.Errorf("%spool_mode is %q: it must be %s or %s", where, m, TransactionPooling, SessionPooling))
		}
	}
	mode("", c.PoolMode)
	negative := c.MaxDBConnections < 0 || c.MaxUserConnections < 0 || c.MaxDBClients < 0 || c.MaxUserClients < 0 || c.QueryWaitTimeout < 0
	for _, name := range slices.Sorted(maps.Keys(c.DatabaseOptions)) {
		o := c.DatabaseOptions[name]
		mode("database "+name+": ", o.PoolMode)
		negative = negative || o.MaxConnections < 0 || o.MaxClients < 0
		if o.DSN != "" {
			if _, err := engine.Parse(o.DSN); err != nil {
				errs = append(errs, fmt.Errorf("database %s: %w", name, err))
			}
		} else if o.MaxConnections != 0 {
			errs = append(errs, fmt.Errorf("database %s: max_db_connections is for a set, and this is another name of the one that the gateway is started with: set it for that", name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.UserOptions)) {
		o := c.UserOptions[name]
		mode("user "+name+": ", o.PoolMode)
		negative = negative || o.MaxConnections < 0 || o.MaxClients < 0
	}
	if negative {
		errs = append(errs, errors.New("limits of connections and clients, and query_wait_timeout, must not be negative"))
	}
	return errs
}
