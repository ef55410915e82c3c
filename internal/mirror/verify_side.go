package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
)

// readerSettings are for whole tables: what is pinned is for looking up keys.
// Parallel workers would be more connections than were asked for.
var readerSettings = map[string]string{
	"search_path":                     "",
	"enable_seqscan":                  "on",
	"enable_mergejoin":                "on",
	"plan_cache_mode":                 "auto",
	"max_parallel_workers_per_gather": "0",
	"default_transaction_read_only":   "on",
	"default_transaction_isolation":   "repeatable read",
}

// side is one member as an alignment sees it. Its connections, as many as may
// read at once, see one snapshot, each in transactions of its own: a lock on a
// table must not outlast the reading of it, or TRUNCATE and ALTER would wait for
// the whole comparison (and an apply ends who keeps it waiting).
type side struct {
	m        *member
	snapshot string
	tables   map[string]*relation
	pace     *pace
	conns    chan *conn // free ones; nil is one yet to be opened
}

// sides exports the alignment's snapshots, the leader's first.
func (v *verification) sides(ctx context.Context, a *alignment) ([]*side, error) {
	var out []*side
	for _, id := range append([]health.MemberID{v.view.Leader}, v.view.Followers()...) {
		m := v.set.members.get(id)
		if m == nil {
			return nil, fmt.Errorf("member %d was removed from the set", id)
		}
		if id == v.view.Leader {
			if err := a.release(ctx, m); err != nil {
				return nil, err
			}
		}
		snap, err := a.conns[id].one(ctx, exportSQL)
		if err != nil {
			return nil, m.fail("export a snapshot", err)
		}
		s := &side{m: m, snapshot: snap, pace: v.paces[id], conns: make(chan *conn, v.o.Jobs)}
		for range v.o.Jobs {
			s.conns <- nil
		}
		out = append(out, s)
	}
	return out, nil
}

// close ends the connections and waits for queries that were cut off.
func (s *side) close() {
	for range cap(s.conns) {
		c := <-s.conns
		if c == nil {
			continue
		}
		c.close()
		select {
		case <-c.CleanupDone():
		case <-time.After(time.Second):
		}
	}
}

// with runs f in a transaction that sees the snapshot.
func (s *side) with(ctx context.Context, f func(c *conn) error) (err error) {
	c := <-s.conns
	defer func() { s.conns <- c }()
	if c == nil || c.IsClosed() {
		params := maps.Clone(readerSettings)
		if c, err = dial(ctx, s.m.cfg, params); err != nil {
			c = nil
			e := &Error{Op: "connect", Member: s.m.id, Host: s.m.host, Err: err}
			if sqlState(err) == "53300" {
				e.Hint = "verify opens one connection more than --jobs to each member: give a smaller number"
			}
			return e
		}
	}
	err = c.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT "+quoteLiteral(s.snapshot))
	if err == nil {
		err = f(c)
	}
	if err == nil {
		err = c.exec(ctx, "COMMIT")
	}
	if err != nil {
		c.close() // it takes the transaction with it
	}
	return err
}

// table is with, under a lock on the table that keeps it as the snapshot saw it.
// errMoved: it is not that any more.
func (s *side) table(ctx context.Context, r *relation, f func(c *conn) error) error {
	err := s.with(ctx, func(c *conn) error {
		// TRUNCATE and ALTER TABLE show to older snapshots: a new file tells, or that the
		// table is defined anew.
		results, err := c.Exec(ctx, fmt.Sprintf(`LOCK TABLE ONLY %s IN ACCESS SHARE MODE;
			SELECT 1 FROM pg_class c WHERE c.oid = %s AND c.oid = to_regclass(%s) AND c.relfilenode = pg_relation_filenode(c.oid) AND NOT pgdist.redefined_in(c.oid)`, r.Name, r.OID, quoteLiteral(r.Name))).ReadAll()
		if err != nil {
			return err
		}
		if len(results[1].Rows) == 0 {
			return errMoved
		}
		return f(c)
	})
	if isMoved(ctx, err) {
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		return &Error{Op: "read table " + r.Name, Member: s.m.id, Host: s.m.host, Err: err, Hint: "the mirror's role must be allowed to read it: GRANT pg_read_all_data, or verify as a superuser"}
	}
	return s.m.fail("read table "+r.Name, err)
}

// isMoved tells whether an error means that the table changed under the reader,
// or that the reader had to make way for who changes it.
func isMoved(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	switch sqlState(err) {
	case "42P01", "42703", "3F000", "XX000", "40P01", "57P01", "57014", "72000":
		return true
	}
	return errors.Is(err, errMoved)
}

// pace keeps a member from being read faster than so many rows a second.
type pace struct {
	rate float64 // rows per second; 0: as fast as it goes

	mu   sync.Mutex
	free time.Time // when what was read so far is paid for
}

// spend accounts for rows that were read and waits until they are paid for.
func (p *pace) spend(ctx context.Context, rows int64) error {
	if p.rate <= 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(rows) / p.rate * float64(time.Second)))
	until := p.free
	p.mu.Unlock()
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
