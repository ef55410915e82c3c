package engine

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// param is one of pgdist's own parameters, as the DSN and the file name it.
type param struct {
	name string
	help string
	set  func(c *Config, value string) error
}

// params are pgdist's own parameters that concern the whole set.
var params = append([]param{
	{"balance", "how a read's database is chosen: least_outstanding, round_robin, random or latency", setText(func(c *Config, v string) { c.Balance = Balance(v) })},
	{"consistency", "what reads promise: session, strict or leader", setText(func(c *Config, v string) { c.Consistency = Consistency(v) })},
	{"weights", "shares of reads in the order of the hosts, such as 2,1,0; 0 is last resort", nil},
	{"sslcrl", "file with the lists of certificates that the issuers of the servers' have revoked, looked at whenever it has changed", nil},
	{"config", "YAML file with further parameters", nil},
	{"pool_size", "most connections to a database for each purpose", setInt(func(c *Config) *int { return &c.Pool.Size })},
	{"pool_max_lifetime", "age at which a connection is closed", setDuration(func(c *Config) *time.Duration { return &c.Pool.MaxLifetime })},
	{"pool_max_idle", "idle time after which a connection is closed", setDuration(func(c *Config) *time.Duration { return &c.Pool.MaxIdle })},
	{"pool_wait_timeout", "longest wait for a free connection", setDuration(func(c *Config) *time.Duration { return &c.Pool.WaitTimeout })},
	{"pool_rotate", "whether no session gets the connection that it had last, to find what depends on that (slow): on or off", setSwitch(func(c *Config) *bool { return &c.Pool.Rotate }, true)},
	{"failover_timeout", "longest wait of a statement for a leader", setDuration(func(c *Config) *time.Duration { return &c.FailoverTimeout })},
	{"ddl_conflict_timeout", "longest time that a lock on a database may hold up DDL there before its holder gives way", setDuration(func(c *Config) *time.Duration { return &c.DDLConflictTimeout })},
	{"view_lease", "how long statements go on after a majority has confirmed the view", setDuration(func(c *Config) *time.Duration { return &c.ViewLease })},
	{"minority_reads", "what reads do while no majority answers: alone (go on if no other program uses the set) or never", setText(func(c *Config, v string) { c.MinorityReads = MinorityReads(v) })},
	{"journal_max_size", "bytes of the journal that a database that is away may hold back, such as 8GB", setSize(func(c *Config) *int64 { return &c.JournalMaxSize })},
	{"journal_max_age", "age of what it may hold back", setDuration(func(c *Config) *time.Duration { return &c.JournalMaxAge })},
	{"check_rate", "rows a second of each database that are compared in the background, or off", setRate(func(c *Config) *float64 { return &c.CheckRate })},
	{"auto_resync", "whether a database that lost its place, or is new and empty, is copied afresh unasked: on or off", setSwitch(func(c *Config) *bool { return &c.NoAutoResync }, false)},
	{"result_buffer", "bytes of a write's rows kept back until it is acknowledged", setInt(func(c *Config) *int { return &c.ResultBuffer })},
	{"replay", "whether transactions that are lost with their server are run again, unseen if every result is the same: on or off", setText(func(c *Config, v string) { c.Replay = Replay(v) })},
	{"replay_limit", "bytes kept of a transaction to run it again, such as 1MB", setBytes(func(c *Config) *int { return &c.ReplayLimit })},
	{"cache_size", "bytes for verdicts on statements", setInt(func(c *Config) *int { return &c.CacheBytes })},
	{"mirror_user", "role that rows are mirrored as", setText(func(c *Config, v string) { c.MirrorUser = v })},
	{"mirror_password", "its password", setText(func(c *Config, v string) { c.MirrorPassword = v })},
	{"register", "where the register in etcd is, if not where the set knows it: etcd://host:2379,host:2379/prefix", setText(func(c *Config, v string) { c.Register.Address = v })},
	{"etcd_ca", "file with the certificates of those who may sign etcd's, or system; none is no TLS", setText(func(c *Config, v string) { c.Register.CA = v })},
	{"etcd_cert", "file with this program's certificate for etcd", setText(func(c *Config, v string) { c.Register.Cert = v })},
	{"etcd_key", "file with its key", setText(func(c *Config, v string) { c.Register.Key = v })},
	{"etcd_user", "user of etcd's own authentication", setText(func(c *Config, v string) { c.Register.User = v })},
	{"etcd_password", "that user's password", setText(func(c *Config, v string) { c.Register.Password = v })},
}, setHealthParams()...)

