package mirror

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/register"
)

// Config describes a set to open. The zero value of each optional field is the
// default named with it.
type Config struct {
	// Members are the databases, in any order; each says itself which member it is.
	Members []MemberConfig
	// Health tunes breakers and probes for all members.
	Health health.Config
	// AckTimeout is how long a committed write waits for its acknowledgement
	// when the set cannot give it (no majority). Default 30 s.
	AckTimeout time.Duration
	// FlushInterval is how often changes that nobody waits for (made past
	// pgdist) are mirrored. Default 500 ms.
	FlushInterval time.Duration
	// BlockedTimeout is how long a lock may hold up a batch or an apply before
	// its holder is ended (ddl_conflict_timeout). Default 1 s.
	BlockedTimeout time.Duration
	// BatchKeys is how many journaled keys are read and applied in one message;
	// above it a batch is streamed in pieces of this size. Default 2000.
	BatchKeys int
	// JournalBytes and JournalAge turn the journal to its next slot; JournalKeep
	// is how long entries are kept for outcomes to be asked for; JournalMax and
	// JournalMaxAge are how many bytes, and entries how old, a member that is
	// away may hold back before it loses its place. Defaults 64 MiB, 10 min,
	// 5 min, 8 GiB, 72 h.
	JournalBytes  int64
	JournalAge    time.Duration
	JournalKeep   time.Duration
	JournalMax    int64
	JournalMaxAge time.Duration
	// ViewLease is for how long reads go on after a majority of the members has
	// confirmed the view; who leaves a member out waits as long for distributors
	// that cannot be reached. Default 500 ms.
	ViewLease time.Duration
	// MinorityReads lets the only distributor of a set read on while no majority of
	// the members answers.
	MinorityReads bool
	// Name is what others are told of this distributor. Default: program, host, process.
	Name string
	// CheckRate is how many rows a second of each member a comparison in the background
	// reads, one program of the set at a time; 0: there is none.
	CheckRate float64
	// AutoResync copies members afresh that lost their place or whose database is new and
	// empty, one at a time, if the role may.
	AutoResync bool
	// Notice hears, in one line each, of what people should know: a member that differs, a
	// copy. It must not block. nil: nobody does.
	Notice     func(string)
	checkTimes checkTimes // tests: shorter ones
	anyVersion bool       // tests: act as the program of the version before
	// Register is how a register in etcd is reached.
	Register RegisterConfig
	// Brief tells that the set is opened by a command that ends soon: it may do so beside the
	// one program that uses a register in a file.
	Brief bool
	// Logger gets events of the set; nil discards them.
	Logger *slog.Logger
}

// MemberConfig is one database and how mirroring connects to it.
type MemberConfig struct {
	// Conn holds address, database and the credentials of the mirror role. It
	// must name one host.
	Conn *pgconn.Config
	// Register is, in place of all else, the address of a voter that is no database.
	Register string
	// Health overrides the set's settings for this member.
	Health health.Config
}

// RegisterConfig is how a register in etcd is reached.
type RegisterConfig struct {
	// Address is where etcd is, if it is not, or not from here, at the address that the set
	// knows: etcd://host:port,host:port/prefix. "" is that one.
	Address string
	// Config holds certificates and credentials.
	register.Config
}

// Host is "host:port", or the address of a register; for messages.
func (m MemberConfig) Host() string {
	if m.Register != "" {
		return m.Register
	}
	return net.JoinHostPort(m.Conn.Host, strconv.Itoa(int(m.Conn.Port)))
}

// Validate joins what is wrong with c.
func (c RegisterConfig) Validate() error {
	var err error
	if a := c.Address; a != "" && !strings.HasPrefix(a, "etcd://") {
		err = fmt.Errorf("register is %q: it says where etcd is, etcd://host:2379/prefix; any other register the set knows", a)
	}
	return errors.Join(err, c.Config.Validate())
}

func (c Config) withDefaults() Config {
	set(&c.AckTimeout, 30*time.Second)
	set(&c.FlushInterval, 500*time.Millisecond)
	set(&c.BlockedTimeout, time.Second)
	set(&c.BatchKeys, 2000)
	set(&c.JournalBytes, 64<<20)
	set(&c.JournalAge, 10*time.Minute)
	set(&c.JournalKeep, 5*time.Minute)
	set(&c.JournalMax, 8<<30)
	set(&c.JournalMaxAge, 72*time.Hour)
	set(&c.ViewLease, 500*time.Millisecond)
	set(&c.Name, ownName())
	set(&c.checkTimes, checkPauses)
	c.Health = c.Health.WithDefaults()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// ownName says which process this is.
func ownName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return fmt.Sprintf("%s at %s, process %d", filepath.Base(os.Args[0]), host, os.Getpid())
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate joins every problem it finds.
func (c Config) Validate() error {
	var errs []error
	if len(c.Members) == 0 {
		errs = append(errs, errors.New("a set needs at least one member"))
	}
	seen := map[string]bool{}
	for i, m := range c.Members {
		if m.Conn == nil {
			errs = append(errs, fmt.Errorf("member %d: no connection settings", i+1))
			continue
		}
		key := m.Host() + "/" + m.Conn.Database
		if seen[key] {
			errs = append(errs, fmt.Errorf("member %d: %s is listed twice", i+1, key))
		}
		seen[key] = true
	}
	if c.BatchKeys < 0 {
		errs = append(errs, errors.New("BatchKeys must not be negative"))
	}
	if d := c.withDefaults(); d.JournalMaxAge < 2*d.JournalKeep || d.JournalMax < 2*d.JournalBytes {
		errs = append(errs, fmt.Errorf("the journal's bounds, %d bytes and %v, are below what it holds with every member present: at least %d bytes and %v are needed",
			d.JournalMax, d.JournalMaxAge, 2*d.JournalBytes, 2*d.JournalKeep))
	}
	return errors.Join(append(errs, c.Register.Validate(), c.Health.Validate())...)
}
