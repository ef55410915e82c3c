//go:build unix

package random

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// crowd is many clients of one set at once. What each statement does depends on
// the others, so that only the databases are compared with each other.
type crowd struct {
	*rig
	clients int
	seed    int64
	ops     int  // steps per client; 0 is no limit
	define  bool // definitions are changed, too
	logf    func(string, ...any)

	cat    atomic.Pointer[Catalog]
	wanted atomic.Bool  // somebody waits for all transactions to end
	gate   sync.RWMutex // read: a client's transaction is open

	mu    sync.Mutex // guards what follows
	total tally
	wrong []error
}

// patience is how long a client waits for one step, a failover included.
const patience = 90 * time.Second

// start makes the first tables, by one client.
func (c *crowd) start(ctx context.Context, tables int) error {
	conn, err := c.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, s := range prelude() {
		if o := run(ctx, conn, s); o.err != nil {
			return fmt.Errorf("%s: %w", s, o.err)
		}
	}
	g := newGenerator(c.seed, 0, false)
	for range tables {
		if err := c.look(ctx); err != nil {
			return err
		}
		g.cat = c.cat.Load()
		steps := g.pick([]choice{{8, g.createTable}, {4, g.trigger}, {1, g.rule}, {1, g.view}, {1, g.insteadOf}, {2, g.index}, {2, g.newRoutine}, {1, g.addColumn}})
		for _, s := range steps {
			run(ctx, conn, s) // some of it PostgreSQL refuses
		}
	}
	return c.look(ctx)
}

// look reads the catalog anew.
func (c *crowd) look(ctx context.Context) error {
	cat, err := readCatalog(ctx, c.db)
	if err == nil {
		c.cat.Store(cat)
	}
	return err
}

