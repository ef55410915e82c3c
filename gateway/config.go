package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/pgdist/pgdist/internal/engine"
)

// Auth says how clients prove who they are.
type Auth string

const (
	// SCRAM is SCRAM-SHA-256, with channel binding over TLS. The default.
	SCRAM Auth = "scram-sha-256"
	// Trust believes every client that comes from this machine. The servers
	// decide whether the gateway may log in as its user without a password.
	Trust Auth = "trust"
)

// Config is all that a Server can be told. The zero value of a field is its default.
type Config struct {
	// DSN names the set, as for package driver. Required. Its user looks up the
	// clients' users (it must be able to read pg_authid) and mirrors.
	DSN string
	// Databases are further names under which clients reach the set; the name
	// of its database always leads there, "*" lets any name do.
	Databases []string
	// DatabaseOptions are what holds for clients of one name, which leads to a set of its own if
	// they say so; "*" is any name that is not given otherwise.
	DatabaseOptions map[string]DatabaseOptions
	// UserOptions are what holds for one user's clients.
	UserOptions map[string]UserOptions
	// PoolMode is how long clients keep connections to servers; "" is TransactionPooling.
	PoolMode PoolMode
	// MaxDBConnections is the greatest number of connections of all clients to each server of a
	// set, and MaxUserConnections that of one user's clients; 0 is as many as the pools allow
	// (pool_size in the DSN, for each user and purpose). Those of the DSN's user, by which the
	// gateway looks after the set, are not counted.
	MaxDBConnections, MaxUserConnections int
	// MaxDBClients and MaxUserClients are the greatest numbers of clients of one database's
	// name, and of one user; 0 is no limit but MaxClients.
	MaxDBClients, MaxUserClients int
	// QueryWaitTimeout is how long a statement waits for a connection to a server; 0 is
	// pool_wait_timeout of the DSN.
	QueryWaitTimeout time.Duration
	// Auth is how clients prove who they are; "" is SCRAM.
	Auth Auth
	// HBA are rules for who may come in and by what proof; nil is Auth for everybody, from
	// everywhere.
	HBA *HBA
	// Ident maps names in clients' certificates to users, for rules that name a map.
	Ident *Ident
	// TrustRemote lets Trust believe clients from other machines too.
	TrustRemote bool
	// Users are passwords, or SCRAM verifiers as in pg_authid, by the user's
	// name. Users who are not named here are looked up in the databases.
	Users map[string]string
	// TLS is what clients' connections are secured with; nil offers no TLS.
	TLS *tls.Config
	// RequireTLS turns clients away that do not use TLS.
	RequireTLS bool
	// LoginTimeout is how long a client may take to log in; 0 is thirty seconds.
	LoginTimeout time.Duration
	// MaxClients is the greatest number of clients; 0 is 10,000.
	MaxClients int
	// MaxStarting is how many connections of one address may be logging in at the same
	// time; more wait for their turn, and ten times as many are closed. 0 is 100.
	MaxStarting int
	// Admins are the users who may use the console, database "pgdist". If clients are
	// trusted, the DSN's user may too, from this machine.
	Admins []string
	// SlowStatement is the duration from which on a statement is logged, without its
	// values; 0 is never.
	SlowStatement time.Duration
	// Tracing makes a span of every statement, which goes on with the trace that a traceparent in
	// a comment of the statement names (sqlcommenter). nil makes none, and costs nothing.
	Tracing trace.TracerProvider
	// Reload is what the console's RELOAD calls; it should read the configuration again,
	// call Server.Reload, and return what that does. nil: RELOAD is refused.
	Reload func(context.Context) (fixed []string, err error)
	// Stop is what the console's SHUTDOWN calls, and should end in Shutdown or, if wait
	// is false, Close. It must not wait for that. nil: SHUTDOWN is refused.
	Stop func(wait bool)
	// MaxPrepared is how many prepared statements are kept on each connection to
	// a server; 0 is 500.
	MaxPrepared int
	// Logger hears of clients and of databases that come and go; nil discards.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Auth == "" {
		c.Auth = SCRAM
	}
	if c.PoolMode == "" {
		c.PoolMode = TransactionPooling
	}
	if c.LoginTimeout == 0 {
		c.LoginTimeout = 30 * time.Second
	}
	if c.MaxClients == 0 {
		c.MaxClients = 10000
	}
	if c.MaxStarting == 0 {
		c.MaxStarting = 100
	}
	if c.MaxPrepared == 0 {
		c.MaxPrepared = 500
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate tells everything that is wrong with c, joined.
func (c Config) Validate() error {
	var errs []error
	if _, err := engine.Parse(c.DSN); err != nil {
		errs = append(errs, err)
	}
	if c.Auth != "" && c.Auth != SCRAM && c.Auth != Trust && c.Auth != MD5 {
		errs = append(errs, fmt.Errorf("auth is %q: it must be %s, %s or %s; for more there are rules (hba)", c.Auth, SCRAM, Trust, MD5))
	}
	errs = append(errs, c.HBA.validate(&c)...)
	errs = append(errs, c.validateLimits()...)
	if c.RequireTLS && c.TLS == nil {
		errs = append(errs, errors.New("TLS is required of clients, but there is no certificate to offer it with"))
	}
	if c.LoginTimeout < 0 || c.MaxClients < 0 || c.MaxPrepared < 0 || c.MaxStarting < 0 || c.SlowStatement < 0 {
		errs = append(errs, errors.New("login_timeout, max_clients, max_prepared, max_starting and slow_statement must not be negative"))
	}
	for name, secret := range c.Users {
		v, err := verifierOf(secret)
		if err == nil && v.md5 != "" && c.Auth != MD5 && !c.HBA.uses(MD5) {
			err = errors.New("an md5 hash is no SCRAM verifier: set the password anew with password_encryption = 'scram-sha-256'")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("user %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
