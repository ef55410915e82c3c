package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/crl"
	"github.com/pgdist/pgdist/internal/engine"
)

// gatewayOptions are all that the command can be told of the gateway, from the file's
// section gateway and from flags.
type gatewayOptions struct {
	path         string // of the file
	listen       []string
	socketMode   os.FileMode
	admin        string
	auth         string
	trustRemote  bool
	databases    []string
	databaseOpts map[string]gateway.DatabaseOptions
	users        map[string]string
	userOpts     map[string]gateway.UserOptions
	poolMode     string
	maxDBConns   int
	maxUserConns int
	maxDBClients int
	maxUserCls   int
	queryWait    time.Duration
	admins       []string
	hba          []string
	hbaFile      string
	identFile    string
	cert, key    string
	clientCA     string
	clientCRL    string
	requireTLS   bool
	maxClients   int
	maxStarting  int
	maxPrepared  int
	loginTimeout time.Duration
	slow         time.Duration
	otlp         string
	drain        time.Duration
	level        slog.Level
}

func newGatewayOptions() *gatewayOptions {
	return &gatewayOptions{listen: []string{"127.0.0.1:6432"}, socketMode: 0o777, auth: string(gateway.SCRAM), drain: 30 * time.Second, poolMode: string(gateway.TransactionPooling), users: map[string]string{}}
}

// gatewayKey is one of the file's keys; flag is the flag that overrides it, if any.
type gatewayKey struct {
	flag string
	set  func(o *gatewayOptions, values []string) error
}

// gatewayKeys are the keys of the section, users besides.
var gatewayKeys = map[string]gatewayKey{
	"listen":                      {"listen", list(func(o *gatewayOptions) *[]string { return &o.listen })},
	"socket_mode":                 {"", func(o *gatewayOptions, v []string) error { return single(v, o.setSocketMode) }},
	"admin":                       {"admin", text(func(o *gatewayOptions) *string { return &o.admin })},
	"auth":                        {"auth", text(func(o *gatewayOptions) *string { return &o.auth })},
	"hba":                         {"", list(func(o *gatewayOptions) *[]string { return &o.hba })},
	"hba_file":                    {"hba", text(func(o *gatewayOptions) *string { return &o.hbaFile })},
	"ident_file":                  {"ident", text(func(o *gatewayOptions) *string { return &o.identFile })},
	"trust_remote":                {"trust-remote", truth(func(o *gatewayOptions) *bool { return &o.trustRemote })},
	"databases":                   {"database", list(func(o *gatewayOptions) *[]string { return &o.databases })},
	"admins":                      {"", list(func(o *gatewayOptions) *[]string { return &o.admins })},
	"tls_cert":                    {"tls-cert", text(func(o *gatewayOptions) *string { return &o.cert })},
	"tls_key":                     {"tls-key", text(func(o *gatewayOptions) *string { return &o.key })},
	"tls_client_ca":               {"tls-client-ca", text(func(o *gatewayOptions) *string { return &o.clientCA })},
	"tls_crl":                     {"tls-crl", text(func(o *gatewayOptions) *string { return &o.clientCRL })},
	"tls_require":                 {"tls-require", truth(func(o *gatewayOptions) *bool { return &o.requireTLS })},
	"max_clients":                 {"max-clients", whole(func(o *gatewayOptions) *int { return &o.maxClients })},
	"max_client_conn":             {"", whole(func(o *gatewayOptions) *int { return &o.maxClients })}, // the same, as PgBouncer calls it
	"pool_mode":                   {"pool-mode", text(func(o *gatewayOptions) *string { return &o.poolMode })},
	"max_db_connections":          {"", whole(func(o *gatewayOptions) *int { return &o.maxDBConns })},
	"max_user_connections":        {"", whole(func(o *gatewayOptions) *int { return &o.maxUserConns })},
	"max_db_client_connections":   {"", whole(func(o *gatewayOptions) *int { return &o.maxDBClients })},
	"max_user_client_connections": {"", whole(func(o *gatewayOptions) *int { return &o.maxUserCls })},
	"query_wait_timeout":          {"", span(func(o *gatewayOptions) *time.Duration { return &o.queryWait })},
	"max_starting":                {"", whole(func(o *gatewayOptions) *int { return &o.maxStarting })},
	"max_prepared":                {"", whole(func(o *gatewayOptions) *int { return &o.maxPrepared })},
	"login_timeout":               {"", span(func(o *gatewayOptions) *time.Duration { return &o.loginTimeout })},
	"slow_statement":              {"slow-statement", span(func(o *gatewayOptions) *time.Duration { return &o.slow })},
	"otlp_endpoint":               {"otlp-endpoint", text(func(o *gatewayOptions) *string { return &o.otlp })},
	"drain":                       {"drain", span(func(o *gatewayOptions) *time.Duration { return &o.drain })},
	"log_level":                   {"", func(o *gatewayOptions, v []string) error { return single(v, o.level.UnmarshalText) }},
}

