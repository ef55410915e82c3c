package driver

import (
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/engine"
)

// Consistency says how recent what a read sees must be.
type Consistency string

const (
	// Session: never older than anything acknowledged to anyone before the
	// read began. The default.
	Session Consistency = "session"
	// Strict: linearizable; a read's result is released once every in-sync
	// database has reached what it saw.
	Strict Consistency = "strict"
	// Leader: reads go where writes go.
	Leader Consistency = "leader"
)

// Balance names the way a read's database is chosen.
type Balance string

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

// Replay says whether transactions that are lost with their server are run again.
type Replay string

const (
	// ReplayOff: the program hears SQLSTATE 40001 and runs the transaction again. The default.
	ReplayOff Replay = "off"
	// ReplayOn: it does not notice, if every result is the same; else it hears 40001.
	ReplayOn Replay = "on"
)

const (
	// LeastOutstanding takes the database with the fewest statements in flight
	// per weight. The default.
	LeastOutstanding Balance = "least_outstanding"
	// RoundRobin takes the databases in turn, as often as their weights say.
	RoundRobin Balance = "round_robin"
	// Random takes one at random, by weight.
	Random Balance = "random"
	// Latency takes the one that has answered fastest lately.
	Latency Balance = "latency"
)

// Member is one database of the set.
type Member struct {
	// Conn says how to connect, to exactly one host. It must come from
	// pgx.ParseConfig.
	Conn *pgx.ConnConfig
	// Weight is the database's share of reads relative to the others; 0 is 1.
	Weight int
	// LastResort keeps reads away while another database can take them; it
	// overrides Weight.
	LastResort bool
	// Health overrides the set's Health where its fields are not zero.
	Health health.Config
}

// Pool limits the connections kept to each database: those for reads, and on
// the leader as many again for writes.
type Pool struct {
	// Size is the greatest number of connections in a pool; 0 is 32.
	Size int
	// MaxLifetime closes a connection that old when it is next free; 0 is one
	// hour, negative is never.
	MaxLifetime time.Duration
	// MaxIdle closes a connection unused for that long; 0 is five minutes,
	// negative is never.
	MaxIdle time.Duration
	// WaitTimeout bounds the wait for a connection while all are in use; 0 is
	// thirty seconds, negative is as long as the statement's context allows.
	WaitTimeout time.Duration
	// Rotate has no connection of database/sql get the server connection that it had last, to find
	// what depends on that and should not. It is slow.
	Rotate bool
}

// Register is how a register in etcd is reached. That there is one, and where, the set knows.
type Register struct {
	// Address is where etcd is, if it is not at the address that the set knows, or not
	// from here: etcd://host:2379,host:2379/prefix.
	Address string
	// CA is a file with the certificates of those who may sign etcd's, or "system" for the
	// machine's own; "" is no TLS, unless Cert is given.
	CA string
	// Cert and Key are files with this program's own certificate; "" is none.
	Cert, Key string
	// User and Password are for etcd's own authentication; "" is none.
	User, Password string
}

// Config is all that a DSN can say, and a logger. The zero value of a field is
// its default.
type Config struct {
	// Members are the databases of the set, in any order. Required.
	Members []Member
	// Consistency is what reads promise; "" is Session.
	Consistency Consistency
	// Balance is how a read's database is chosen; "" is LeastOutstanding.
	Balance Balance
	// Pool limits the connections to each database.
	Pool Pool
	// Health tunes when a database is excluded and when it returns.
	Health health.Config
	// FailoverTimeout bounds how long a statement waits for a leader; 0 is
	// thirty seconds, negative is as long as its context allows.
	FailoverTimeout time.Duration
	// DDLConflictTimeout is how long a lock that somebody holds on a database may
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
	// ResultBuffer is how many bytes of a write's rows (INSERT … RETURNING) are
	// kept back until the write is acknowledged; of a larger result only the
	// end waits. 0 is 1 MiB.
	ResultBuffer int
	// CacheBytes bounds the memory for verdicts on statements; 0 is 16 MiB.
	CacheBytes int
	// Replay says whether a transaction that is lost with its server is run again, unseen
	// by the program if every result is the same; "" is ReplayOff. A session may say
	// otherwise for itself: SET pgdist.replay = on.
	Replay Replay
	// ReplayLimit is how many bytes are kept of a transaction for that: its statements
	// and their parameters. A larger one is not run again; 0 is 1 MiB.
	ReplayLimit int
	// MirrorUser and MirrorPassword are who rows are mirrored as; "" is each
	// Member's own user and password.
	MirrorUser, MirrorPassword string
	// Register is how a register of the set's in etcd is reached, if there is one.
	Register Register
	// Logger hears of databases that come and go; nil discards.
	Logger *slog.Logger
}

