//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const (
	hungAfter  = 30 * time.Second // how much longer than its turn a client may need
	failureRun = 20               // failures in a row after which a client gives up
)

// consumer is a group of processes whose processor time is told.
type consumer struct {
	name  string
	roots []int // process ids; none is this process
}

// ofServers is a consumer of servers that run.
func ofServers(name string, servers ...*pgtest.Server) consumer {
	c := consumer{name: name}
	for _, s := range servers {
		c.roots = append(c.roots, s.PID())
	}
	return c
}

// ofBench is this process: the clients, and what they have linked in.
func ofBench() consumer { return consumer{name: "go"} }

// contender is one way to the data.
type contender struct {
	name      string
	dbs       []*sql.DB // used by turns
	consumers []consumer

	succeeded, failed int // operations, in all turns
}

// client is one of the goroutines of a turn.
type client struct {
	dbs  []*sql.DB
	next int
	rng  *rand.Rand
}

// db is the database whose turn it is.
func (c *client) db() *sql.DB {
	c.next++
	return c.dbs[c.next%len(c.dbs)]
}

// operation is what a client does over and over.
type operation func(ctx context.Context, c *client) error

// turn is what one contender did in one window.
type turn struct {
	took      time.Duration
	latencies []time.Duration // of each operation that succeeded, sorted
	failed    int
	failure   error // the first
	used      map[string]time.Duration
}

// perSecond is the turn's throughput.
func (t *turn) perSecond() float64 { return float64(len(t.latencies)) / t.took.Seconds() }

// play lets clients repeat an operation for a while. The turn lasts until the
// last of them is done with what it had begun.
func (c *contender) play(ctx context.Context, clients int, length time.Duration, op operation) (*turn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, length+hungAfter, errHung)
	defer cancel()
	before, err := c.used()
	if err != nil {
		return nil, err
	}
	results := make([]turn, clients)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range results {
		wg.Go(func() { results[i].repeat(ctx, c.dbs, began.Add(length), op) })
	}
	wg.Wait()
	t := &turn{took: time.Since(began)}
	for i := range results {
		r := &results[i]
		t.latencies = append(t.latencies, r.latencies...)
		t.failed += r.failed
		if t.failure == nil {
			t.failure = r.failure
		}
		err = errors.Join(err, r.gaveUp())
	}
	slices.Sort(t.latencies)
	c.succeeded += len(t.latencies)
	c.failed += t.failed
	if cause := context.Cause(ctx); cause != nil {
		return nil, fmt.Errorf("%s: %w", c.name, cause)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	after, err := c.used()
	if err != nil {
		return nil, err
	}
	t.used = map[string]time.Duration{}
	for name, d := range after {
		t.used[name] = d - before[name]
	}
	return t, nil
}

// repeat is one client's turn; took stays zero if it gave up.
func (t *turn) repeat(ctx context.Context, dbs []*sql.DB, end time.Time, op operation) {
	c := &client{dbs: dbs, next: rand.IntN(len(dbs)), rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	inARow := 0
	for began := time.Now(); began.Before(end) && ctx.Err() == nil; {
		err := op(ctx, c)
		now := time.Now()
		switch {
		case err == nil:
			t.latencies = append(t.latencies, now.Sub(began))
			inARow = 0
		default:
			t.failed++
			inARow++
			if t.failure == nil {
				t.failure = err
			}
			if inARow == failureRun {
				return
			}
		}
		began = now
	}
	t.took = 1
}

func (t *turn) gaveUp() error {
	if t.took != 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", errTooManyErrors, t.failure)
}

// used reads the processor time of the contender's consumers.
func (c *contender) used() (map[string]time.Duration, error) {
	all, err := processTable()
	if err != nil {
		return nil, err
	}
	own, err := ownTime()
	if err != nil {
		return nil, err
	}
	m := map[string]time.Duration{}
	for _, u := range c.consumers {
		m[u.name] = own
		if len(u.roots) > 0 {
			m[u.name] = treeTime(all, u.roots...)
		}
	}
	return m, nil
}

// many is a number of clients in words.
func many(clients int) string {
	if clients == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", clients)
}

// warmLength is an unmeasured turn, for connections and caches.
const warmLength = 500 * time.Millisecond

// compete lets the contenders take turns, each as often, and sums up each.
func (b *bench) compete(ctx context.Context, what string, clients int, length time.Duration, turns int, contenders []*contender, op operation) ([]*figure, error) {
	b.say("%s, %s", what, many(clients))
	for _, c := range contenders {
		if _, err := c.play(ctx, clients, warmLength, op); err != nil {
			return nil, err
		}
	}
	taken := make([][]*turn, len(contenders))
	for range turns {
		for i, c := range contenders {
			t, err := c.play(ctx, clients, length, op)
			if err != nil {
				return nil, err
			}
			taken[i] = append(taken[i], t)
		}
	}
	figures := make([]*figure, len(contenders))
	for i, c := range contenders {
		figures[i] = summarize(what, clients, c.name, taken[i])
	}
	b.report.Figures = append(b.report.Figures, figures...)
	return figures, nil
}
