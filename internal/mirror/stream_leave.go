package mirror

import (
	"context"
	"fmt"
	"strconv"
)

// reading runs f, which reads a table by keys, nil for all of it, and reports whether what it
// read counts. With s.leave it does so under a lock that is let go of when f is done, and leaves
// the table for another batch if it is not what it was at the snapshot any more, or somebody has
// it in hand: the member notes what it lacks. Else who reads many tables, or big ones, would begin
// anew for ever beside clients that create, empty and drop tables all the time; and, had it
// locked them all, keep clients from doing so, and everybody who waits behind these. It holds no
// other table's lock when it waits for one.
func (s *streamer) reading(ctx context.Context, tab int, t table, keys []byte, f func() error) (bool, error) {
	if !s.leave {
		s.read[tab] = true
		return true, f()
	}
	if !s.left[tab] {
		if err := s.c.exec(ctx, "SAVEPOINT pgdist_t"); err != nil {
			return false, err
		}
		why := s.steady(ctx, tab, t, keys == nil, f)
		if why != nil && !busy(why) && !outdated(why) && !nameless(why) {
			return false, why
		}
		if err := s.c.exec(ctx, "ROLLBACK TO pgdist_t; RELEASE pgdist_t"); err != nil || why == nil {
			return err == nil, err
		}
		if s.left == nil {
			s.left = tabSet{}
		}
		s.left[tab] = true
	}
	return false, s.emit(op{kind: 'b', tab: tab, a: strconv.AppendInt(nil, s.epoch, 10), k: keys, v: strconv.AppendInt(nil, int64(t.gen), 10)})
}

// steady runs f, which reads a table and by that locks it, and fails if this has changed since the
// snapshot. What f does with all of a table's rows it does as they come, so it is asked for before, too.
func (s *streamer) steady(ctx context.Context, tab int, t table, all bool, f func() error) error {
	these := tabSet{tab: true}.literal()
	unchanged := func() error {
		_, err := s.c.call(ctx, `SELECT pgdist.unchanged($1::int[])`, these)
		return err
	}
	if all {
		if err := s.lock(ctx, tab, t); err != nil {
			return err
		}
		if err := unchanged(); err != nil {
			return err
		}
	}
	if err := f(); err != nil {
		return err
	}
	return unchanged()
}

// lock locks a table, if this role may.
func (s *streamer) lock(ctx context.Context, tab int, t table) error {
	if t.keyed { // a plan for it locks it
		_, err := s.c.call(ctx, fmt.Sprintf(`SELECT FROM pgdist.r_%d('{}')`, tab))
		return err
	}
	// reads() of a term that is none names what it is asked for and no more.
	name, err := s.c.one(ctx, `SELECT pgdist.reads(9223372036854775807, NULL, $1::int[])`, tabSet{tab: true}.literal())
	if err == nil {
		err = s.c.exec(ctx, "SAVEPOINT pgdist_l; LOCK TABLE "+name+" IN ACCESS SHARE MODE; RELEASE pgdist_l")
	}
	if sqlState(err) == "42501" { // not permitted
		return s.c.exec(ctx, "ROLLBACK TO pgdist_l")
	}
	return err
}

// nameless tells that nothing has the name any more by which a table was to be locked.
func nameless(err error) bool {
	state := sqlState(err)
	return state == "42P01" || state == "3F000" // undefined_table, invalid_schema_name
}

// busy tells that a table is in others' hands.
func busy(err error) bool {
	state := sqlState(err)
	return state == "55P03" || state == "40P01" // lock_not_available, deadlock_detected
}
