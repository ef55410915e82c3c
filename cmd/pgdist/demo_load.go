//go:build unix

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// load is what the program does to the database, and what it knows of it.
type load struct {
	db      *sql.DB
	ctx     context.Context
	ending  atomic.Bool
	workers []*worker
	done    sync.WaitGroup

	acked   atomic.Int64 // writes acknowledged
	reruns  atomic.Int64 // transactions rolled back by a change of leader, and run again
	refused atomic.Int64 // statements that had to fail and did
	reads   atomic.Int64
	failed  atomic.Int64
	longest atomic.Int64 // nanoseconds; of single statements
	waiting atomic.Pointer[firstAck]
	missed  int64 // acked when a server was killed; the demo's own

	mu       sync.Mutex // guards failures
	failures []string   // the first few
}

// firstAck waits for a write that began after a moment.
type firstAck struct {
	after time.Time
	at    chan time.Time
}

// worker is one client. What it keeps is read by others once the load has ended.
type worker struct {
	l     *load
	lane  int
	rng   *rand.Rand
	n     int64
	acked []int64
	last  *note // its latest note, to be read back
}

// note is what RETURNING told about a row that the server made up.
type note struct {
	op          int64
	luck, token string
}

const (
	statementLimit = 30 * time.Second // longer is hung
	maxAttempts    = 10               // of one transaction
	failuresShown  = 5
	guests         = 10 // in each lane's seats
)

// startLoad sets the clients going.
func startLoad(ctx context.Context, db *sql.DB) (*load, error) {
	db.SetMaxIdleConns(2 * demoClients)
	l := &load{db: db, ctx: ctx}
	for lane := range demoClients {
		w := &worker{l: l, lane: lane, rng: rand.New(rand.NewPCG(uint64(lane), 0x70676469))}
		l.workers = append(l.workers, w)
		_, err := db.ExecContext(ctx, "INSERT INTO shop.seats SELECT $1::int, g, g FROM generate_series(1, $2::int) AS g", lane, guests)
		if err != nil {
			return nil, fmt.Errorf("begin: %w", err)
		}
	}
	for _, w := range l.workers {
		l.done.Go(w.run)
	}
	return l, nil
}

// stop lets every client finish what it is at.
func (l *load) stop() {
	l.ending.Store(true)
	l.done.Wait()
}

// firstAck returns a channel that gets the time at which the first write begun
// after the moment was acknowledged.
func (l *load) firstAck(after time.Time) <-chan time.Time {
	f := &firstAck{after: after, at: make(chan time.Time, 1)}
	l.waiting.Store(f)
	return f.at
}

// ack notes an acknowledged write.
func (l *load) ack(began, at time.Time) {
	l.acked.Add(1)
	if f := l.waiting.Load(); f != nil && began.After(f.after) && l.waiting.CompareAndSwap(f, nil) {
		f.at <- at
	}
}

// fail notes something that should not have happened, unless the demo was
// interrupted.
func (l *load) fail(what string, err error) {
	if l.ctx.Err() != nil {
		return
	}
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) < failuresShown {
		l.failures = append(l.failures, fmt.Sprintf("%s: %v", what, err))
	}
}

// observe notes how long a single statement took.
func (l *load) observe(d time.Duration) {
	for old := l.longest.Load(); int64(d) > old; old = l.longest.Load() {
		if l.longest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func (w *worker) run() {
	if !w.newCustomer() {
		return
	}
	for !w.l.ending.Load() && w.l.ctx.Err() == nil {
		op := demoMenu[w.rng.IntN(len(demoMenu))]
		op(w)
	}
}

// newOp numbers an operation; over all workers no number comes twice.
func (w *worker) newOp() int64 {
	w.n++
	return int64(w.lane)<<40 | w.n
}

// statement runs one statement that must succeed, and takes its time.
func (w *worker) statement(what string, run func(ctx context.Context) error) (ok bool) {
	ctx, cancel := context.WithTimeout(w.l.ctx, statementLimit)
	defer cancel()
	began := time.Now()
	err := run(ctx)
	w.l.observe(time.Since(began))
	if err != nil {
		w.l.fail(what, err)
	}
	return err == nil
}

// write runs one statement that writes the row of its number in the ledger.
func (w *worker) write(what, query string, args ...any) (ok bool) {
	op := w.newOp()
	began := time.Now()
	ok = w.statement(what, func(ctx context.Context) error {
		_, err := w.l.db.ExecContext(ctx, query, append([]any{op}, args...)...)
		return err
	})
	if ok {
		w.ack(op, began)
	}
	return ok
}

func (w *worker) ack(op int64, began time.Time) {
	w.acked = append(w.acked, op)
	w.l.ack(began, time.Now())
}

// read runs a query of one value, which must be what is wanted.
func (w *worker) read(what, want, query string, args ...any) {
	var got string
	ok := w.statement(what, func(ctx context.Context) error {
		return w.l.db.QueryRowContext(ctx, query, args...).Scan(&got)
	})
	if !ok {
		return
	}
	w.l.reads.Add(1)
	if got != want {
		w.l.fail(what, fmt.Errorf("read %q, want %q", got, want))
	}
}

// transaction runs steps and a row in the ledger as one. If the leader is lost
// before COMMIT, the answer is 40001 and the program runs it again, as programs
// do; each attempt has a number of its own.
func (w *worker) transaction(what string, steps func(ctx context.Context, tx *sql.Tx) error) {
	for range maxAttempts {
		op := w.newOp()
		began := time.Now()
		ctx, cancel := context.WithTimeout(w.l.ctx, statementLimit)
		err := w.attempt(ctx, what, op, steps)
		cancel()
		switch {
		case err == nil:
			w.ack(op, began)
			return
		case sqlState(err) == "40001":
			w.l.reruns.Add(1)
		default:
			w.l.fail(what, err)
			return
		}
	}
	w.l.fail(what, fmt.Errorf("rolled back %d times in a row", maxAttempts))
}

func (w *worker) attempt(ctx context.Context, what string, op int64, steps func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := w.l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := steps(ctx, tx); err != nil {
		return rolledBack(tx, err)
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO shop.ledger (op, kind) VALUES ($1, $2)", op, what); err != nil {
		return rolledBack(tx, err)
	}
	return tx.Commit()
}

func rolledBack(tx *sql.Tx, err error) error {
	if rerr := tx.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
		return errors.Join(err, rerr)
	}
	return err
}

// sqlState returns the SQLSTATE that err carries, or "".
func sqlState(err error) string {
	var s interface{ SQLState() string }
	if errors.As(err, &s) {
		return s.SQLState()
	}
	return ""
}
