package mirror

import (
	"context"
	"fmt"
	"slices"
	"strconv"
)

// A member's data went through terms, each the time one leader was in office. A
// member that comes back shares a prefix of that chain with the leader; what
// either wrote since the last term they share is shipped: what the member
// missed, and its own tail, which the set never had.

// meeting is where the histories of a returning member and the leader part.
type meeting struct {
	term int64
	mine Place // the member's place when it left that term (or now)
	lead Place // the leader's
}

// meet finds the last term both went through.
func meet(m, lead *here) (meeting, error) {
	known := map[int64]bool{lead.Term: true}
	for _, t := range lead.Terms {
		known[t.Prev] = true
		known[t.Term] = true
	}
	at := m.place()
	for !known[at.Term] {
		i := slices.IndexFunc(m.Terms, func(t termRow) bool { return t.Term == at.Term })
		if i < 0 {
			return meeting{}, fmt.Errorf("%w: it and the leader share no term (it is at %v)", ErrPlaceLost, m.place())
		}
		at = Place{Term: m.Terms[i].Prev, Snapshot: m.Terms[i].Snap}
	}
	out := meeting{term: at.Term, mine: at, lead: lead.place()}
	// The leader left the term when the next one in its chain began.
	for _, t := range lead.Terms {
		if t.Prev == at.Term {
			out.lead = Place{Term: t.Prev, Snapshot: t.Snap}
			break
		}
	}
	return out, nil
}

// route decides from where the member's missing changes are read, and what its
// tail adds to them.
func (c *catchUp) route(ctx context.Context, h, lead *here) (Place, *extras, error) {
	met, err := meet(h, lead)
	if err != nil {
		return Place{}, nil, err
	}
	if err := complete("the leader", lead.floor(), met.mine); err != nil {
		return Place{}, nil, err
	}
	if met.lead.Term == lead.Term && met.lead == lead.place() && h.Term == lead.Term {
		return met.mine, nil, nil // it followed this leader: it wrote nothing of its own
	}
	if err := complete("its own", h.floor(), met.lead); err != nil {
		return Place{}, nil, err
	}
	if err := c.strays(ctx); err != nil {
		return Place{}, nil, err
	}
	x, err := c.tail(ctx, met.lead)
	return met.mine, x, err
}

// mend adds the tables that the member's crash has emptied, and those that a crash
// would empty at the leader: they are copied whole.
func (c *catchUp) mend(ctx context.Context, x *extras) (*extras, error) {
	if x == nil {
		x = &extras{}
	}
	if x.whole == nil {
		x.whole = map[int]bool{}
	}
	x.mend = true
	for _, at := range []*conn{c.mine, c.leader} {
		rows, err := at.call(ctx, `SELECT l FROM pgdist.lost() l`)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			x.whole[number(r[0])] = true
		}
	}
	c.s.log.Info("a member crashed: copying what is not logged", "member", c.m.host, "tables", len(x.whole))
	return x, nil
}

// complete tells whether a journal still holds everything after a place.
func complete(whose string, floor, from Place) error {
	ok, err := floor.within(from)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %s journal was pruned up to %v, and changes since %v are needed", ErrPlaceLost, whose, floor, from)
	}
	return nil
}

// tail reads what the member wrote beyond the place from which the set went on
// without it.
func (c *catchUp) tail(ctx context.Context, from Place) (*extras, error) {
	rows, err := c.mine.call(ctx, `SELECT op, tab, gen, keys FROM pgdist.tail($1::bigint, $2::pg_snapshot)`, strconv.AppendInt(nil, from.Term, 10), nullable(from.Snapshot))
	if err != nil {
		return nil, c.m.fail("read its tail", err)
	}
	x := &extras{keys: map[int][]byte{}, plus: map[int][]byte{}, minus: map[int][]byte{}, whole: map[int]bool{}, gens: map[int]int{}}
	for _, r := range rows {
		tab, gen := number(r[1]), number(r[2])
		if had, ok := x.gens[tab]; ok && had != gen && r[0][0] != 'd' {
			x.whole[tab] = true // of two shapes
		}
		x.gens[tab] = gen
		switch r[0][0] {
		case 'k':
			x.keys[tab] = r[3]
		case '+':
			x.minus[tab] = r[3]
		case '-':
			x.plus[tab] = r[3]
		case 'd':
			return nil, fmt.Errorf("%w: it changed the schema in a transaction that the set never had", ErrPlaceLost)
		default:
			x.whole[tab] = true
		}
	}
	if len(rows) > 0 {
		c.s.log.Info("undoing what a member wrote before it was lost", "member", c.m.host, "from", from.String(), "tables", len(rows))
	}
	return x, nil
}
