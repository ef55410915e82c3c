package engine

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"
)

// Followers hold no data in materialized views. A read of one that ends up there
// fails and is run again at the leader, unseen; one whose text names a
// materialized view, or what is known to read one, goes to the leader at once.
// That is more than haste: a function may catch the error and give an answer that
// a plain PostgreSQL would not.

// hollowSQL names the materialized views, the views that read them, and the
// functions that mention any of these; then what reads these in turn. A function
// that catches errors and runs texts made on the fly may read anything.
const hollowSQL = `WITH RECURSIVE ` + ownSQL + `, hollow(class, id, name) AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, c.oid, c.relname::text FROM pg_catalog.pg_class c WHERE c.relkind = 'm'
  UNION
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::oid, p.oid, p.proname::text
      FROM own p WHERE p.prosrc ~* '\mexecute\M' AND p.prosrc ~* '\mexception\M'
  UNION
    SELECT x.class, x.id, x.name FROM hollow h, LATERAL (
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid AS class, v.oid AS id, v.relname::text AS name
          FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid JOIN pg_catalog.pg_class v ON v.oid = w.ev_class
         WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.refclassid = h.class AND d.refobjid = h.id
      UNION ALL
        SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::oid, p.oid, p.proname::text
          FROM own p
         WHERE (CASE WHEN h.name ~ '^\w+$' THEN p.prosrc ~* ('\m' || h.name || '\M') ELSE pg_catalog.strpos(pg_catalog.lower(p.prosrc), pg_catalog.lower(h.name)) > 0 END
                OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                              AND d.refclassid = h.class AND d.refobjid = h.id))) x)
  SELECT DISTINCT pg_catalog.lower(name) FROM hollow`

// viewsPrintSQL gives what is another text if any view is another or has another name, and ""
// if none is materialized.
const viewsPrintSQL = `SELECT pg_catalog.count(*) || ' ' || pg_catalog.sum(pg_catalog.hashtextextended(d, 0)) FROM (
    SELECT c.oid || ' ' || c.relname || ' ' || w.oid || ' ' || w.xmin::text
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_rewrite w ON w.ev_class = c.oid WHERE c.oid >= 16384) AS u(d)
  HAVING EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE relkind = 'm')`

// hollow is one reading of these names, in lower case, nil if there are none; code and views
// are prints of what it was read from.
type hollow struct {
	names       []string
	code, views string
}

// hollow reads these names, unless all is as it was when before was read. Compiling the query
// would take longer than running it.
func (c *conn) hollow(ctx context.Context, before *hollow, code string) (*hollow, error) {
	views, err := c.print(ctx, viewsPrintSQL)
	if err != nil {
		return nil, err
	}
	if before != nil && before.code == code && before.views == views {
		return before, nil
	}
	h := &hollow{code: code, views: views}
	if views == "" {
		return h, nil
	}
	if _, err := c.exec(ctx, "BEGIN; SET LOCAL jit = off"); err != nil {
		return nil, err
	}
	rows, err := c.Rows(ctx, hollowSQL)
	if err != nil {
		return nil, errors.Join(err, c.end(ctx))
	}
	for _, row := range rows {
		h.names = append(h.names, string(row[0]))
	}
	return h, c.end(ctx)
}

// end ends a transaction of the engine's own.
func (c *conn) end(ctx context.Context) error {
	_, err := c.exec(ctx, "ROLLBACK")
	return err
}

// hollow tells whether a text names something known to read a materialized view.
// Texts that have such a name for another reason run on the leader, no harm.
func (c *catalog) hollow(sql string) bool {
	f := c.known.Load()
	if f == nil {
		return c.views.Load() // definitions have changed, and are being read
	}
	if len(f.hollow.names) == 0 {
		return false
	}
	if time.Since(f.at) > catalogAge {
		c.load(false)
	}
	for _, name := range f.hollow.names {
		if hasWord(sql, name) {
			return true
		}
	}
	return false
}

// hasWord tells whether sql has name, in lower case, as a word. A quote within a
// name stands twice in SQL, and upper and lower case are told apart in quotes
// only: here neither matters.
func hasWord(sql, name string) bool {
	name = strings.ReplaceAll(name, `"`, `""`)
	for i := 0; i+len(name) <= len(sql); i++ {
		if strings.EqualFold(sql[i:i+len(name)], name) && (i == 0 || !wordByte(sql[i-1])) && (i+len(name) == len(sql) || !wordByte(sql[i+len(name)])) {
			return true
		}
	}
	return false
}

func wordByte(b byte) bool {
	return b == '_' || b == '$' || '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z' || b >= utf8.RuneSelf
}

// hollowTime is how long read-only transactions begin at the leader after one on
// a follower came upon a materialized view when it was too late to move.
const hollowTime = time.Minute

func (e *Engine) recentlyHollow() bool { return nanotime() < e.hollowUntil.Load() }

// atLeader tells whether the lease is on the present leader, whose word on
// materialized views is final.
func (l *Lease) atLeader() bool { return l.c.member == l.s.e.route().leader }

// hollow tells whether a read that found a materialized view without data is to
// be run again, at the leader.
func (l *Lease) hollow() bool {
	l.s.e.catalog.load(false) // it may know next time
	again := !l.s.try.hollow && !l.atLeader()
	l.s.try.hollow = true
	return again
}

// hollowTx moves a transaction on a follower to the leader, if what it has read
// so far does not bind it to the follower's snapshot.
func (s *Session) hollowTx(moving bool) (again bool, err error) {
	s.e.catalog.load(false)
	s.try.hollow = true
	if !moving && (s.tx.ran || len(s.tx.savepoints) > 0) {
		s.e.hollowUntil.Store(nanotime() + int64(hollowTime))
		s.failTx()
		return false, errHollow()
	}
	s.toLeader(moving)
	return true, nil
}

// notHereTx moves a READ ONLY transaction to the leader whose follower's answer cannot be told
// in the leader's numbers. If it has read something already, it has to be run again there.
func (l *Lease) notHereTx(ctx context.Context) (again bool, err error) {
	s := l.s
	if !s.tx.ran && len(s.tx.savepoints) == 0 {
		s.toLeader(false)
		return true, nil
	}
	s.e.hollowUntil.Store(nanotime() + int64(hollowTime))
	j := s.tx.journal
	if !l.expect() || !j.keeps() || s.unfit() != "" {
		s.failTx()
		return false, errNotHere()
	}
	s.tx.leaderOnly, j.at = true, leaderRead
	err = s.recover(ctx, lossConnection)
	return err == nil, err
}

// toLeader has a transaction begin anew at the leader.
func (s *Session) toLeader(moving bool) {
	h := s.held
	s.held = hold{}
	s.tx.state = txPending
	s.tx.leaderOnly = s.tx.leaderOnly || !moving
	if rollback(h) {
		h.give()
	} else {
		h.drop()
	}
}
