// Package torture is a workload whose outcomes depend on the server that runs
// it, and the bookkeeping that tells whether a database kept its promises:
// every acknowledged write there, nothing else there, every read as new as what
// was acknowledged before it, and invariants that hold at each snapshot.
//
// It drives a *sql.DB and knows nothing of what is behind it: one PostgreSQL
// through pgx, or several through pgdist. Create the tables with [Schema], call
// [Run], then [History.Check], also on each member by itself. [Faults] kills,
// freezes and restarts servers meanwhile.
package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

// Options says how much to do. The zero value is 16 clients for ten seconds
// with a random seed.
type Options struct {
	Clients  int           // concurrent clients; 0 is 16, at most 1024
	Duration time.Duration // how long to run; 0 is ten seconds, or no limit when Ops is set
	Ops      int           // operations per client; 0 is no limit
	Seed     int64         // of all choices the clients make; 0 picks one. It is logged.
	// OpTimeout is how long one operation may take before it counts as hung, a
	// violation; 0 is 30 seconds.
	OpTimeout time.Duration
	// Allowed are SQLSTATEs, or their first characters, that are no violation
	// in addition to those which the workload provokes.
	Allowed []string
	// AllowDisconnects accepts that operations end in lost connections and
	// server shutdowns: for a driver that does not hide them.
	AllowDisconnects bool
	// Doors lead to the same database as the one given to Run: each operation, and each
	// look at what others have done, takes one of all of them.
	Doors []*sql.DB
	// Only restricts the workload to the operations of these names; empty is all.
	Only []string
	// Logf gets the seed and a summary; nil discards them.
	Logf func(format string, args ...any)
}

func (o Options) filled() Options {
	if o.Clients <= 0 {
		o.Clients = 16
	}
	if o.Duration <= 0 && o.Ops <= 0 {
		o.Duration = 10 * time.Second
	}
	if o.Seed == 0 {
		o.Seed = rand.Int64()
	}
	if o.OpTimeout <= 0 {
		o.OpTimeout = 30 * time.Second
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return o
}

// Run lets the clients loose on db and returns what they know. The error is of
// the set-up only: what goes wrong later is in the History. The end of ctx ends
// the run as the Duration does, between operations; runs on one database may
// follow each other, not overlap.
func Run(ctx context.Context, db *sql.DB, opts Options) (*History, error) {
	opts = opts.filled()
	if opts.Clients > 1024 {
		return nil, fmt.Errorf("torture: %d clients, at most 1024", opts.Clients)
	}
	menu, err := menuFor(ctx, db, opts.Only)
	if err != nil {
		return nil, err
	}
	var run int64
	if err := db.QueryRowContext(ctx, "SELECT coalesce(max(op >> 48), 0) + 1 FROM torture.ledger").Scan(&run); err != nil {
		return nil, fmt.Errorf("torture: read the ledger (was Schema run?): %w", err)
	}
	opts.Logf("torture: seed %d, %d clients", opts.Seed, opts.Clients)
	h := newHistory(opts.Seed, run)
	end := ctx
	if opts.Duration > 0 {
		var cancel context.CancelFunc
		end, cancel = context.WithTimeout(ctx, opts.Duration)
		defer cancel()
	}
	var wg sync.WaitGroup
	for i := range opts.Clients {
		c := &client{
			id: i, db: db, doors: append([]*sql.DB{db}, opts.Doors...), h: h, opts: opts, menu: menu,
			choices: rand.New(rand.NewPCG(uint64(opts.Seed), uint64(i))),
		}
		wg.Go(func() { c.loop(end) })
	}
	wg.Wait()
	opts.Logf("torture: %s", h)
	return h, nil
}

// menuFor returns the operations that the server knows and the caller wants.
func menuFor(ctx context.Context, db *sql.DB, only []string) ([]operation, error) {
	var number string
	if err := db.QueryRowContext(ctx, "SHOW server_version_num").Scan(&number); err != nil {
		return nil, fmt.Errorf("torture: ask for the server's version: %w", err)
	}
	version, err := strconv.Atoi(number)
	if err != nil {
		return nil, fmt.Errorf("torture: the server's version: %w", err)
	}
	wanted := map[string]bool{}
	for _, name := range only {
		wanted[name] = true
	}
	var menu []operation
	for _, op := range operations() {
		if version >= op.since && (len(only) == 0 || wanted[op.name]) {
			menu = append(menu, op)
			delete(wanted, op.name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("torture: no operation %q for a server of version %d", name, version)
	}
	if len(menu) == 0 {
		return nil, errors.New("torture: no operation to run")
	}
	return menu, nil
}
