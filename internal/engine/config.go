package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
)

// Consistency says how recent what a read sees must be.
type Consistency string

const (
	// Session: never older than anything acknowledged to anyone before the
	// read began. Default.
	SessionLevel Consistency = "session"
	// StrictLevel: linearizable; a read's result is released once every in-sync
	// member has reached what it saw.
	StrictLevel Consistency = "strict"
	// LeaderLevel: reads go where writes go.
	LeaderLevel Consistency = "leader"
)

// Consistencies lists the values of Consistency, the default first.
func Consistencies() []Consistency { return []Consistency{SessionLevel, StrictLevel, LeaderLevel} }

// MemberConfig is one database of the set.
type MemberConfig struct {
	// Conn says how to connect, to exactly one host; further attempts in
	// Fallbacks must lead to the same host. It must come from pgx.ParseConfig.
	Conn *pgx.ConnConfig
	// Weight is the member's share of reads relative to the others; 0 is 1.
	Weight int
	// LastResort keeps reads away from the member while any other can take
	// them; it overrides Weight.
	LastResort bool
	// Health overrides the set's Health where its fields are not zero.
	Health health.Config
}

// RegisterConfig is how a register in etcd is reached: see internal/register.Config. Address
// is where it is, if not where the set knows it to be.
type RegisterConfig struct {
	Address, CA, Cert, Key, User, Password string
}

// Mirror is c as the mirror takes it.
func (c RegisterConfig) Mirror() mirror.RegisterConfig {
	out := mirror.RegisterConfig{Address: c.Address}
	out.CA, out.Cert, out.Key, out.User, out.Password = c.CA, c.Cert, c.Key, c.User, c.Password
	return out
}

// Config is all that an Engine can be told. The zero value of a field is its
// default.
type Config struct {
	// Members are the databases of the set, in any order. Required.
	Members []MemberConfig
	// Consistency is what reads promise; "" is SessionLevel.
	Consistency Consistency
	// Balance is how a read's member is chosen; "" is LeastOutstanding.
	Balance Balance
	// Pool limits the connections to each member.
	Pool PoolConfig
	// Health tunes when a member is excluded and when it returns.
	Health health.Config
	// FailoverTimeout bounds how long a statement waits for a leader, and for
	// a connection to it; 0 is thirty seconds, negative is as long as the
	// statement's context allows.
	FailoverTimeout time.Duration
	// DDLConflictTimeout is how long a lock that somebody holds on a member may
	// hold up a change there (DDL, TRUNCATE, or the flush that brings them)
	// before its holder is made to give way; 0 is one second.
	DDLConflictTimeout time.Duration
	// ViewLease is for how long statements go on after a majority of the databases
	// has confirmed who may be read. A database that is excluded while another
	// program that uses the set cannot be reached holds up writes for as long;
	// 0 is half a second.
	ViewLease time.Duration
	// MinorityReads says whether reads go on while no majority answers; "" is MinorityAlone.
	MinorityReads MinorityReads
	// JournalMaxSize, in bytes, and JournalMaxAge are how much a database that is
	// away may hold back of the journal before it loses its place and has to be
	// copied; 0 is 8 GiB and 72 hours.
	JournalMaxSize int64
	JournalMaxAge  time.Duration
	// CheckRate is how many rows a second of each database are compared in the background,
	// by one program of all that use the set; 0 is 1000, negative is none.
	CheckRate float64
	// NoAutoResync leaves it to people to copy a database afresh that lost its place or is
	// new and empty.
	NoAutoResync bool
	// ResultBuffer is how many bytes of a write's rows are kept back until the
	// write is acknowledged; a larger result is streamed, its end waits. 0 is 1 MiB.
	ResultBuffer int
	// CacheBytes bounds the memory for verdicts on statements; 0 is 16 MiB.
	CacheBytes int
	// Replay says whether transactions that are lost with their server are run again; ""
	// is ReplayOff. A session may say otherwise for itself (ReplaySetting).
	Replay Replay
	// ReplayLimit is how many bytes are kept of a transaction to run it again: its
	// statements and their parameters. A larger one is not run again; 0 is 1 MiB.
	ReplayLimit int
	// MirrorUser and MirrorPassword are who rows are mirrored as; "" is each
	// member's own user and password.
	MirrorUser, MirrorPassword string
	// Register is how a register of the set's in etcd is reached, if there is one.
	Register RegisterConfig
	// Logger hears of members that come and go; nil discards.
	Logger *slog.Logger
	// Notice hears, in one line each, of a database that differs from the others, or was
	// copied afresh. It must not block. nil: nobody does.
	Notice func(string)
	// Dial connects to a server for the sessions. Required, set by the front door.
	Dial DialFunc
	// Wrap, if not nil, is handed each connection for reads that is not secured by TLS,
	// as soon as it is made, and what it returns is used in its place.
	Wrap func(net.Conn) net.Conn
}

