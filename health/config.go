package health

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Defaults of [Config]. Together they find, on an otherwise idle set,
//   - a process that is gone (connection refused) after at most one
//     ProbeInterval and one re-probe, which comes after a fifth of it:
//     250 ms + 50 ms. Client work that fails brings the first probe forward, so
//     under load it is a few tens of milliseconds;
//   - a process that is stopped but still accepts TCP after at most
//     250 ms + 750 ms + 50 ms + 750 ms = 1.8 s, which leaves more than a second of the
//     three that a failover may take.
const (
	DefaultFailures         = 2
	DefaultFailureRatio     = 0.5
	DefaultMinRequests      = 20
	DefaultInterval         = 10 * time.Second
	DefaultOpenTimeout      = time.Second
	DefaultHalfOpenRequests = 2
	DefaultProbeInterval    = 250 * time.Millisecond
	DefaultProbeTimeout     = 750 * time.Millisecond
	DefaultSyncTimeout      = 3 * time.Second
)

// Config tunes how failures of one database are noticed. The zero value means
// the defaults, and they are on. For every field 0 means "not set": the value
// of the set ([Config.Over]), else the default. Durations are given in DSN and
// YAML as Go writes them: "250ms", "3s".
type Config struct {
	// Failures (failures) is how many results in a row, of probes or client
	// work, must fail for the breaker to open. Default 2: a single broken
	// connection is no dead database, and a second opinion comes within 50 ms.
	Failures uint32 `yaml:"failures"`
	// FailureRatio (failure_ratio) opens the breaker when at least this share
	// of the results within Interval failed, in 0..1, however many successes
	// lie between them: a database that fails every other time. Default 0.5;
	// negative turns it off.
	FailureRatio float64 `yaml:"failure_ratio"`
	// MinRequests (min_requests) is how many results Interval must hold before
	// FailureRatio counts. Default 20: probes alone bring 40 in 10 s.
	MinRequests uint32 `yaml:"min_requests"`
	// Interval (interval) is the length of the sliding window of FailureRatio.
	// It is also how long a database must have stayed up for its next failure
	// not to be called a relapse (see OpenTimeout). Default 10 s.
	Interval time.Duration `yaml:"interval"`
	// OpenTimeout (open_timeout) is how long an open breaker waits before the
	// database is tried again. Default 1 s. It doubles, up to eightfold, with
	// each relapse, that is when a database opens again within Interval of
	// having been let back in: a link that comes and goes must not make the
	// set re-arrange itself every second. A trial that fails waits one plain OpenTimeout, so
	// a database that was away for long is back soon after it returns.
	OpenTimeout time.Duration `yaml:"open_timeout"`
	// HalfOpenRequests (half_open_requests) is how many probes in a row must
	// succeed to close the breaker. Default 2, a fifth of ProbeInterval apart.
	HalfOpenRequests uint32 `yaml:"half_open_requests"`
	// ProbeInterval (probe_interval) is the pause between two probes of a
	// database that works; after a failure the next comes after a fifth of
	// it. Default 250 ms: four cheap statements per second.
	ProbeInterval time.Duration `yaml:"probe_interval"`
	// ProbeTimeout (probe_timeout) is how long a probe may take, connecting
	// included. Default 750 ms: far above what a loaded server needs for a
	// trivial statement, low enough for two of them within 2 s. A busy server that
	// misses it twice stays in use as long as client work succeeds meanwhile.
	ProbeTimeout time.Duration `yaml:"probe_timeout"`
	// SyncTimeout (sync_timeout) is how long a write waits for a follower that
	// shows no progress before that follower is excluded. The board only
	// carries it for the mirroring above. Default 3 s: longer than the probes
	// need to find a dead one, so it decides only about a database that answers
	// probes and yet applies nothing (a full disk, a stopped backend).
	SyncTimeout time.Duration `yaml:"sync_timeout"`
}

