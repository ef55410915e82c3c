package engine

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
)

// execUtility runs maintenance on the leader and then on the followers, each
// for itself.
func (s *Session) execUtility(ctx context.Context, st *classify.Statement, text string) (string, error) {
	switch {
	case st.Tag == "ALTER TABLE": // it leaves a CHECK behind which the plain form does not
		return "", s.refused(ctx, errRefused("DETACH PARTITION CONCURRENTLY is not supported", "Use DETACH PARTITION."))
	case s.tx.state == txNone && (st.Tag == "CREATE INDEX" || st.Tag == "DROP INDEX"):
		return s.execConcurrently(ctx, st, text)
	}
	one := *st
	one.Class = classify.Unknown // runs without a transaction around it
	if s.tx.state != txNone {
		one.Class = classify.Write
	}
	sub := classify.Verdict{Class: one.Class, Statements: []classify.Statement{one}}
	for {
		lease, err := s.Acquire(ctx, Call{SQL: text, Verdict: &sub})
		if err != nil {
			return "", err
		}
		tag, err := lease.c.exec(ctx, text)
		lease.keepOwn(nil, text, tag, err)
		leader := lease.c.member
		again, err := lease.Done(ctx, err)
		if again {
			continue
		}
		if err == nil && s.tx.state == txNone {
			s.onFollowers(ctx, leader, text)
		}
		return tag, err
	}
}

// execConcurrently runs a definition that takes several transactions. The leader
// does so; what its last transaction journals for the followers, where nobody
// else writes, is the plain form.
func (s *Session) execConcurrently(ctx context.Context, st *classify.Statement, text string) (string, error) {
	plain, err := classify.WithoutConcurrently(text)
	if err != nil {
		return "", err
	}
	one := *st
	one.Class = classify.Unknown // runs without a transaction around it
	sub := classify.Verdict{Class: one.Class, Statements: []classify.Statement{one}}
	for first := true; ; first = false {
		lease, err := s.Acquire(ctx, Call{SQL: text, Verdict: &sub})
		if err != nil {
			return "", err
		}
		tag, err := "", error(nil)
		if !first && st.Tag == "CREATE INDEX" {
			err = dropAbandoned(ctx, lease.c)
		}
		if err == nil {
			tag, err = concurrently(ctx, lease.c, st, text, plain)
		}
		var pe *pgconn.PgError
		if !first && st.Tag == "DROP INDEX" && errors.As(err, &pe) && pe.Code == "42704" {
			tag, err = st.Tag, nil // it was there before, and was dropped in what followed
		}
		again, err := lease.Done(ctx, err)
		if !again {
			return tag, err
		}
	}
}

func concurrently(ctx context.Context, c *conn, st *classify.Statement, text, plain string) (string, error) {
	before, err := invalidIndexes(ctx, c, "")
	if err != nil {
		return "", err
	}
	if err := announce(ctx, c, plain, false); err != nil {
		return "", err
	}
	tag, err := c.exec(ctx, text)
	pointBare.Pass()
	if c.IsClosed() {
		return "", err
	}
	if e := announce(ctx, c, "", false); err == nil {
		err = e
	}
	if err == nil || st.Tag != "CREATE INDEX" {
		return tag, err
	}
	// PostgreSQL leaves an invalid index behind, which only this server has.
	after, e := invalidIndexes(ctx, c, "")
	for _, name := range after {
		if e == nil && !slices.Contains(before, name) {
			e = dropInvalid(ctx, c, name)
		}
	}
	return tag, errors.Join(err, e)
}

func dropInvalid(ctx context.Context, c *conn, name string) error {
	_, err := c.exec(ctx, "BEGIN; SELECT pg_catalog.set_config('pgdist.ddl', 'DROP INDEX IF EXISTS "+strings.ReplaceAll(name, "'", "''")+"', true); DROP INDEX "+name+"; COMMIT")
	return err
}

// abandoned tells of an index that nobody makes any more: who does has this lock on its
// table, through all transactions. Only its owner can drop it.
const abandoned = ` AND c.relkind = 'i' AND pg_catalog.pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation'
	AND l.relation = i.indrelid AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted)`

// dropAbandoned drops what a session that is lost has left behind of an index: it would
// be in the way of the statement when it is run again, under its name or, where it names
// none, as another.
func dropAbandoned(ctx context.Context, c *conn) error {
	names, err := invalidIndexes(ctx, c, abandoned)
	for _, name := range names {
		if err == nil {
			err = dropInvalid(ctx, c, name)
		}
	}
	return err
}

// invalidIndexes names those, ready to be put into a statement. more narrows it down.
func invalidIndexes(ctx context.Context, c *conn, more string) ([]string, error) {
	rows, err := c.Rows(ctx, `SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_index i
		JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE NOT i.indisvalid`+more)
	var names []string
	for _, row := range rows {
		names = append(names, string(row[0]))
	}
	return names, err
}

// onFollowers repeats maintenance on the other members in sync. It changes no
// data, so one that cannot do it now is only told in the log.
func (s *Session) onFollowers(ctx context.Context, leader *member, text string) {
	for _, id := range s.e.route().view.InSync {
		m := s.e.all()[id]
		if m == nil || m == leader {
			continue
		}
		if err := s.onMember(ctx, m, text); err != nil && !s.ofTemp(err) {
			s.e.log.Warn("maintenance on a follower", "member", m.id, "host", m.host, "error", err)
		}
	}
}

// ofTemp tells that a follower does not know what the maintenance was about, and need not:
// the session has temporary tables, and these are at the leader alone.
func (s *Session) ofTemp(err error) bool {
	var pe *pgconn.PgError
	return s.pins&classify.PinTemp != 0 && errors.As(err, &pe) && (pe.Code == "42P01" || pe.Code == "3F000")
}

func (s *Session) onMember(ctx context.Context, m *member, text string) error {
	pl := m.poolsOf(s.tenant)[readWrite]
	c, err := pl.acquire(ctx, nil, nil)
	if err != nil {
		return err
	}
	defer hold{c: c}.give()
	if err := c.apply(ctx, s.settings); err != nil {
		return err
	}
	_, err = c.exec(ctx, text)
	return err
}
