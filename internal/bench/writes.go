//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/bench/pgpool"
	"github.com/pgdist/pgdist/internal/pgtest"
)

const (
	manyRatio = 3 // pgdist to pgpool at poolSize clients
	oneRatio  = 1 // at one
	deltas    = 5000

	bookedTransaction = "pgbench -N transaction"
	singleUpdate      = "autocommit UPDATE"
)

// writes compares pgbench's transaction, and one of its statements alone,
// through pgx on one server, pgdist over three and pgpool over three others.
func (b *bench) writes(ctx context.Context) (err error) {
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	w, err := f.arena(ctx, b)
	if err != nil {
		return err
	}
	length := time.Duration(b.seconds * float64(time.Second))
	contenders := w.contenders()
	for _, op := range []struct {
		name string
		run  operation
	}{{bookedTransaction, bookDelta}, {singleUpdate, addDelta}} {
		for _, clients := range clientCounts {
			figures, err := b.compete(ctx, op.name, clients, length, b.reps, contenders, op.run)
			if err != nil {
				return err
			}
			b.judgeWrites(op.name, clients, figures)
		}
		if err := w.set.unchanged(ctx, w.began); err != nil {
			return err
		}
		if op.name == bookedTransaction {
			w.note(contenders)
		}
	}
	return w.check(ctx, b)
}

// judgeWrites compares with the better of pgpool's two protocols.
func (b *bench) judgeWrites(what string, clients int, figures []*figure) {
	plain, ours, theirs := figures[0], figures[1], figures[2]
	if figures[3].Median > theirs.Median {
		theirs = figures[3]
	}
	target := 0.0
	if what == bookedTransaction {
		target = map[bool]float64{true: oneRatio, false: manyRatio}[clients == 1]
	}
	title := fmt.Sprintf("%s, %s: pgdist to %%s", what, many(clients))
	b.verdict(compare(fmt.Sprintf(title, theirs.Contender), ours, theirs, target))
	b.note("%s, %s: pgdist reaches %.2f of plain pgx on one server", what, many(clients), ours.Median/max(plain.Median, 1e-9))
}

// arena is what the writers use.
type arena struct {
	plain, pooled []*pgtest.Server
	set           *mirrored
	began         *cast
	pool          *pgpool.Pool
	dbs           []*sql.DB // plain, pgdist, pgpool with either protocol
	ours, theirs  booked
}

// booked is what a contender's clients know of the transactions they made.
type booked struct{ acknowledged, failed int }

// note remembers how many transactions went through pgdist and pgpool.
func (w *arena) note(contenders []*contender) {
	w.ours = booked{contenders[1].succeeded, contenders[1].failed}
	w.theirs = booked{contenders[2].succeeded + contenders[3].succeeded, contenders[2].failed + contenders[3].failed}
}

func (f *fleet) arena(ctx context.Context, b *bench) (w *arena, err error) {
	w = &arena{}
	if w.plain, err = f.launch(ctx, 1, accountSchema); err != nil {
		return nil, err
	}
	if w.pooled, err = f.launch(ctx, setSize, accountSchema); err != nil {
		return nil, err
	}
	if w.set, err = f.mirror(ctx, accountSchema); err != nil {
		return nil, err
	}
	if w.began, err = w.set.cast(ctx); err != nil {
		return nil, err
	}
	if w.pool, err = pgpool.Start(ctx, w.pooled, pgpool.Options{Database: database, Children: poolSize * 2}); err != nil {
		return nil, err
	}
	f.onClose(w.pool.Stop)
	if b.report.Machine.Pgpool, err = pgpool.Version(ctx); err != nil {
		return nil, err
	}
	plain, err1 := f.open("pgx", w.plain[0].DSN())
	extended, err2 := f.open("pgx", w.pool.DSN())
	simple, err3 := f.open("pgx", w.pool.DSN()+"&default_query_exec_mode=simple_protocol")
	w.dbs = []*sql.DB{plain, w.set.db, extended, simple}
	return w, errors.Join(err1, err2, err3)
}

func (w *arena) contenders() []*contender {
	ours := []consumer{ofBench(), ofServers("leader", w.began.leader), ofServers("followers", w.began.followers...)}
	theirs := []consumer{ofBench(), {"pgpool", []int{w.pool.PID()}}, ofServers("servers", w.pooled...)}
	return []*contender{
		{name: "pgx, one server", dbs: w.dbs[0:1], consumers: []consumer{ofBench(), ofServers("server", w.plain...)}},
		{name: "pgdist, three servers", dbs: w.dbs[1:2], consumers: ours},
		{name: "pgpool, prepared", dbs: w.dbs[2:3], consumers: theirs},
		{name: "pgpool, simple protocol", dbs: w.dbs[3:4], consumers: theirs},
	}
}

// bookDelta is pgbench's script "simple-update", which pgbench -N runs.
func bookDelta(ctx context.Context, c *client) (err error) {
	aid, delta := c.pick()
	tx, err := c.db().BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreDone(tx.Rollback()))
		}
	}()
	if _, err := tx.ExecContext(ctx, "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2", delta, aid); err != nil {
		return err
	}
	var balance int
	if err := tx.QueryRowContext(ctx, "SELECT abalance FROM pgbench_accounts WHERE aid = $1", aid).Scan(&balance); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, 1, $2, $3, CURRENT_TIMESTAMP)", 1+c.rng.IntN(10), aid, delta)
	if err != nil {
		return err
	}
	return tx.Commit()
}

func addDelta(ctx context.Context, c *client) error {
	aid, delta := c.pick()
	_, err := c.db().ExecContext(ctx, "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2", delta, aid)
	return err
}

func (c *client) pick() (aid, delta int) {
	return 1 + c.rng.IntN(accounts), c.rng.IntN(2*deltas+1) - deltas
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// check closes all connections and looks at what the servers hold. A difference
// or a lost transaction behind pgdist is an error; behind pgpool it is told.
func (w *arena) check(ctx context.Context, b *bench) error {
	for _, db := range w.dbs {
		if err := db.Close(); err != nil {
			return err
		}
	}
	wrong, err := w.ours.wrong(ctx, w.set.servers)
	if err == nil && wrong != "" {
		err = fmt.Errorf("behind pgdist %s", wrong)
	}
	if err != nil {
		return err
	}
	b.note("after the writes the servers behind pgdist hold the same bytes, with all %d transactions", w.ours.acknowledged)
	if wrong, err = w.theirs.wrong(ctx, w.pooled); err != nil {
		return err
	}
	if wrong == "" {
		wrong = fmt.Sprintf("the servers hold the same bytes, with all %d transactions", w.theirs.acknowledged)
	}
	b.note("behind pgpool %s", wrong)
	return nil
}

// wrong compares servers with each other and with what the clients were told.
func (k booked) wrong(ctx context.Context, servers []*pgtest.Server) (string, error) {
	difference, err := sameBytes(ctx, servers)
	if err != nil || difference != "" {
		return difference, err
	}
	n, err := count(ctx, servers[0], "SELECT count(*) FROM pgbench_history")
	if err != nil {
		return "", err
	}
	if n < int64(k.acknowledged) || n > int64(k.acknowledged+k.failed) {
		return fmt.Sprintf("the servers hold %d transactions; %d were acknowledged, %d failed", n, k.acknowledged, k.failed), nil
	}
	return "", nil
}

// count asks one server for one number.
func count(ctx context.Context, s *pgtest.Server, query string) (n int64, err error) {
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return 0, err
	}
	err = conn.QueryRow(ctx, query).Scan(&n)
	return n, errors.Join(err, conn.Close(ctx))
}
