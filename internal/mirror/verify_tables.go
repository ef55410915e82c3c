package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/pgdist/pgdist/health"
)

// subject is a table that is being compared: on the leader and on the members
// that have it, too.
type subject struct {
	name    string
	columns []string // those that all of them have, in the leader's order
	sides   []*side  // the leader first

	mu    sync.Mutex
	left  int // parts not read yet
	sums  []TableSum
	moved error // it changed under a reader
}

// part is a piece of one member's table: pages [from, to), to 0 being the end.
type part struct {
	t        *subject
	side     int // within t.sides
	from, to int64
}

// partPages is how many pages are read at once if nothing limits it: about a
// second's work, so that a large table shares the connections with all others.
const partPages = 8192

// digestTables reads the tables of all sides, small ones first, and returns
// those that differ. Of those that moved nothing can be told.
func (v *verification) digestTables(ctx context.Context, sides []*side, subjects []*subject) (differ []*subject, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, s := range sides {
		parts := make(chan part)
		wg.Go(func() {
			defer close(parts)
			v.deal(ctx, s, subjects, parts)
		})
		for range v.o.Jobs {
			wg.Go(func() {
				for p := range parts {
					if err := v.readPart(ctx, p); err != nil {
						cancel(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for _, t := range subjects {
		if t.moved == nil && !t.equal() {
			differ = append(differ, t)
		}
	}
	return differ, nil
}

// deal gives out a side's parts.
func (v *verification) deal(ctx context.Context, s *side, subjects []*subject, parts chan<- part) {
	for _, t := range subjects {
		i := slices.Index(t.sides, s)
		if i < 0 {
			continue
		}
		for _, p := range v.partsOf(t, i) {
			select {
			case parts <- p:
			case <-ctx.Done():
				return
			}
		}
	}
}

// partsOf cuts a table up. Pages differ among members; sums of rows do not.
func (v *verification) partsOf(t *subject, i int) []part {
	r := t.sides[i].tables[t.name]
	step := int64(partPages)
	if v.o.pages > 0 {
		step = v.o.pages
	}
	if rate := t.sides[i].pace.rate; rate > 0 {
		// Each connection is to come round about once a second.
		perPage := max(estimate(r)/max(float64(r.Pages), 1), 1)
		step = min(step, max(int64(rate/float64(v.o.Jobs)/perPage), 1))
	}
	var out []part
	for from := int64(0); ; from += step {
		if !r.Heap || from+step >= r.Pages {
			return append(out, part{t, i, from, 0})
		}
		out = append(out, part{t, i, from, from + step})
	}
}

// estimate is how many rows a table is thought to hold.
func estimate(r *relation) float64 {
	if r.Rows < 0 || r.Rows == 0 && r.Pages > 0 {
		return float64(r.Pages) * 60
	}
	return r.Rows
}

// where limits a statement to the part.
func (p part) where(major int) string {
	if p.from == 0 && p.to == 0 {
		return ""
	}
	if major >= 14 {
		s := fmt.Sprintf(" WHERE t.ctid >= '(%d,0)'", p.from)
		if p.to > 0 {
			s += fmt.Sprintf(" AND t.ctid < '(%d,0)'", p.to)
		}
		return s
	}
	// PostgreSQL 13 scans ranges of places by reading the whole table; it looks up
	// single ones. 291 rows is what 8 kB hold at most (MaxHeapTuplesPerPage).
	to := strconv.FormatInt(p.to-1, 10)
	if p.to == 0 {
		to = "pg_relation_size(" + quoteLiteral(p.relation().Name) + "::regclass) / current_setting('block_size')::bigint - 1"
	}
	return fmt.Sprintf(` WHERE t.ctid = ANY (ARRAY(SELECT format('(%%s,%%s)', b, i)::tid FROM generate_series(%d::bigint, %s) b,
		generate_series(1, 291 * current_setting('block_size')::int / 8192) i))`, p.from, to)
}

func (p part) relation() *relation { return p.t.sides[p.side].tables[p.t.name] }

// readPart digests a part, and closes the table's account if it is the last.
func (v *verification) readPart(ctx context.Context, p part) error {
	s, r := p.t.sides[p.side], p.relation()
	if p.t.isMoved() {
		return nil
	}
	var rows [][]byte
	err := s.table(ctx, r, func(c *conn) error {
		major, err := v.major(c)
		if err != nil {
			return err
		}
		res := c.ExecParams(ctx, sumSQL(r, p.t.columns, p.where(major)), nil, nil, nil, nil).Read()
		if res.Err == nil {
			rows = res.Rows[0]
		}
		return res.Err
	})
	if errors.Is(err, errMoved) {
		p.t.mu.Lock()
		p.t.moved = err
		p.t.mu.Unlock()
		return nil
	}
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(rows[0]), 10, 64)
	if err != nil {
		return err
	}
	v.settle(p, n, rows[1:])
	return s.pace.spend(ctx, n)
}

func (t *subject) isMoved() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.moved != nil
}

func (t *subject) equal() bool {
	return !slices.ContainsFunc(t.sums, func(s TableSum) bool { return s != t.sums[0] })
}

// settle adds a part's digest.
func (v *verification) settle(p part, rows int64, sums [][]byte) {
	t := p.t
	t.mu.Lock()
	t.sums[p.side] = t.sums[p.side].plus(rows, sums...)
	t.left--
	done := t.left == 0 && t.moved == nil
	t.mu.Unlock()
	v.advance(func(g *Progress) {
		g.Rows += rows
		if done {
			g.TablesDone++
			for i, s := range t.sides { // what was only estimated is known now
				g.Estimated += t.sums[i].Rows - int64(estimate(s.tables[t.name]))
			}
		}
	})
	if done && t.equal() && len(t.sides) == 1+len(v.view.Followers()) && v.o.Proven != nil {
		v.o.Proven(Proven{Table: t.name, Definition: v.forms[t.name], Members: v.view.InSync, Rows: t.sums[0].Rows, At: v.at})
	}
}

func (v *verification) advance(f func(*Progress)) {
	v.mu.Lock()
	f(&v.done)
	now := v.done
	v.mu.Unlock()
	if v.o.Progress != nil {
		v.o.Progress(now)
	}
}

// subjects pairs the tables of all sides that are to be compared, small first.
func (v *verification) subjects(sides []*side, first bool) []*subject {
	var out []*subject
	for _, name := range slices.Sorted(maps.Keys(sides[0].tables)) {
		if !first && !v.todo[name] || v.wanted != nil && !v.wanted[name] || first && v.proven(name) {
			continue
		}
		t := &subject{name: name, sides: sides[:1], columns: sides[0].tables[name].Columns}
		for _, s := range sides[1:] {
			if r := s.tables[name]; r != nil {
				t.sides = append(slices.Clip(t.sides), s)
				t.columns = slices.DeleteFunc(slices.Clone(t.columns), func(c string) bool { return !slices.Contains(r.Columns, c) })
			}
		}
		t.sums = make([]TableSum, len(t.sides))
		for i := range t.sides {
			t.left += len(v.partsOf(t, i))
		}
		out = append(out, t)
	}
	slices.SortStableFunc(out, func(a, b *subject) int {
		return cmp.Compare(a.sides[0].tables[a.name].Pages, b.sides[0].tables[b.name].Pages)
	})
	return out
}

// proven tells whether an earlier run found the table equal, and counts it.
func (v *verification) proven(name string) bool {
	p, ok := v.o.Known[name]
	if !ok || p.Definition == "" || p.Definition != v.forms[name] || slices.ContainsFunc(v.view.InSync, func(id health.MemberID) bool { return !slices.Contains(p.Members, id) }) {
		return false
	}
	e := v.r.Earlier
	if e == nil {
		e = &Earlier{First: p.At, Last: p.At}
		v.r.Earlier = e
	}
	e.Tables, e.Rows = e.Tables+1, e.Rows+p.Rows
	v.r.Tables, v.r.Rows = v.r.Tables+1, v.r.Rows+p.Rows
	if p.At.Before(e.First) {
		e.First = p.At
	}
	if p.At.After(e.Last) {
		e.Last = p.At
	}
	return true
}
