package mirror

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"time"
)

// unseen tells whether the leader has tables or materialized views that nobody knows, which
// EXPLAIN ANALYZE makes without any event trigger being told (sql/08_unseen.sql), or owners
// that nobody knows, by REASSIGN OWNED (sql/04_owners.sql).
func (b *batch) unseen() bool { return bytes.Contains(b.marker, []byte(" unseen ")) }

// takeUp has the leader journal what was made there unseen. Followers get it with the next
// batch, so before whoever made it hears of success. What the server refuses is tried again
// when shared objects are looked at next: a lock passes, and a table that cannot be mirrored
// keeps all others' DDL from working, which is told, too.
func (s *Set) takeUp(ctx context.Context) error {
	lead := s.members.get(s.cur.Leader)
	ctx, stop := s.mind(ctx, lead, s.leaderC, 0)
	defer stop()
	if err := s.leaderC.exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"); err != nil {
		return &leaderError{causeOf(ctx, err)}
	}
	left, err := s.leaderC.call(ctx, `SELECT a FROM pgdist.adopt_soon() a`)
	if err != nil && sqlState(err) == "" {
		return &leaderError{causeOf(ctx, err)}
	}
	if err != nil {
		s.log.Warn("what was made by EXPLAIN ANALYZE, or given away by REASSIGN OWNED, is so at the leader alone", "member", lead.host, "err", err)
	}
	if err := s.leaderC.conclude(ctx, "COMMIT"); err != nil { // a ROLLBACK, if that failed
		return &leaderError{causeOf(ctx, err)}
	}
	for _, r := range left {
		s.log.Error("a table cannot be mirrored and is at the leader alone: drop it", "member", lead.host, "table", string(r[0]))
	}
	return nil
}

// unmade ends what somebody began to do to indexes of a member in several transactions, and
// nobody will finish (sql/08_ddl.sql): they are dropped, at the leader for all members. Those that
// the leader has, if another, are returned, to be made anew. away: the member is not in sync, so
// nobody has anything to do there.
func (s *Set) unmade(ctx context.Context, c *conn, m *member, away bool) (broken []string, err error) {
	half, err := c.call(ctx, `SELECT h.name, h.tab, h.known FROM pgdist.half_made() h`)
	if err != nil || len(half) == 0 {
		return nil, m.fail("look for what was left half made", err)
	}
	lead := s.members.get(s.View().Leader)
	if lead == nil {
		return nil, errUnsure
	}
	if lead != m {
		if broken, err = lead.wholeIndexes(ctx, half); err != nil {
			return nil, err
		}
	}
	rows, err := c.call(ctx, `SELECT u FROM pgdist.unmade($1::boolean, $2::text[], $3::boolean) u`, text(strconv.FormatBool(away)), literalOf(broken), text(strconv.FormatBool(lead == m)))
	for _, r := range rows {
		s.log.Info("dropped an index that was left behind half made, or half dropped", "member", m.host, "index", string(r[0]))
	}
	return broken, m.fail("drop what was left half made", err)
}

// indexes ends what was left half made at a member that is away, and so nobody's any more.
func (c *catchUp) indexes(ctx context.Context) error {
	broken, err := c.s.unmade(ctx, c.mine, c.m, true)
	if err != nil || len(broken) == 0 {
		return err
	}
	return c.s.remake(ctx, c.m, broken, "")
}

// remakePause is after an attempt to make indexes anew.
const remakePause = time.Minute

// remakeSoon has an in-sync member's indexes made anew. It may take long, and nobody waits for it.
func (s *Set) remakeSoon(ctx context.Context, m *member, names []string) {
	if at := m.remake.Load(); len(names) == 0 || monotonic() < at || !m.remake.CompareAndSwap(at, math.MaxInt64) {
		return
	}
	s.done.Go(func() {
		defer m.remake.Store(later(remakePause))
		if err := s.remake(ctx, m, names, "CONCURRENTLY "); err != nil && ctx.Err() == nil {
			s.log.Warn("an index that is invalid could not be made anew; it is tried again", "member", m.host, "err", err, "hint", "if that does not end, drop the index through pgdist, and make it again")
		}
	})
}

// wholeIndexes are those of half (see pgdist.half_made) that others may have, and this leader has whole.
func (m *member) wholeIndexes(ctx context.Context, half [][][]byte) (whole []string, err error) {
	var names, tabs []string
	for _, r := range half {
		if string(r[2]) == "t" {
			names, tabs = append(names, string(r[0])), append(tabs, string(r[1]))
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	c, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	rows, err := c.call(ctx, `SELECT w FROM pgdist.whole_indexes($1::text[], $2::text[]) w`, literalOf(names), literalOf(tabs))
	for _, r := range rows {
		whole = append(whole, string(r[0]))
	}
	return whole, m.fail("look for indexes", err)
}

// remake makes indexes anew whose removal was begun, and cut off, at this member alone: REINDEX
// makes what is invalid, or dead, whole. One program at a time does so.
func (s *Set) remake(ctx context.Context, m *member, names []string, how string) error {
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	got, err := c.one(ctx, `SELECT pgdist.claim_of('indexes')`)
	if err != nil || got != "t" {
		return m.fail("make an index anew", err)
	}
	if err := c.exec(ctx, "SET session_replication_role = replica"); err != nil { // no trigger hears of it
		return m.fail("make an index anew", err)
	}
	for _, name := range names {
		err := c.exec(ctx, "REINDEX INDEX "+how+name)
		if sqlState(err) == "42P01" {
			continue // it is gone by now
		}
		if err != nil {
			return m.fail("make index "+name+" anew", err)
		}
		s.log.Info("made an index anew that was half dropped", "member", m.host, "index", name)
	}
	return nil
}

// strays refuses a member that has tables or materialized views which nobody knows, or owners:
// it was lost as the leader before what EXPLAIN ANALYZE made, or REASSIGN OWNED gave away, was
// journaled, so no tail tells of it.
func (c *catchUp) strays(ctx context.Context) error {
	n, err := c.mine.one(ctx, `SELECT CASE WHEN pgdist.given_away() THEN 'owners' ELSE (SELECT count(*) FROM pgdist.unseen())::text END`)
	if err != nil {
		return c.m.fail("look for what was made unseen", err)
	}
	if n == "owners" {
		return fmt.Errorf("%w: it gave objects away in a transaction that the set never had", ErrPlaceLost)
	}
	if n != "0" {
		return fmt.Errorf("%w: it made a table in a transaction that the set never had", ErrPlaceLost)
	}
	return nil
}
