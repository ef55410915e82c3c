package mirror

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/pgdist/pgdist/health"
)

// compareDefinitions looks at definitions. What differs is looked at once more
// at another snapshot, for names and expressions are deparsed in the present:
// DDL between two members' readings looks like a difference. It returns why it
// must be called again, errMoved or worse.
func (v *verification) compareDefinitions(ctx context.Context, sides []*side) error {
	if v.wanted == nil && len(v.o.Tables) > 0 {
		if err := v.want(ctx, sides[0]); err != nil {
			return err
		}
	}
	if err := v.lookAtVersions(ctx, sides); err != nil {
		return err
	}
	found := make([]map[string]object, len(sides))
	at := map[*side]int{}
	for i, s := range sides {
		at[s] = i
	}
	err := each(sides, func(s *side) error {
		return v.reading(ctx, s, func(c *conn) (err error) { found[at[s]], err = readObjects(ctx, c, v.floor); return err })
	})
	if err != nil {
		return err
	}
	diffs := map[health.MemberID][]objectDiff{}
	for i, s := range sides[1:] {
		if diffs[s.m.id], err = v.diffDefinitions(ctx, sides[0], s, found[0], found[i+1]); err != nil {
			return err
		}
	}
	v.looks++
	v.forms = formsOf(found[0])
	return v.settleDefinitions(sides, diffs)
}

// settleDefinitions compares what differs with what differed at the first look.
func (v *verification) settleDefinitions(sides []*side, diffs map[health.MemberID][]objectDiff) error {
	v.r.Unclear = []Difference{}
	for _, s := range sides[1:] {
		for _, d := range v.unclear[s.m.id] {
			x := difference(s.m, d.name, d.String())
			x.Attributes = d.attrs
			v.r.Unclear = append(v.r.Unclear, x)
		}
	}
	if v.looks == 1 {
		v.suspect = diffs
		for _, d := range diffs {
			if len(d) > 0 {
				return fmt.Errorf("%w: %s", errMoved, d[0])
			}
		}
		return nil
	}
	for _, s := range sides[1:] {
		for _, d := range diffs[s.m.id] {
			if slices.ContainsFunc(v.suspect[s.m.id], func(o objectDiff) bool { return o.name == d.name }) {
				v.define(s.m, d, "")
			}
		}
	}
	if v.o.bare {
		return nil // there is a next time
	}
	// Who has left is not looked at again, and what was seen is more than nothing.
	for id, list := range v.suspect {
		m := v.set.members.get(id)
		if m == nil || slices.ContainsFunc(sides, func(s *side) bool { return s.m.id == id }) {
			continue
		}
		for _, d := range list {
			v.define(m, d, "; it left before that was looked at again")
		}
	}
	return nil
}

// define reports a definition that differs.
func (v *verification) define(m *member, d objectDiff, note string) {
	x := difference(m, d.name, d.String()+note)
	x.Attributes = d.attrs
	v.definitions = append(v.definitions, x)
}

// diffDefinitions lists what differs on one member, and how.
func (v *verification) diffDefinitions(ctx context.Context, lead, other *side, a, b map[string]object) ([]objectDiff, error) {
	if v.wanted != nil {
		a, b = v.ofWanted(a), v.ofWanted(b)
	}
	diffs := diffObjects(a, b)
	err := v.reading(ctx, lead, func(l *conn) error {
		return v.reading(ctx, other, func(o *conn) (err error) {
			var unclear []objectDiff
			floor := floorOf([]int{l.major(), o.major()})
			if diffs, unclear, err = settleObjects(ctx, l, o, v.floor, diffs); err != nil {
				return err
			}
			v.unclear[other.m.id] = unclear
			if v.wanted != nil {
				return nil
			}
			shared, err := diffShared(ctx, l, o, floor)
			diffs = append(shared, diffs...)
			return err
		})
	})
	return diffs, err
}

// lookAtVersions notes the lowest of the servers' major versions, if they differ.
func (v *verification) lookAtVersions(ctx context.Context, sides []*side) error {
	majors := make([]int, len(sides))
	for i, s := range sides {
		if err := s.with(ctx, func(c *conn) error { majors[i] = c.major(); return nil }); err != nil {
			return err
		}
	}
	v.floor, v.unclear = floorOf(majors), map[health.MemberID][]objectDiff{}
	return nil
}

// reading is with, for what may change under the reader.
func (v *verification) reading(ctx context.Context, s *side, f func(c *conn) error) error {
	err := s.with(ctx, f)
	if isMoved(ctx, err) {
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	return s.m.fail("read definitions", err)
}

func (v *verification) ofWanted(all map[string]object) map[string]object {
	out := map[string]object{}
	for name, o := range all {
		if v.wanted[o.table] {
			out[name] = o
		}
	}
	return out
}

// want finds the tables asked for, and what they consist of.
func (v *verification) want(ctx context.Context, s *side) error {
	v.wanted = map[string]bool{}
	for _, t := range v.o.Tables {
		err := s.with(ctx, func(c *conn) error {
			rows, err := c.call(ctx, `WITH RECURSIVE tree (oid) AS (
					SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
					WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist') AND n.nspname !~ '^pg_(toast|temp)'
						AND $1::text IN (c.relname::text, n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname))
					UNION SELECT h.inhrelid FROM pg_inherits h JOIN tree ON tree.oid = h.inhparent)
				SELECT format('%I.%I', n.nspname, c.relname) FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace`, text(t))
			for _, r := range rows {
				v.wanted[string(r[0])] = true
			}
			if err == nil && len(rows) == 0 && !v.o.gone {
				err = fmt.Errorf("there is no table %s", t)
			}
			return err
		})
		if err != nil {
			return s.m.fail("look for tables", err)
		}
	}
	return nil
}

// formsOf digests what belongs to each table.
func formsOf(all map[string]object) map[string]string {
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if o := all[name]; o.table != "" {
			out[o.table] += name + " " + o.digest + "\n"
		}
	}
	for table, s := range out {
		out[table] = digestOf(s)
	}
	return out
}
