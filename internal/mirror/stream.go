package mirror

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// A big batch, or one with a table to copy whole, is read in pieces within one
// REPEATABLE READ transaction on the leader: one snapshot, bounded memory.

// extras are what a returning member's own history adds to what it missed.
type extras struct {
	keys     map[int][]byte // per table, a text[] literal of keys to ship as they are now
	plus     map[int][]byte // images to put back (the member's tail deleted them)
	minus    map[int][]byte // images to take away (the member's tail added them)
	whole    map[int]bool   // tables to copy whole
	first    bool           // whole tables are emptied before DDL, too
	mend     bool           // whole has all that a crash has emptied
	gens     map[int]int    // the generation of each table that these were journaled under
	upto     int64          // how far this brings what the member's list of what is amiss has; 0: nothing of it
	withhold bool           // users' publications publish no updates and deletes while rows are put in place
}

// streamer reads one batch in pieces and hands them to emit, in the order they
// must be applied.
type streamer struct {
	c     *conn
	from  Place
	epoch int64
	chunk int
	extra *extras
	known *sequenceState // what the members hold of sequences; nil: not known
	emit  func(op) error
	read  tabSet // tables whose rows were read
	leave bool   // tables that are in others' hands are left for another batch, …
	left  tabSet // … and are these
}

// tabSet is a set of table ids.
type tabSet map[int]bool

func (t tabSet) literal() []byte {
	var lit []byte
	for id := range t {
		lit = appendElement(lit, strconv.AppendInt(nil, int64(id), 10))
	}
	if lit == nil {
		return text("{}")
	}
	return finish(lit)
}