// ParseConfig reads a DSN, which is a URL or keywords and values; see the
// package's README for its parameters.
func ParseConfig(dsn string) (Config, error) {
	c, err := engine.Parse(dsn)
	if err != nil {
		return Config{}, err
	}
	return fromEngine(c), nil
}

// Validate tells everything that is wrong with c, joined.
func (c Config) Validate() error { return c.engine().Validate() }

// String tells c without its secrets.
func (c Config) String() string { return c.engine().String() }

// GoString is String: %#v must not tell secrets either.
func (c Config) GoString() string { return "driver.Config{" + c.String() + "}" }

func (c Config) engine() engine.Config {
	e := engine.Config{
		Consistency:        engine.Consistency(c.Consistency),
		Balance:            engine.Balance(c.Balance),
		Pool:               engine.PoolConfig(c.Pool),
		Health:             c.Health,
		FailoverTimeout:    c.FailoverTimeout,
		DDLConflictTimeout: c.DDLConflictTimeout,
		ViewLease:          c.ViewLease,
		MinorityReads:      engine.MinorityReads(c.MinorityReads),
		JournalMaxSize:     c.JournalMaxSize,
		JournalMaxAge:      c.JournalMaxAge,
		CheckRate:          c.CheckRate,
		NoAutoResync:       c.NoAutoResync,
		ResultBuffer:       c.ResultBuffer,
		CacheBytes:         c.CacheBytes,
		Replay:             engine.Replay(c.Replay),
		ReplayLimit:        c.ReplayLimit,
		MirrorUser:         c.MirrorUser,
		MirrorPassword:     c.MirrorPassword,
		Register:           engine.RegisterConfig(c.Register),
		Logger:             c.Logger,
		Dial:               dial,
	}
	for _, m := range c.Members {
		e.Members = append(e.Members, engine.MemberConfig(m))
	}
	return e
}

func fromEngine(e engine.Config) Config {
	c := Config{
		Consistency:        Consistency(e.Consistency),
		Balance:            Balance(e.Balance),
		Pool:               Pool(e.Pool),
		Health:             e.Health,
		FailoverTimeout:    e.FailoverTimeout,
		DDLConflictTimeout: e.DDLConflictTimeout,
		ViewLease:          e.ViewLease,
		MinorityReads:      MinorityReads(e.MinorityReads),
		JournalMaxSize:     e.JournalMaxSize,
		JournalMaxAge:      e.JournalMaxAge,
		CheckRate:          e.CheckRate,
		NoAutoResync:       e.NoAutoResync,
		ResultBuffer:       e.ResultBuffer,
		CacheBytes:         e.CacheBytes,
		Replay:             Replay(e.Replay),
		ReplayLimit:        e.ReplayLimit,
		MirrorUser:         e.MirrorUser,
		MirrorPassword:     e.MirrorPassword,
		Register:           Register(e.Register),
		Logger:             e.Logger,
	}
	for _, m := range e.Members {
		c.Members = append(c.Members, Member(m))
	}
	return c
}