// Params lists pgdist's own parameters and what they mean, by name.
func Params() map[string]string {
	m := make(map[string]string, len(params))
	for _, p := range params {
		m[p.name] = p.help
	}
	return m
}

func paramNames() []string {
	names := make([]string, len(params))
	for i, p := range params {
		names[i] = p.name
	}
	return names
}

func findParam(name string) (param, bool) {
	i := slices.IndexFunc(params, func(p param) bool { return p.name == name })
	if i < 0 {
		return param{}, false
	}
	return params[i], true
}

// ourPrefixes begin no name of libpq's or PostgreSQL's.
var ourPrefixes = []string{"pool_", "breaker_", "probe_", "mirror_", "pgdist_", "etcd_"}

// nearEnough is the edit distance up to which a name is taken for a misspelling.
const nearEnough = 2

// takeOwn moves pgdist's parameters out of what would go to the servers.
func takeOwn(runtime map[string]string) (map[string]string, error) {
	own := map[string]string{}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(runtime)) {
		if _, ok := findParam(key); ok {
			own[key] = runtime[key]
			delete(runtime, key)
			continue
		}
		near, distance := nearest(key, paramNames())
		ours := slices.ContainsFunc(ourPrefixes, func(p string) bool { return strings.HasPrefix(key, p) })
		if ours || distance <= nearEnough && len(key) > 2*nearEnough {
			errs = append(errs, fmt.Errorf("pgdist: unknown parameter %s: did you mean %s?", key, near))
		}
		if key == "pgdist.conn" || key == "default_transaction_read_only" || key == "session_replication_role" {
			errs = append(errs, fmt.Errorf("pgdist: parameter %s is pgdist's own to set: leave it out", key))
		}
	}
	return own, errors.Join(errs...)
}

// applyParams sets c's fields from pgdist's own parameters.
func applyParams(c *Config, own map[string]string) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(own)) {
		p, ok := findParam(key)
		if !ok || p.set == nil {
			continue // weights and config are read elsewhere
		}
		if err := p.set(c, own[key]); err != nil {
			errs = append(errs, fmt.Errorf("pgdist: %s=%s: %w", key, shown(key, own[key]), err))
		}
	}
	return errors.Join(errs...)
}

// shown is a value as an error may tell it.
func shown(key, value string) string {
	if strings.Contains(key, "password") {
		return "***"
	}
	return value
}

func setText(set func(*Config, string)) func(*Config, string) error {
	return func(c *Config, v string) error {
		set(c, v)
		return nil
	}
}

func setInt(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil {
			return errors.New("not a whole number")
		}
		*field(c) = n
		return nil
	}
}

// setRate takes a number above 0, or "off", or 0 for it.
func setRate(field func(*Config) *float64) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.ParseFloat(v, 64)
		switch {
		case v == "off" || err == nil && n == 0:
			*field(c) = -1
		case err != nil || !(n > 0) || math.IsInf(n, 0):
			return errors.New("neither a number of rows above 0 nor off")
		default:
			*field(c) = n
		}
		return nil
	}
}

// setSwitch takes on and off, as YAML and PostgreSQL write them; on is what the field then is.
func setSwitch(field func(*Config) *bool, on bool) func(*Config, string) error {
	return func(c *Config, v string) error {
		switch strings.ToLower(v) {
		case "on", "true", "yes", "1":
			*field(c) = on
		case "off", "false", "no", "0":
			*field(c) = !on
		default:
			return errors.New("neither on nor off")
		}
		return nil
	}
}

func setSize(field func(*Config) *int64) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := parseSize(v)
		*field(c) = n
		return err
	}
}

func setBytes(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := parseSize(v)
		if err == nil && n > math.MaxInt {
			err = errors.New("more than can be kept")
		}
		*field(c) = int(n)
		return err
	}
}

// parseSize reads a number of bytes, with PostgreSQL's units: 512MB, 8GB.
func parseSize(v string) (int64, error) {
	shift := 0
	for i, unit := range []string{"kB", "MB", "GB", "TB"} {
		if n, ok := strings.CutSuffix(v, unit); ok {
			v, shift = strings.TrimSpace(n), 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n > 1<<62>>shift {
		return 0, errors.New("not a number of bytes such as 1048576, 512MB or 8GB")
	}
	return n << shift, nil
}

func setDuration(field func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		d, err := parseDuration(v)
		*field(c) = d
		return err
	}
}

// parseDuration reads 1.5s, 300ms, 2m, or a bare number of seconds.
func parseDuration(v string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Duration(n * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		return 0, errors.New("not a duration such as 500ms, 10s or 2m, nor a number of seconds")
	}
	return d, nil
}