// run reads and emits everything; the header says where the follower is then.
// In a transaction that is open already it leaves it so.
func (s *streamer) run(ctx context.Context, floor uint64, how depth) (*batch, error) {
	if s.c.TxStatus() != 'I' {
		return s.pieces(ctx, floor, how)
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	b, err := s.pieces(ctx, floor, how)
	end := "COMMIT"
	if err != nil {
		end = "ROLLBACK"
	}
	if s.c.IsClosed() {
		return nil, err
	}
	if e := s.c.conclude(ctx, end); err == nil {
		err = e
	}
	return b, err
}

// begin opens the transaction with the tables it will read locked before its
// snapshot (PostgreSQL docs, "LOCK": under REPEATABLE READ it comes first).
// Where a lock cannot be had soon, or not by this role, it goes without:
// pgdist.unchanged() notices what the lock would have prevented. Who may leave
// tables out locks each while it reads it.
func (s *streamer) begin(ctx context.Context) error {
	const begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
	if s.leave {
		return s.c.exec(ctx, begin+"; SET LOCAL lock_timeout = '300ms'")
	}
	names, err := s.c.call(ctx, `SELECT pgdist.reads($1::bigint, $2::pg_snapshot, $3::int[])`,
		strconv.AppendInt(nil, s.from.Term, 10), nullable(s.from.Snapshot), s.extra.tabs().literal())
	if err != nil {
		return err
	}
	if list := names[0][0]; list != nil {
		err := s.c.exec(ctx, begin+"; SET LOCAL lock_timeout = '300ms'; LOCK TABLE "+string(list)+" IN ACCESS SHARE MODE; SET LOCAL lock_timeout = '10s'")
		if err == nil {
			return nil
		}
		if !busy(err) && !nameless(err) && sqlState(err) != "42501" { // not permitted
			return err
		}
		if err := s.c.conclude(ctx, "ROLLBACK"); err != nil {
			return err
		}
	}
	return s.c.exec(ctx, begin+"; SET LOCAL lock_timeout = '10s'")
}

// tabs are the tables the extras are about.
func (x *extras) tabs() tabSet {
	out := tabSet{}
	if x == nil {
		return out
	}
	for _, of := range []map[int][]byte{x.keys, x.plus, x.minus} {
		for tab := range of {
			out[tab] = true
		}
	}
	for tab := range x.whole {
		out[tab] = true
	}
	return out
}

// imaged tells whether a table without a key is among what must be undone.
func (x *extras) imaged(tab int) bool {
	return x != nil && (x.plus[tab] != nil || x.minus[tab] != nil)
}

func (s *streamer) pieces(ctx context.Context, floor uint64, how depth) (*batch, error) {
	b, err := readBatch(ctx, s.c, s.from, floor, -1, how, "")
	if err != nil {
		return nil, err
	}
	b.shown = b.newSequences(s.known)
	if b.shared != nil {
		if err := s.emit(op{kind: 'g', a: b.shared}); err != nil {
			return nil, err
		}
	}
	whole := map[int]bool{}
	if s.extra != nil {
		for tab := range s.extra.whole {
			whole[tab] = true
		}
	}
	if s.extra != nil && s.extra.first {
		if err := s.all(s.extra.vacates()); err != nil {
			return nil, err
		}
	}
	for _, o := range b.ops {
		switch o.kind {
		case 'd':
			err = s.emit(o)
		case 'e':
			if s.extra.imaged(o.tab) {
				whole[o.tab] = true // emptied, it holds no rows of the tail to take away, and must get none back
			}
			err = s.all(s.extra.withheld([]op{o}))
		case 'c':
			whole[o.tab] = true
		}
		if err != nil {
			return nil, err
		}
	}
	again := s.extra != nil && s.extra.first // rows did not fit at the first attempt
	if again {
		if err := s.emit(op{kind: 'n'}); err != nil {
			return nil, err
		}
	}
	tables, err := s.tables(ctx)
	if err != nil {
		return nil, err
	}
	if s.extra != nil {
		moved, err := s.c.call(ctx, `SELECT unnest(pgdist.moved($1::bigint, $2::pg_snapshot, $3::int[]))`,
			strconv.AppendInt(nil, s.from.Term, 10), nullable(s.from.Snapshot), s.extra.tabs().literal())
		if err != nil {
			return nil, err
		}
		for _, r := range moved {
			whole[number(r[0])] = true
		}
		for tab, gen := range s.extra.gens {
			if t, ok := tables[tab]; ok && t.gen != gen {
				whole[tab] = true // keys of a shape that the table has no more
			}
		}
	}
	if s.extra.withholds() {
		if err := s.emit(op{kind: 'o'}); err != nil {
			return nil, err
		}
	}
	for _, step := range []func(context.Context, map[int]table, map[int]bool) error{s.empties, s.deletes, s.copies, s.rows, s.images, s.journal} {
		if err := step(ctx, tables, whole); err != nil {
			return nil, err
		}
	}
	if !s.leave {
		if _, err := s.c.call(ctx, `SELECT pgdist.unchanged($1::int[])`, s.read.literal()); err != nil {
			return nil, err
		}
	}
	for _, o := range b.ops {
		if o.kind == 's' {
			if err := s.emit(o); err != nil {
				return nil, err
			}
		}
	}
	if s.extra != nil && s.extra.upto > 0 {
		if err := s.emit(op{kind: 'q', a: strconv.AppendInt(nil, s.extra.upto, 10)}); err != nil {
			return nil, err
		}
	}
	b.left = len(s.left)
	if s.extra.withholds() {
		if err := s.emit(op{kind: 'u'}); err != nil {
			return nil, err
		}
	}
	if again {
		if err := s.emit(op{kind: 'm'}); err != nil {
			return nil, err
		}
	}
	if b.shared != nil {
		if err := s.emit(op{kind: 'p', a: b.shared}); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// vacates empties the tables to be copied whole, before DDL.
func (x *extras) vacates() (ops []op) {
	for tab := range x.whole {
		ops = append(ops, op{kind: 'v', tab: tab})
	}
	return x.withheld(ops)
}

// all emits one after the other.
func (s *streamer) all(ops []op) error {
	for _, o := range ops {
		if err := s.emit(o); err != nil {
			return err
		}
	}
	return nil
}

// table is what reading needs to know of a mirrored table.
type table struct {
	keyed, upsert bool
	gen           int
	layout        []byte // what columns its rows are for
}

func (s *streamer) tables(ctx context.Context) (map[int]table, error) {
	rows, err := s.c.call(ctx, `SELECT * FROM pgdist.known()`)
	if err != nil {
		return nil, err
	}
	out := make(map[int]table, len(rows))
	for _, r := range rows {
		t := table{keyed: r[1][0] == 't', upsert: r[2][0] == 't', gen: number(r[3])}
		if len(r) > 4 { // since version 2
			t.layout = clone(r[4])
		}
		out[number(r[0])] = t
	}
	return out, nil
}

func (s *streamer) empties(_ context.Context, tables map[int]table, whole map[int]bool) error {
	for tab := range whole {
		if _, ok := tables[tab]; !ok {
			continue // dropped since
		}
		if err := s.emit(op{kind: 'w', tab: tab}); err != nil {
			return err
		}
	}
	return nil
}

// keys calls f with the touched keys of keyed tables, in pieces, roughly in the order in
// which they were touched: a follower's rows lie as the leader's do.
func (s *streamer) keys(ctx context.Context, tables map[int]table, whole map[int]bool, f func(tab int, keys []byte) error) error {
	err := s.cursor(ctx, `SELECT y.tab, array_agg(y.k) FROM (SELECT x.tab, x.k, (row_number() OVER (PARTITION BY x.tab ORDER BY x.at) - 1) / `+strconv.Itoa(s.chunk)+` AS g
		FROM (SELECT j.tab, u.k, min((j.id << 20) + u.ord) AS at FROM pgdist.fresh($1, $2) j, unnest(j.keys) WITH ORDINALITY u(k, ord) WHERE j.op = 'k' GROUP BY j.tab, u.k) x) y GROUP BY y.tab, y.g ORDER BY y.tab, y.g`,
		func(r [][]byte) error {
			tab := number(r[0])
			if t, ok := tables[tab]; !ok || !t.keyed || whole[tab] {
				return nil
			}
			return f(tab, clone(r[1]))
		})
	if err != nil || s.extra == nil {
		return err
	}
	for tab, keys := range s.extra.keys {
		if t, ok := tables[tab]; !ok || !t.keyed || whole[tab] {
			continue
		}
		if err := f(tab, keys); err != nil {
			return err
		}
	}
	return nil
}

// deletes removes all touched rows of tables where putting a row in place could
// collide with another that is about to change.
func (s *streamer) deletes(ctx context.Context, tables map[int]table, whole map[int]bool) error {
	return s.keys(ctx, tables, whole, func(tab int, keys []byte) error {
		if tables[tab].upsert {
			return nil
		}
		return s.emit(op{kind: 'r', tab: tab, a: tables[tab].layout, k: keys})
	})
}

func (s *streamer) rows(ctx context.Context, tables map[int]table, whole map[int]bool) error {
	return s.keys(ctx, tables, whole, func(tab int, keys []byte) error {
		o := op{kind: 'r', tab: tab, a: tables[tab].layout}
		if ok, err := s.reading(ctx, tab, tables[tab], keys, func() error {
			r, err := s.c.call(ctx, fmt.Sprintf(`SELECT x.pgdist_dels, x.pgdist_rows FROM pgdist.r_%d($1) x`, tab), keys)
			if err == nil {
				o.k, o.v = r[0][0], r[0][1]
			}
			return err
		}); err != nil || !ok {
			return err
		}
		// Where rows are put anew, dels are all keys once more: the same row may
		// come by two equal texts of its key, in two pieces.
		if o.k == nil && o.v == nil {
			return nil
		}
		return s.emit(o)
	})
}

// copies ships tables whole.
func (s *streamer) copies(ctx context.Context, tables map[int]table, whole map[int]bool) error {
	for tab := range whole {
		t, ok := tables[tab]
		if !ok {
			continue
		}
		var lit []byte
		n := 0
		send := func() error {
			if n == 0 {
				return nil
			}
			o := op{kind: 'r', tab: tab, a: t.layout, v: clone(finish(lit))}
			lit, n = lit[:0], 0
			return s.emit(o)
		}
		if _, err := s.reading(ctx, tab, t, nil, func() error {
			err := s.cursorOf(ctx, fmt.Sprintf(`SELECT r FROM pgdist.x_%d() r`, tab), nil, func(r [][]byte) error {
				lit, n = appendElement(lit, r[0]), n+1
				if n >= s.chunk || len(lit) > 1<<20 {
					return send()
				}
				return nil
			})
			if err != nil {
				return err
			}
			return send()
		}); err != nil {
			return err
		}
	}
	return nil
}

// images ships what is left of the journaled images of tables without a key,
// deletions first.
func (s *streamer) images(ctx context.Context, tables map[int]table, whole map[int]bool) error {
	if s.extra != nil {
		for tab, images := range s.extra.minus {
			if err := s.image(tables, whole, op{kind: 'i', tab: tab, k: images}); err != nil {
				return err
			}
		}
		for tab, images := range s.extra.plus {
			if err := s.image(tables, whole, op{kind: 'i', tab: tab, v: images}); err != nil {
				return err
			}
		}
	}
	for tab, t := range tables {
		if t.keyed || whole[tab] {
			continue
		}
		r, err := s.c.call(ctx, `SELECT dels, rows FROM pgdist.net($1, $2, $3)`, strconv.AppendInt(nil, int64(tab), 10),
			strconv.AppendInt(nil, s.from.Term, 10), nullable(s.from.Snapshot))
		if err != nil {
			return err
		}
		if r[0][0] == nil && r[0][1] == nil {
			continue
		}
		if err := s.emit(op{kind: 'i', tab: tab, a: t.layout, k: r[0][0], v: r[0][1]}); err != nil {
			return err
		}
	}
	return nil
}

func (s *streamer) image(tables map[int]table, whole map[int]bool, o op) error {
	t, ok := tables[o.tab]
	if !ok || whole[o.tab] {
		return nil
	}
	o.a = t.layout
	return s.emit(o)
}

// journal ships the entries themselves.
func (s *streamer) journal(ctx context.Context, _ map[int]table, _ map[int]bool) error {
	var lit []byte
	n := 0
	send := func() error {
		if n == 0 {
			return nil
		}
		o := op{kind: 'j', v: clone(finish(lit))}
		lit, n = lit[:0], 0
		return s.emit(o)
	}
	err := s.cursor(ctx, `SELECT textin(record_out(j.*)) FROM pgdist.fresh($1, $2) j ORDER BY j.id`, func(r [][]byte) error {
		lit, n = appendElement(lit, r[0]), n+1
		if n >= 500 || len(lit) > 1<<20 {
			return send()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return send()
}

// tooWide tells that rows read together do not fit in one array; singly they do,
// for capture let no wider ones in (the server's limits: 54000, or an allocation
// beyond 1 GB).
func tooWide(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	return pe.Code == "54000" || pe.Code == "53200" || pe.Code == "XX000" && strings.Contains(pe.Message, "invalid memory alloc request size")
}

func (s *streamer) cursor(ctx context.Context, sql string, f func([][]byte) error) error {
	return s.cursorOf(ctx, sql, [][]byte{strconv.AppendInt(nil, s.from.Term, 10), nullable(s.from.Snapshot)}, f)
}

// cursorOf reads a query's rows a few at a time, so that neither side holds
// them all and f may use the connection meanwhile.
func (s *streamer) cursorOf(ctx context.Context, sql string, params [][]byte, f func([][]byte) error) error {
	res := s.c.ExecParams(ctx, "DECLARE pgdist_c NO SCROLL CURSOR FOR "+sql, params, nil, nil, nil).Read()
	if res.Err != nil {
		return res.Err
	}
	for {
		rows, err := s.c.fetch(ctx, min(s.chunk, 64))
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := f(r); err != nil {
				return err
			}
		}
		if len(rows) == 0 {
			return s.c.exec(ctx, "CLOSE pgdist_c")
		}
	}
}

func (c *conn) fetch(ctx context.Context, n int) ([][][]byte, error) {
	res, err := c.Exec(ctx, "FETCH "+strconv.Itoa(n)+" FROM pgdist_c").ReadAll()
	if err != nil {
		return nil, err
	}
	return res[0].Rows, nil
}
