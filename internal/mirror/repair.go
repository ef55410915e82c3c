package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgdist/pgdist/health"
)

const (
	// repairRows is how many rows of a table are put right one by one; if more differ the
	// table is copied whole.
	repairRows = 10_000
	// repairNamed is how many of them are named.
	repairNamed = 100
	// repairTries is how often what still differs is tried again.
	repairTries = 3
)

// ErrLeaderAlone: all followers agree with each other, and not with the leader.
var ErrLeaderAlone = errors.New("all followers hold the same, and the leader something else")

// Repair compares like Verify, and puts right from the leader what rows and sequences
// differ, while writes go on: a member that differs leaves the view, so that nobody reads
// it, gets the rows anew as it catches up, and comes back; members one after the other. What was repaired is then compared
// again. One that does not come back does not keep the others from being put right; the error tells. Definitions are named and left alone. Nothing of the leader's is changed. Where all followers (two or more) agree against
// the leader nothing is done without force: ErrLeaderAlone.
//
// The report has what was found; Repaired tells what is equal now.
func (s *Set) Repair(ctx context.Context, o VerifyOptions, force bool) (*Report, error) {
	o.collect, o.Known, o.Proven = true, nil, nil
	first, err := s.compare(ctx, o)
	if err != nil {
		return nil, err
	}
	if first.Against = against(first.Differences); len(first.Against) > 0 && !force {
		return first, &Error{Op: "repair", Err: fmt.Errorf("%w: %s", ErrLeaderAlone, strings.Join(first.Against, ", ")),
			Hint: "if the followers are right, have one of them lead (pgdist switchover) and repair again; if the leader is, give --force"}
	}
	last, failed, err := s.repairTables(ctx, o, first)
	if err != nil {
		return first, err
	}
	numbers, err := s.repairSequences(ctx, o, first)
	if err != nil {
		return first, errors.Join(failed, err)
	}
	for _, id := range first.View.InSync {
		if !last.Whole(id) && !slices.Contains(first.Left, id) {
			first.Left = append(first.Left, id)
		}
	}
	first.leave(s.View())
	for i := range first.Differences {
		d := &first.Differences[i]
		if !first.Whole(d.Member) {
			continue // nobody knows
		}
		if d.table != "" {
			d.Repaired = !d.in(last.Differences)
		} else if d.number {
			d.Repaired = !d.in(numbers)
		}
	}
	for _, d := range slices.Concat(last.Differences, numbers) {
		if !d.in(first.Differences) {
			first.Differences = append(first.Differences, d)
		}
	}
	return first, failed
}

// in tells whether the list has a difference of the same object on the same member.
func (d *Difference) in(list []Difference) bool {
	return slices.ContainsFunc(list, func(x Difference) bool {
		return x.Member == d.Member && x.Object == d.Object && x.number == d.number && x.table == d.table
	})
}

// against lists the tables that all of several followers hold alike, and the leader not.
func against(list []Difference) (out []string) {
	for i, d := range list {
		if d.table == "" || d.peers < 2 || slices.ContainsFunc(list[:i], func(x Difference) bool { return x.table == d.table }) {
			continue
		}
		same := 0
		for _, x := range list {
			if x.table == d.table && x.sum == d.sum {
				same++
			}
		}
		if same == d.peers {
			out = append(out, d.table)
		}
	}
	return out
}

// repairTables puts right what a comparison found, compares again, and returns the last
// comparison, and why members could not be put right.
func (s *Set) repairTables(ctx context.Context, o VerifyOptions, found *Report) (last *Report, failed, err error) {
	why := map[health.MemberID]error{}
	for range repairTries {
		o.Tables, o.gone = nil, true
		for _, d := range found.Differences {
			if d.wound != nil && !slices.Contains(o.Tables, d.table) {
				o.Tables = append(o.Tables, d.table)
			}
		}
		if len(o.Tables) == 0 {
			break
		}
		for _, id := range found.View.Followers() {
			if err := s.repairMember(ctx, found, id); ctx.Err() != nil {
				return nil, nil, err
			} else if err != nil {
				why[id] = err
			}
		}
		if found, err = s.compare(ctx, o); err != nil {
			return nil, nil, err
		}
	}
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(why)) {
		if !found.Whole(id) {
			errs = append(errs, why[id])
		}
	}
	return found, errors.Join(errs...), nil
}