// run lets the clients work until ctx ends.
func (c *crowd) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range c.clients {
		wg.Go(func() { c.client(ctx, int64(i+1)) })
	}
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for sleep(ctx, 400*time.Millisecond) {
			if err := c.look(ctx); err != nil && ctx.Err() == nil {
				c.logf("random: %v", err) // the clients use what was read before
			}
		}
	}()
	wg.Wait()
	<-looked
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// member of the crowd: a session of its own, from transaction to transaction.
func (c *crowd) client(ctx context.Context, id int64) {
	g := newGenerator(c.seed, id, false)
	g.still = !c.define
	var conn *sql.Conn
	defer func() {
		if conn != nil {
			c.end(conn)
		}
	}()
	for n := 0; ctx.Err() == nil && (c.ops == 0 || n < c.ops); {
		c.gate.RLock()
		for tx := idle; ; {
			if conn == nil {
				if conn = c.session(ctx); conn == nil {
					break
				}
			}
			steps := g.Next(c.cat.Load(), tx)
			if tx != idle && (c.wanted.Load() || ctx.Err() != nil) {
				steps = do("COMMIT")
			}
			for _, s := range steps {
				n++
				o := c.step(conn, id, s)
				tx = after(tx, s, o)
				if o.state == "lost" || o.state == "client" && errors.Is(o.err, sql.ErrConnDone) {
					c.end(conn)
					conn, tx = nil, idle
					break
				}
			}
			if tx == idle {
				break
			}
		}
		c.gate.RUnlock()
		for c.wanted.Load() && ctx.Err() == nil { // let the writer through
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// session opens one whose waits for locks end.
func (c *crowd) session(ctx context.Context) *sql.Conn {
	conn, err := c.db.Conn(ctx)
	if err == nil {
		_, err = conn.ExecContext(ctx, "SET lock_timeout = '2s'; SET statement_timeout = '20s'")
	}
	if err == nil {
		return conn
	}
	if ctx.Err() == nil {
		c.report(fmt.Errorf("open a session: %w", err))
	}
	if conn != nil {
		c.end(conn)
	}
	sleep(ctx, 100*time.Millisecond)
	return nil
}

func (c *crowd) end(conn *sql.Conn) {
	if err := conn.Close(); err != nil && !errors.Is(err, sql.ErrConnDone) {
		c.report(fmt.Errorf("close a session: %w", err))
	}
}

func (c *crowd) report(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, err)
}

// step runs one and judges its error.
func (c *crowd) step(conn *sql.Conn, id int64, s Step) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	o := run(ctx, conn, s)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.Steps++
	if o.err == nil {
		return o
	}
	c.total.Failed++
	c.total.count(o.state, s)
	message, ours := refused(o.err)
	switch {
	case ours && excused(message):
		c.total.Refused++
	case o.state == "XX000" && postgres(o.err, s):
	case ours, o.state == "lost", strings.HasPrefix(o.state, "XX"), strings.HasPrefix(o.state, "PD"), strings.HasPrefix(o.state, "58"),
		o.state == "client" && !clientError(o.err), o.state == "57P03":
		c.wrong = append(c.wrong, fmt.Errorf("client %d, after %v: %w\n%.2000s", id, time.Since(began).Round(time.Millisecond), o.err, s))
	}
	return o
}

// postgres tells of internal errors that PostgreSQL itself raises for what clients do: hstore's
// input for some texts, and GRANT, which locks nothing, beside another change of the same object,
// which may be the one that fails: ALTER TABLE, that is (src/backend/catalog/aclchk.c, ExecGrant_Relation).
func postgres(err error, s Step) bool {
	text := err.Error()
	return strings.Contains(text, "Unexpected end of string") || strings.Contains(text, "Syntax error near") ||
		strings.Contains(text, "tuple concurrently updated") && (strings.HasPrefix(s.SQL, "GRANT ") || strings.HasPrefix(s.SQL, "REVOKE ") || strings.HasPrefix(s.SQL, "ALTER TABLE "))
}

// clientError tells whether pgx refused to send a value, or a row did not arrive
// as it can read it: nothing of pgdist's.
func clientError(err error) bool {
	for _, part := range []string{"unable to encode", "failed to encode", "cannot find encode plan", "expected", "ErrTxCommitRollback", "commit unexpectedly resulted in rollback"} {
		if strings.Contains(err.Error(), part) {
			return true
		}
	}
	return false
}

// after is where the session is after a step, as far as a client can tell.
func after(tx txState, s Step, o outcome) txState {
	first, _, _ := strings.Cut(s.SQL, " ")
	switch {
	case o.state == "25P02", o.err != nil && strings.HasPrefix(s.SQL, "BEGIN;"):
		return failed
	case strings.HasPrefix(s.SQL, "ROLLBACK TO") && o.err == nil:
		return open
	case strings.HasPrefix(s.SQL, "ROLLBACK TO"):
		return failed
	case s.SQL == "COMMIT AND CHAIN" && o.err == nil:
		return tx
	case first == "COMMIT", first == "ROLLBACK":
		return idle
	case first == "BEGIN" && o.err == nil:
		return open
	case tx != idle && o.err != nil:
		return failed
	}
	return tx
}

// quiet stops all clients between transactions and compares what the members in
// sync hold. It returns how many were compared; fewer than two if too few are in
// sync, or one left in between.
func (c *crowd) quiet(ctx context.Context) (compared int, err error) {
	c.wanted.Store(true)
	c.gate.Lock()
	defer func() {
		c.wanted.Store(false)
		c.gate.Unlock()
	}()
	var d *pgtest.DifferenceError
	for limit := time.Now().Add(10 * time.Second); ; {
		before, err := c.inSync(ctx)
		if err != nil || len(before) < 2 {
			return 0, nil // a member is down, or all are; later again
		}
		err = pgtest.Compare(ctx, before...)
		again, e := c.inSync(ctx)
		if e != nil || !slices.Equal(before, again) || err != nil && !errors.As(err, &d) {
			return 0, nil
		}
		// Sequences moved by statements that failed may follow half a second late.
		if err == nil || time.Now().After(limit) {
			return len(before), err
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return 0, nil
		}
	}
}

// inSync are the DSNs of the members in sync.
func (c *crowd) inSync(ctx context.Context) ([]string, error) {
	st, err := mirror.Inspect(ctx, c.config)
	if err != nil {
		return nil, err
	}
	var dsns []string
	for _, m := range st.Members {
		for _, s := range c.lab.members {
			if m.InSync && s.Addr() == m.Host {
				dsns = append(dsns, s.DSN(c.name))
			}
		}
	}
	return dsns, nil
}

// rejoined waits until member i is in sync; -1 is all.
func (c *crowd) rejoined(ctx context.Context, i int) error {
	var last string
	for {
		st, err := mirror.Inspect(ctx, c.config)
		last = fmt.Sprint(err)
		if err == nil {
			last = fmt.Sprintf("%v %+v", st.View, st.Members)
			if !slices.ContainsFunc(st.Members, func(m mirror.MemberStatus) bool {
				return !m.InSync && (i < 0 || m.Host == c.lab.members[i].Addr())
			}) {
				return nil
			}
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return fmt.Errorf("not in sync: %s: %w", last, ctx.Err())
		}
	}
}