// WithDefaults returns c with the default in every field that is not set.
func (c Config) WithDefaults() Config {
	return c.Over(Config{
		Failures:         DefaultFailures,
		FailureRatio:     DefaultFailureRatio,
		MinRequests:      DefaultMinRequests,
		Interval:         DefaultInterval,
		OpenTimeout:      DefaultOpenTimeout,
		HalfOpenRequests: DefaultHalfOpenRequests,
		ProbeInterval:    DefaultProbeInterval,
		ProbeTimeout:     DefaultProbeTimeout,
		SyncTimeout:      DefaultSyncTimeout,
	})
}

// Over lays c over base: what c does not set comes from base. It is how a
// member's own settings meet those of the set.
func (c Config) Over(base Config) Config {
	return Config{
		Failures:         over(c.Failures, base.Failures),
		FailureRatio:     over(c.FailureRatio, base.FailureRatio),
		MinRequests:      over(c.MinRequests, base.MinRequests),
		Interval:         over(c.Interval, base.Interval),
		OpenTimeout:      over(c.OpenTimeout, base.OpenTimeout),
		HalfOpenRequests: over(c.HalfOpenRequests, base.HalfOpenRequests),
		ProbeInterval:    over(c.ProbeInterval, base.ProbeInterval),
		ProbeTimeout:     over(c.ProbeTimeout, base.ProbeTimeout),
		SyncTimeout:      over(c.SyncTimeout, base.SyncTimeout),
	}
}

func over[T comparable](v, base T) T {
	var unset T
	if v == unset {
		return base
	}
	return v
}

// minDuration is the shortest that any of the durations may be; below it a
// typing error ("250" read as nanoseconds) is likelier than a wish.
const minDuration = time.Millisecond

// Validate joins everything that is wrong with c, by parameter name. Fields
// that are not set are always right.
func (c Config) Validate() error {
	var errs []error
	if c.FailureRatio > 1 || c.FailureRatio != c.FailureRatio {
		errs = append(errs, fmt.Errorf("failure_ratio = %v: must lie between 0 and 1 (negative turns it off)", c.FailureRatio))
	}
	for _, p := range params {
		d, isDuration := p.field(&c).(*time.Duration)
		if isDuration && *d != 0 && *d < minDuration {
			errs = append(errs, fmt.Errorf("%s = %v: must be at least %v; give a unit, as in 250ms or 3s", p.name, *d, minDuration))
		}
	}
	return errors.Join(errs...)
}

// params lists the parameters in the order of Config.
var params = []struct {
	name  string
	field func(*Config) any
}{
	{"failures", func(c *Config) any { return &c.Failures }},
	{"failure_ratio", func(c *Config) any { return &c.FailureRatio }},
	{"min_requests", func(c *Config) any { return &c.MinRequests }},
	{"interval", func(c *Config) any { return &c.Interval }},
	{"open_timeout", func(c *Config) any { return &c.OpenTimeout }},
	{"half_open_requests", func(c *Config) any { return &c.HalfOpenRequests }},
	{"probe_interval", func(c *Config) any { return &c.ProbeInterval }},
	{"probe_timeout", func(c *Config) any { return &c.ProbeTimeout }},
	{"sync_timeout", func(c *Config) any { return &c.SyncTimeout }},
}

// Params lists the names that [Config.Set] knows, in the order of Config.
func Params() []string {
	names := make([]string, len(params))
	for i, p := range params {
		names[i] = p.name
	}
	return names
}

// Set sets one parameter from its text, as DSN, YAML and flags give it. A
// name it does not know and a text it cannot read are errors; whether the
// value makes sense is for [Config.Validate].
func (c *Config) Set(name, value string) error {
	i := slices.IndexFunc(params, func(p struct {
		name  string
		field func(*Config) any
	}) bool {
		return p.name == name
	})
	if i < 0 {
		return fmt.Errorf("unknown parameter %q: the parameters are %s", name, strings.Join(Params(), ", "))
	}
	switch f := params[i].field(c).(type) {
	case *uint32:
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return fmt.Errorf("%s = %q: must be a whole number, 0 or more", name, value)
		}
		*f = uint32(n)
	case *float64:
		x, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("%s = %q: must be a number such as 0.5", name, value)
		}
		*f = x
	case *time.Duration:
		d, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("%s = %q: must be a duration with its unit, as in 250ms or 3s", name, value)
		}
		*f = d
	}
	return nil
}
