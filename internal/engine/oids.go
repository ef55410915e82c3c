package engine

import (
	"context"
	"errors"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// Numbers of types and tables that users have made differ between members, and
// clients know them from the leader's catalogs: what a follower says of a result
// is told in the leader's numbers.

// ErrNotHere is what a front door hands to Lease.Done when a follower's answer
// cannot be told in the leader's numbers: the statement runs again on the leader.
var ErrNotHere = errors.New("the result has types that have other numbers on the leader")

// OIDs translates one follower's numbers of relations and types.
type OIDs struct {
	relations, types map[uint32]uint32
	plain            map[uint32]bool // types, by the leader's number, whose values hold no such number in binary form
	term             int64           // the leader's
}

// Relation is the leader's number of a table or view.
func (o *OIDs) Relation(oid uint32) (uint32, bool) {
	to, ok := o.relations[oid]
	return to, ok
}

// Type is the leader's number of a type; plain tells that its values hold no
// number of a type in binary form, as those of arrays and rows do.
func (o *OIDs) Type(oid uint32) (to uint32, plain, ok bool) {
	to, ok = o.types[oid]
	return to, o.plain[to], ok
}

// unknownTerm is that of a member which began to lead after it was chosen.
const unknownTerm = -1

// Term is that of the leader whose numbers what the lease's member tells is in once oids has translated
// it. Those of another term are others: of one that leads again, too, if it was copied meanwhile.
func (l *Lease) Term(oids *OIDs) int64 {
	switch {
	case oids != nil:
		return oids.term
	case l.view.Leader == l.c.member.id:
		return l.view.Term
	}
	return unknownTerm
}

// oidTables are the translations in use.
type oidTables struct {
	mu  sync.Mutex // guards what follows
	all map[health.MemberID]*oidTable
}

// forget drops all: a member that comes into use may have been copied afresh, by
// which all its numbers change, and some then mean something else.
func (o *oidTables) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = nil
}

// oidTable is the translation for one follower under one leader.
type oidTable struct {
	mu     sync.Mutex // guards what follows; held while it is read
	leader health.MemberID
	at     time.Time
	oids   *OIDs
}

// oidAge is how old a translation must be before it is read again for a number
// that it does not have; forever, as long as it has all that is asked for.
const (
	oidAge  = time.Second
	forever = time.Duration(math.MaxInt64)
)

const oidSQL = `SELECT 'r', n.nspname, c.relname, c.oid::pg_catalog.text, 't'
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid >= 16384 AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND c.relpersistence <> 't'
UNION ALL
SELECT 't', n.nspname, t.typname, t.oid::pg_catalog.text, (t.typtype IN ('b', 'e', 'd') AND t.typelem = 0)::pg_catalog.text
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid >= 16384`

// OIDs returns what translates the numbers that the lease's member tells, nil if
// they are the leader's. fresh asks for a new one, because the one before lacked a number.
// Who could move to the leader does so if that does not answer; a READ ONLY transaction, which
// cannot, waits for one.
func (l *Lease) OIDs(ctx context.Context, fresh bool) (*OIDs, error) {
	e := l.s.e
	var pat patience
	for {
		r := e.route()
		oids, err := l.oids(ctx, r, fresh)
		if err == nil || l.s.tx.state != txOpen || !errors.Is(err, ErrNotHere) && !e.worthRetrying(err) && !classifyError(ctx, err).connectionGone() {
			return oids, err
		}
		if pat.pause == 0 {
			pat = e.newPatience()
		}
		if err := pat.wait(ctx, e.mirror, r.view.Epoch, err); err != nil {
			return nil, err
		}
	}
}

func (l *Lease) oids(ctx context.Context, r *routes, fresh bool) (*OIDs, error) {
	m := l.c.member
	if m == r.leader || l.c.purpose == readWrite {
		return nil, nil
	}
	if r.leader == nil {
		return nil, ErrNotHere
	}
	e := l.s.e
	e.oids.mu.Lock()
	if e.oids.all == nil {
		e.oids.all = map[health.MemberID]*oidTable{}
	}
	t := e.oids.all[m.id]
	if t == nil {
		t = &oidTable{}
		e.oids.all[m.id] = t
	}
	e.oids.mu.Unlock()
	age := oidAge
	if tx := &l.s.tx; tx.state == txOpen && (tx.ran || len(tx.savepoints) > 0) {
		age = 0 // it would have to run again at the leader from its beginning, for what may be just new
	}
	if !fresh {
		age = forever
	}
	return t.get(ctx, r, m, age)
}

// get returns a translation that is not older than age.
func (t *oidTable) get(ctx context.Context, r *routes, m *member, age time.Duration) (*OIDs, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, leader := time.Now(), r.leader
	if t.oids != nil && t.leader == leader.id && t.oids.term == r.view.Term && at.Sub(t.at) < age {
		return t.oids, nil
	}
	theirs, _, err := readOIDs(ctx, m)
	if err != nil {
		return nil, err
	}
	ours, plain, err := readOIDs(ctx, leader)
	if err != nil {
		return nil, err
	}
	o := &OIDs{relations: map[uint32]uint32{}, types: map[uint32]uint32{}, plain: plain, term: r.view.Term}
	for name, from := range theirs {
		to, ok := ours[name]
		switch {
		case !ok:
		case name[0] == "r":
			o.relations[from] = to
		default:
			o.types[from] = to
		}
	}
	t.leader, t.at, t.oids = leader.id, at, o
	return o, nil
}

// readOIDs lists a member's relations and types by kind, schema and name.
func readOIDs(ctx context.Context, m *member) (map[[3]string]uint32, map[uint32]bool, error) {
	pl := m.pools[readOnly]
	c, err := pl.acquire(ctx, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	defer hold{c: c}.give()
	rows, err := c.Rows(ctx, oidSQL)
	if err != nil {
		return nil, nil, err
	}
	list, plain := make(map[[3]string]uint32, len(rows)), map[uint32]bool{}
	for _, row := range rows {
		n, err := strconv.ParseUint(string(row[3]), 10, 32)
		if err != nil {
			return nil, nil, err
		}
		list[[3]string{string(row[0]), string(row[1]), string(row[2])}] = uint32(n)
		if string(row[0]) == "t" && (string(row[4]) == "true" || string(row[4]) == "t") {
			plain[uint32(n)] = true
		}
	}
	return list, plain, nil
}