func (o *gatewayOptions) setSocketMode(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n > 0o777 {
		return errors.New("not the mode of a file, such as 0770")
	}
	o.socketMode = os.FileMode(n)
	return nil
}

// usersKey holds users' passwords or verifiers by their names, or more of each; databasesKey a
// list of names, or what belongs to each.
const (
	usersKey     = "users"
	databasesKey = "databases"
)

// freeKeys are those with names of the operator's below them.
var freeKeys = []engine.FreeKey{{Key: usersKey}, {Key: databasesKey, List: true}}

func single(values []string, set func([]byte) error) error {
	if len(values) != 1 {
		return errors.New("one value is wanted")
	}
	return set([]byte(values[0]))
}

func list(field func(*gatewayOptions) *[]string) func(*gatewayOptions, []string) error {
	return func(o *gatewayOptions, v []string) error {
		*field(o) = v
		return nil
	}
}

func text(field func(*gatewayOptions) *string) func(*gatewayOptions, []string) error {
	return func(o *gatewayOptions, v []string) error {
		return single(v, func(b []byte) error { *field(o) = string(b); return nil })
	}
}

func truth(field func(*gatewayOptions) *bool) func(*gatewayOptions, []string) error {
	return func(o *gatewayOptions, v []string) error {
		return single(v, func(b []byte) (err error) {
			switch strings.ToLower(string(b)) {
			case "true", "yes", "on":
				*field(o) = true
			case "false", "no", "off":
				*field(o) = false
			default:
				err = errors.New("neither true nor false")
			}
			return err
		})
	}
}

func whole(field func(*gatewayOptions) *int) func(*gatewayOptions, []string) error {
	return func(o *gatewayOptions, v []string) error {
		return single(v, func(b []byte) error {
			n, err := strconv.Atoi(string(b))
			if err != nil || n < 0 {
				return errors.New("not a whole number from 0 on")
			}
			*field(o) = n
			return nil
		})
	}
}

func span(field func(*gatewayOptions) *time.Duration) func(*gatewayOptions, []string) error {
	return func(o *gatewayOptions, v []string) error {
		return single(v, func(b []byte) error {
			d, err := engine.ParseDuration(string(b))
			if err == nil && d < 0 {
				err = errors.New("negative")
			}
			*field(o) = d
			return err
		})
	}
}

// readGatewayOptions reads the file, if there is one, and lays the flags that were given
// over it.
func readGatewayOptions(path string, flags *pflag.FlagSet) (*gatewayOptions, error) {
	o := newGatewayOptions()
	var errs []error
	if path != "" {
		errs = append(errs, o.readFile(path))
	}
	for _, key := range slices.Sorted(maps.Keys(gatewayKeys)) {
		k := gatewayKeys[key]
		f := flags.Lookup(k.flag)
		if k.flag == "" || f == nil || !f.Changed {
			continue
		}
		values := []string{f.Value.String()}
		if s, ok := f.Value.(pflag.SliceValue); ok {
			values = s.GetSlice()
		}
		if err := k.set(o, values); err != nil {
			errs = append(errs, fmt.Errorf("--%s=%s: %w", k.flag, strings.Join(values, ","), err))
		}
	}
	if f := flags.Lookup("hba"); f != nil && f.Changed {
		o.hba = nil
	}
	if verbose, err := flags.GetBool("verbose"); err == nil && verbose {
		o.level = slog.LevelDebug
	}
	return o, errors.Join(errs...)
}

