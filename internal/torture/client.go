package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// client is one goroutine's view of the workload.
type client struct {
	id    int
	db    *sql.DB // of this operation
	doors []*sql.DB
	h     *History
	opts  Options
	menu  []operation
	// choices picks the operations; rng, drawn from it anew for each of them, what
	// they do. So the sequence depends on the seed alone, however much of its rng
	// an operation uses.
	choices *rand.Rand
	rng     *rand.Rand

	seq      int64
	lane     int64 // 0: to be opened
	families []int64
	items    []int64 // ops of own inserts
	events   []int64
}

// operation is one kind of thing a client does.
type operation struct {
	name   string
	weight int
	since  int // the server_version_num that first knows it; 0 is any
	run    func(ctx context.Context, c *client, name string)
}

// mode says what a client may have to see of failures.
type mode int

const (
	single   mode = iota // autocommit: nothing but what the statement provokes
	explicit             // a transaction block: also a request to run it again, and a COMMIT in doubt
	raw                  // the connection itself was lent out: also its loss
)

var explicitAllowed = []string{"40001", "40P01", "08007"}

// errGiveUp makes a transaction's body roll back.
var errGiveUp = errors.New("rolled back on purpose")

// loop runs operations until ctx ends. One that is under way is finished.
func (c *client) loop(ctx context.Context) {
	total := 0
	for _, op := range c.menu {
		total += op.weight
	}
	for n := 0; ctx.Err() == nil && (c.opts.Ops == 0 || n < c.opts.Ops); n++ {
		if c.lane == 0 && !c.openLane(ctx) {
			continue
		}
		chosen, at, look := c.menu[0], c.choices.IntN(total), c.choices.IntN(3) == 0
		c.rng = rand.New(rand.NewPCG(c.choices.Uint64(), uint64(n)))
		for _, op := range c.menu {
			if at -= op.weight; at < 0 {
				chosen = op
				break
			}
		}
		c.enter()
		c.bounded(ctx, func(ctx context.Context) { chosen.run(ctx, c, chosen.name) })
		if look {
			c.enter()
			c.bounded(ctx, func(ctx context.Context) { readBack(ctx, c, "read back") })
		}
	}
}

// enter takes one of the doors.
func (c *client) enter() {
	if len(c.doors) > 1 {
		c.db = c.doors[c.rng.IntN(len(c.doors))]
	}
}

// bounded runs f with the time one operation has, whatever becomes of the run.
func (c *client) bounded(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.opts.OpTimeout)
	defer cancel()
	f(ctx)
}

// openLane gives the client rows of its own. They are given up, and others
// opened, whenever an outcome is unknown: what is still on its way to the
// server may change them later than what the client does next.
func (c *client) openLane(ctx context.Context) (ok bool) {
	c.families, c.items, c.events = nil, nil, nil
	c.bounded(ctx, func(ctx context.Context) {
		lane := c.h.newLane()
		_, err := c.db.ExecContext(ctx, "SELECT torture.open_lane($1)", lane)
		if ok = c.report("open lane", single, err); ok {
			c.lane = lane
		}
	})
	return ok
}

// newOp returns the id of an operation that is about to be sent.
func (c *client) newOp() int64 {
	c.seq++
	op := c.h.run<<48 | int64(c.id)<<32 | c.seq
	c.h.start(op)
	return op
}

// report judges an error and returns whether there was none.
func (c *client) report(name string, m mode, err error, provoked ...string) bool {
	if err == nil {
		return true
	}
	code := state(err)
	what := code
	if code == "" {
		what = "error without SQLSTATE"
	}
	c.h.count(name + " " + what)
	lost := disconnect(err)
	switch {
	case matches(code, provoked), matches(code, c.opts.Allowed):
	case m != single && matches(code, explicitAllowed): // whoever has the connection itself runs things again himself
	case lost && (m == raw || c.opts.AllowDisconnects):
	default:
		c.h.violate(&Violation{Kind: UnexpectedError, Client: c.id, Op: name, Detail: "SQLSTATE " + what, Err: err})
	}
	if lost {
		time.Sleep(20 * time.Millisecond) // a server that is down is not asked in a tight loop
	}
	return false
}

// finish records the outcome of one operation by its answer.
func (c *client) finish(name string, m mode, op int64, err error, provoked ...string) Outcome {
	o := OutcomeOf(err)
	c.h.end(name, op, o)
	c.report(name, m, err, provoked...)
	if o == Unknown {
		c.lane = 0
	}
	return o
}

// exec runs one autocommit statement under a new op, its first parameter.
func (c *client) exec(ctx context.Context, name, query string, args []any, provoked ...string) (int64, Outcome) {
	op := c.newOp()
	_, err := c.db.ExecContext(ctx, query, append([]any{op}, args...)...)
	return op, c.finish(name, single, op, err, provoked...)
}

// transaction runs body in a transaction of its own under a new op. The error
// of body rolls it back.
func (c *client) transaction(ctx context.Context, name string, opts *sql.TxOptions, body func(tx *sql.Tx, op int64) error, provoked ...string) (int64, Outcome) {
	op := c.newOp()
	tx, err := c.db.BeginTx(ctx, opts)
	if err != nil {
		c.h.end(name, op, Failed)
		c.report(name, explicit, fmt.Errorf("begin: %w", err))
		return op, Failed
	}
	if err := body(tx, op); err != nil {
		c.h.end(name, op, Failed) // COMMIT was never sent
		given := errors.Is(err, errGiveUp)
		if !given {
			c.report(name, explicit, err, provoked...)
		}
		if rerr := tx.Rollback(); rerr != nil && (given || !disconnect(err)) {
			c.report(name, explicit, fmt.Errorf("rollback: %w", rerr))
		}
		return op, Failed
	}
	return op, c.finish(name, explicit, op, tx.Commit(), provoked...)
}

// isolation picks a level.
func (c *client) isolation() *sql.TxOptions {
	levels := []sql.IsolationLevel{sql.LevelDefault, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable}
	return &sql.TxOptions{Isolation: levels[c.rng.IntN(len(levels))]}
}

const enter = "INSERT INTO torture.ledger (op, kind, amount) VALUES ($1, $2, $3)"

// twoOf returns two different numbers below n.
func (c *client) twoOf(n int) (int, int) {
	a := c.rng.IntN(n)
	return a, (a + 1 + c.rng.IntN(n-1)) % n
}

// one returns a random element and its place.
func one[T any](c *client, from []T) (T, int) {
	i := c.rng.IntN(len(from))
	return from[i], i
}