// MinorityReads says what happens to reads while no majority of the databases answers.
type MinorityReads string

const (
	// MinorityAlone lets them go on if no other program used the set when a majority
	// last answered. If one begins to meanwhile, where this one sees no majority, and
	// excludes the database that is read here, what is read here is of the past.
	MinorityAlone MinorityReads = "alone"
	// MinorityNever makes them wait, and fail with SQLSTATE 57P03 after FailoverTimeout.
	MinorityNever MinorityReads = "never"
)

const (
	minViewLease           = 50 * time.Millisecond
	maxViewLease           = time.Minute
	defaultFailoverTimeout = 30 * time.Second
	defaultDDLConflict     = time.Second
	defaultCheckRate       = 1000
	defaultResultBuffer    = 1 << 20
	defaultCacheBytes      = 16 << 20
	minJournal             = 256 << 20
	minJournalAge          = 30 * time.Minute
	maxMembers             = 64 // a bit each in the set of members already tried
)

// withDefaults fills in what was left zero. It does not touch c's slices.
func (c Config) withDefaults() Config {
	if c.Consistency == "" {
		c.Consistency = SessionLevel
	}
	if c.Balance == "" {
		c.Balance = LeastOutstanding
	}
	if c.ResultBuffer == 0 {
		c.ResultBuffer = defaultResultBuffer
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultCacheBytes
	}
	if c.Replay == "" {
		c.Replay = ReplayOff
	}
	if c.ReplayLimit == 0 {
		c.ReplayLimit = defaultReplayLimit
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.DDLConflictTimeout == 0 {
		c.DDLConflictTimeout = defaultDDLConflict
	}
	c.FailoverTimeout = orDefault(c.FailoverTimeout, defaultFailoverTimeout)
	c.Pool = c.Pool.withDefaults()
	return c
}

// Validate tells everything that is wrong with c, joined.
func (c Config) Validate() error {
	var errs []error
	if len(c.Members) == 0 {
		errs = append(errs, errors.New("no database is named: list the hosts of all databases of the set"))
	}
	if len(c.Members) > maxMembers {
		errs = append(errs, fmt.Errorf("%d databases are named: at most %d can form a set", len(c.Members), maxMembers))
	}
	if c.Consistency != "" && !slices.Contains(Consistencies(), c.Consistency) {
		errs = append(errs, fmt.Errorf("consistency is %q: it must be one of %v", c.Consistency, Consistencies()))
	}
	if c.Balance != "" && !slices.Contains(Balances(), c.Balance) {
		errs = append(errs, fmt.Errorf("balance is %q: it must be one of %v", c.Balance, Balances()))
	}
	if c.MirrorPassword != "" && c.MirrorUser == "" {
		errs = append(errs, errors.New("mirror_password is given without mirror_user"))
	}
	if c.ResultBuffer < 0 || c.CacheBytes < 0 {
		errs = append(errs, errors.New("result_buffer and cache_size must not be negative"))
	}
	if c.DDLConflictTimeout < 0 {
		errs = append(errs, errors.New("ddl_conflict_timeout must not be negative: a lock that is waited for without end would stop all writes"))
	}
	if c.ViewLease != 0 && (c.ViewLease < minViewLease || c.ViewLease > maxViewLease) {
		errs = append(errs, fmt.Errorf("view_lease is %v: it must be between %v and %v", c.ViewLease, minViewLease, maxViewLease))
	}
	if m := c.MinorityReads; m != "" && m != MinorityAlone && m != MinorityNever {
		errs = append(errs, fmt.Errorf("minority_reads is %q: it must be %s or %s", m, MinorityAlone, MinorityNever))
	}
	if r := c.Replay; r != "" && r != ReplayOff && r != ReplayOn {
		errs = append(errs, fmt.Errorf("replay is %q: it must be %s or %s", r, ReplayOff, ReplayOn))
	}
	if c.ReplayLimit < 0 {
		errs = append(errs, fmt.Errorf("replay_limit is %d: it is a number of bytes, or 0 for the default", c.ReplayLimit))
	}
	if c.JournalMaxSize < 0 || c.JournalMaxAge < 0 || c.JournalMaxSize > 0 && c.JournalMaxSize < minJournal || c.JournalMaxAge > 0 && c.JournalMaxAge < minJournalAge {
		errs = append(errs, fmt.Errorf("journal_max_size must be at least %dMB and journal_max_age at least %v: less is reached with every database present", minJournal>>20, minJournalAge))
	}
	errs = append(errs, c.Register.Mirror().Validate(), c.Pool.validate(), c.validateMembers())
	return errors.Join(errs...)
}

func (c Config) validateMembers() error {
	var errs []error
	seen := map[string]int{}
	for i, m := range c.Members {
		if m.Conn == nil {
			errs = append(errs, fmt.Errorf("database %d has no connection settings", i+1))
			continue
		}
		if m.Weight < 0 {
			errs = append(errs, fmt.Errorf("database %d has weight %d: weights are 0 (last resort) or more", i+1, m.Weight))
		}
		addr := hostPort(m.Conn)
		if j, ok := seen[addr]; ok {
			errs = append(errs, fmt.Errorf("databases %d and %d are both %s: name each database once", j+1, i+1, addr))
		}
		seen[addr] = i
		for _, f := range m.Conn.Fallbacks {
			if f.Host != m.Conn.Host || f.Port != m.Conn.Port {
				errs = append(errs, fmt.Errorf("database %d names several hosts: each database has one", i+1))
				break
			}
		}
	}
	return errors.Join(errs...)
}

func hostPort(c *pgx.ConnConfig) string {
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
}

// effectiveWeight is the weight as balancing wants it: 0 is last resort.
func (m MemberConfig) effectiveWeight() int {
	switch {
	case m.LastResort:
		return 0
	case m.Weight == 0:
		return 1
	}
	return m.Weight
}

// database is the one that the set mirrors.
func (c Config) database() string {
	if len(c.Members) == 0 || c.Members[0].Conn == nil {
		return ""
	}
	return c.Members[0].Conn.Database
}

// String tells c without its secrets.
func (c Config) String() string {
	d := c.withDefaults()
	var b strings.Builder
	for i, m := range d.Members {
		if i > 0 {
			b.WriteByte(',')
		}
		if m.Conn == nil {
			b.WriteString("?")
			continue
		}
		fmt.Fprintf(&b, "%s@%s/%s", m.Conn.User, hostPort(m.Conn), m.Conn.Database)
		if w := m.effectiveWeight(); w != 1 {
			fmt.Fprintf(&b, " weight %d", w)
		}
	}
	fmt.Fprintf(&b, " consistency=%s balance=%s pool_size=%d", d.Consistency, d.Balance, d.Pool.Size)
	if d.MirrorUser != "" {
		fmt.Fprintf(&b, " mirror_user=%s", d.MirrorUser)
	}
	return b.String()
}

// GoString is String: %#v must not tell secrets either.
func (c Config) GoString() string { return "engine.Config{" + c.String() + "}" }