func (o *gatewayOptions) readFile(path string) error {
	section, err := engine.ReadSection(path, "gateway", freeKeys...)
	if err != nil {
		return err
	}
	o.path = path
	known := append(slices.Sorted(maps.Keys(gatewayKeys)), usersKey)
	var errs []error
	for _, e := range section.Entries {
		k, ok := gatewayKeys[e.Key]
		switch {
		case e.Name != "":
			errs = append(errs, o.setNamed(section, e))
		case !ok:
			errs = append(errs, section.Unknown(e, known))
		default:
			if err := k.set(o, e.Values); err != nil {
				errs = append(errs, section.Errorf(e, "%s: %v", e.Key, err))
			}
		}
	}
	return errors.Join(errs...)
}

// config is what the gateway is told.
func (o *gatewayOptions) config(dsn string, log *slog.Logger) (gateway.Config, error) {
	c := gateway.Config{
		DSN: dsn, Databases: o.databases, Auth: gateway.Auth(o.auth), TrustRemote: o.trustRemote, Users: o.users, Admins: o.admins, RequireTLS: o.requireTLS,
		DatabaseOptions: o.databaseOpts, UserOptions: o.userOpts, PoolMode: gateway.PoolMode(o.poolMode), MaxDBConnections: o.maxDBConns, MaxUserConnections: o.maxUserConns,
		MaxDBClients: o.maxDBClients, MaxUserClients: o.maxUserCls, QueryWaitTimeout: o.queryWait,
		LoginTimeout: o.loginTimeout, MaxClients: o.maxClients, MaxStarting: o.maxStarting, MaxPrepared: o.maxPrepared, SlowStatement: o.slow, Logger: log,
	}
	tlsErr := o.secure(&c)
	hbaErr := o.rules(&c)
	return c, errors.Join(tlsErr, hbaErr)
}

// secure reads the certificates.
func (o *gatewayOptions) secure(c *gateway.Config) error {
	if o.cert == "" && o.key == "" {
		if o.clientCA != "" || o.clientCRL != "" {
			return errors.New("tls.client_ca, tls.crl: clients show certificates over TLS only: name tls.cert and tls.key, too")
		}
		return nil
	}
	cert, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return fmt.Errorf("certificate for clients: %w", err)
	}
	c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if o.clientCA == "" {
		if o.clientCRL != "" {
			return errors.New("tls.crl: clients' certificates are not looked at: name the certificates of those who issue them in tls.client_ca")
		}
		return nil
	}
	pem, err := os.ReadFile(o.clientCA)
	if err != nil {
		return fmt.Errorf("tls.client_ca: %w", err)
	}
	c.TLS.ClientCAs, c.TLS.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
	if !c.TLS.ClientCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("tls.client_ca: there is no certificate in %s", o.clientCA)
	}
	if o.clientCRL == "" {
		return nil
	}
	lists, err := crl.Open(o.clientCRL)
	if err != nil {
		return fmt.Errorf("tls.crl: %w", err)
	}
	c.TLS.VerifyConnection = lists.CheckClient
	return nil
}

// rules reads who may come in.
func (o *gatewayOptions) rules(c *gateway.Config) (err error) {
	if o.identFile != "" {
		if c.Ident, err = gateway.ReadIdent(o.identFile); err != nil {
			return err
		}
	}
	switch {
	case len(o.hba) > 0 && o.hbaFile != "":
		return errors.New("rules are given both in hba and in hba_file: the first that fits decides, so there must be one list")
	case o.hbaFile != "":
		c.HBA, err = gateway.ReadHBA(o.hbaFile)
	case len(o.hba) > 0:
		c.HBA, err = gateway.ParseHBA("hba of "+o.path, strings.Join(o.hba, "\n"))
	}
	return err
}

// warn tells of a file with secrets that others can read.
func (o *gatewayOptions) warn(path string, log *slog.Logger) {
	if info, err := os.Stat(path); len(o.users) > 0 && err == nil && info.Mode().Perm()&0o007 != 0 {
		log.Warn("the configuration file has users' secrets, and everybody on this machine can use it", "file", path, "mode", info.Mode().Perm())
	}
}