// repairMember puts one member right.
func (s *Set) repairMember(ctx context.Context, found *Report, id health.MemberID) error {
	var wounds []wound
	var what []string
	for _, d := range found.Differences {
		if d.Member != id || d.wound == nil {
			continue
		}
		wounds = append(wounds, *d.wound)
		what = append(what, d.What)
		s.tell(d)
	}
	if len(wounds) == 0 {
		return nil
	}
	v := s.View()
	if v.Term != found.View.Term || !v.Has(id) {
		return nil // by another leader other things differ: the next comparison tells
	}
	err := s.expel(ctx, v, id, wounds, strings.Join(what, "; "))
	if errors.Is(err, errSuperseded) {
		return nil // as above
	}
	if err != nil {
		return err
	}
	return s.awaitBack(ctx, id)
}

// tell makes a difference known.
func (s *Set) tell(d Difference) {
	var rows []string
	for _, r := range d.Rows[:min(len(d.Rows), firstRows)] {
		rows = append(rows, r.String())
	}
	s.checks.found(d.Member)
	s.log.Error("a member differs from the leader; it has been read until now", "member", d.Host, "what", d.What, "rows", rows)
	s.notice(d.Host, "differs from the leader, and was read until now: "+d.What)
}

// repairSequences ships all sequences anew if any differs, and tells which still do.
func (s *Set) repairSequences(ctx context.Context, o VerifyOptions, found *Report) ([]Difference, error) {
	some := false
	for _, d := range found.Differences {
		if d.number {
			some = true
			s.tell(d)
		}
	}
	if !some {
		return nil, nil
	}
	err := s.inLoop(ctx, func(loop context.Context) error {
		s.forgetHeld(s.cur.InSync)
		return s.round(loop, thorough)
	})
	if err != nil {
		return nil, err
	}
	v := &verification{set: s, o: o, r: &Report{}}
	if err := v.compareSequences(ctx); err != nil {
		return nil, err
	}
	return v.numbers, nil
}

// wound tells what it takes to put the table right on the member.
func (w *rowSearch) wound(ctx context.Context, diffs []rowDiff, more bool) (*wound, error) {
	lead, other := w.sides[0].tables[w.t.name], w.sides[1].tables[w.t.name]
	if !slices.Equal(lead.Columns, other.Columns) {
		return nil, nil // its definition differs: rows cannot be put there
	}
	rows, err := w.conns[0].call(ctx, `SELECT id, gen, key FROM pgdist.identified($1::text::oid)`, text(lead.OID))
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, nil // another table's by now: it is looked at again
	}
	out := &wound{tab: number(rows[0][0]), gen: number(rows[0][1]), table: w.t.name}
	if rows[0][2] == nil || more {
		return out, nil
	}
	for side, c := range w.conns {
		var places [][]byte
		for _, d := range diffs {
			if d.count[side] > 0 {
				places = append(places, text(d.first[side].place))
			}
		}
		for some := range slices.Chunk(places, blameAtOnce) {
			var lit []byte
			for _, p := range some {
				lit = appendElement(lit, p)
			}
			found, err := c.call(ctx, `SELECT `+string(rows[0][2])+` FROM ONLY `+w.t.name+` t WHERE t.ctid = ANY ($1::tid[])`, finish(lit))
			if err != nil {
				return nil, err
			}
			for _, r := range found {
				out.keys = append(out.keys, r[0])
			}
		}
	}
	if len(out.keys) == 0 {
		return nil, errMoved
	}
	return out, nil
}
