package mirror

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
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

// unmade drops indexes at a member that somebody began to make in several transactions and
// nobody will finish (sql/08_ddl.sql). away: the member is not in sync, so nobody has
// anything to make there.
func (s *Set) unmade(ctx context.Context, c *conn, m *member, away bool) error {
	rows, err := c.call(ctx, `SELECT u FROM pgdist.unmade($1::boolean) u`, text(strconv.FormatBool(away)))
	for _, r := range rows {
		s.log.Info("dropped an index that was left behind half made", "member", m.host, "index", string(r[0]))
	}
	if err != nil {
		return m.fail("drop what was left half made", err)
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
