package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// VerifyOptions says what to compare and how. Callbacks are called by several
// goroutines at once.
type VerifyOptions struct {
	// Tables limits the comparison to these and what they consist of: "table" or
	// "schema.table"; partitions come with their tables. Empty: everything.
	Tables []string
	// Jobs is how many connections read from each member at once. Default 4.
	Jobs int
	// Rate limits the rows read per second from each member; 0: no limit. The
	// last step of naming differing rows reads a table once without regard to it.
	Rate float64
	// Known are tables that an earlier run found equal; they are not read again
	// if their definition is the same still.
	Known map[string]Proven
	// Proven hears of each table found equal on all members.
	Proven func(Proven)
	// Progress hears how far it has come.
	Progress func(Progress)

	bare    bool  // definitions and sequences only
	gone    bool  // a table that is not there is none of the caller's mistakes
	collect bool  // what it takes to put right what differs
	pages   int64 // of a part; 0: partPages
	major   int   // of the servers; 0: as they say
}

// verification is one run of Verify.
type verification struct {
	set   *Set
	o     VerifyOptions
	r     *Report
	view  *health.View
	at    time.Time // when the snapshots were taken
	paces map[health.MemberID]*pace

	wanted  map[string]bool                  // relations to compare; nil: all
	todo    map[string]bool                  // tables still to compare; nil: all that are wanted
	why     map[string]error                 // why a table is still to be compared
	looks   int                              // at definitions
	unsure  error                            // why definitions must be looked at again
	suspect map[health.MemberID][]objectDiff // differed at the first look
	forms   map[string]string                // digests of the leader's tables' definitions
	floor   int                              // the lowest major version, 0 if all are of the same
	unclear map[health.MemberID][]objectDiff // what two versions write differently

	mu                           sync.Mutex // of what follows
	done                         Progress
	definitions, tables, numbers []Difference
}

// moves is how often what changed under the reader is tried again, at another
// snapshot each time.
const moves = 5

// Verify compares all in-sync members, definitions and contents, at one state of
// the set, while writes go on. What DDL or TRUNCATE got in the way of is
// compared at a later state.
func (s *Set) Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	o.collect = false
	return s.compare(ctx, o)
}

func (s *Set) compare(ctx context.Context, o VerifyOptions) (*Report, error) {
	set(&o.Jobs, 4)
	began := time.Now()
	v := &verification{set: s, o: o, r: &Report{Differences: []Difference{}, Unread: []Unread{}, Unclear: []Difference{}}, why: map[string]error{}, paces: map[health.MemberID]*pace{}}
	for id := range s.members.all() {
		v.paces[id] = &pace{rate: o.Rate}
	}
	for round := range moves {
		if err := v.pass(ctx); err != nil {
			return nil, err
		}
		if len(v.todo) == 0 && v.todo != nil && v.unsure == nil {
			break
		}
		if round == moves-1 && v.unsure != nil {
			return nil, &Error{Op: "compare definitions", Err: v.unsure, Hint: "definitions changed all the time; try again when no DDL runs"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.todo)) {
		v.r.Unread = append(v.r.Unread, Unread{name, fmt.Sprint(v.why[name])})
	}
	if len(o.Tables) == 0 {
		if err := v.compareSequences(ctx); err != nil {
			return nil, err
		}
		v.r.leave(s.View())
	}
	slices.SortFunc(v.tables, func(a, b Difference) int { return strings.Compare(a.Object, b.Object) })
	v.r.Differences = append(v.r.Differences, slices.Concat(v.definitions, v.tables, v.numbers)...) // an empty list in JSON, not null
	slices.SortStableFunc(v.r.Differences, func(a, b Difference) int { return int(a.Member) - int(b.Member) })
	v.r.rates(v.done.Rows, time.Since(began))
	return v.r, nil
}

// pass compares, at one alignment, what is still to be compared.
func (v *verification) pass(ctx context.Context) error {
	a, err := v.set.aligned(ctx)
	if err != nil {
		return err
	}
	defer a.close()
	v.view, v.at = a.view, time.Now()
	if v.r.View == nil {
		v.r.View = v.view
	} else if v.view.Leader != v.r.View.Leader {
		return fmt.Errorf("the leader changed while contents were compared: %w", ErrTermOver)
	}
	v.r.leave(v.view)
	sides, err := v.sides(ctx, a)
	if err != nil {
		return err
	}
	defer func() {
		for _, s := range sides {
			s.close()
		}
	}()
	if v.looks == 0 || v.unsure != nil {
		if v.unsure = v.compareDefinitions(ctx, sides); v.unsure != nil && !errors.Is(v.unsure, errMoved) {
			return v.unsure
		}
		if v.looks == 0 {
			return nil // what was proven earlier cannot be told yet
		}
	}
	return v.compareTables(ctx, sides)
}

// compareTables compares contents and names rows.
func (v *verification) compareTables(ctx context.Context, sides []*side) error {
	if v.todo != nil && len(v.todo) == 0 {
		return nil
	}
	if v.o.bare {
		v.todo = map[string]bool{}
		return nil
	}
	err := each(sides, func(s *side) error {
		return s.m.fail("list tables", s.with(ctx, func(c *conn) (err error) { s.tables, err = readRelations(ctx, c); return err }))
	})
	if err != nil {
		return err
	}
	first := v.todo == nil
	subjects := v.subjects(sides, first)
	v.todo = map[string]bool{}
	v.expect(subjects, first)
	differ, err := v.digestTables(ctx, sides, subjects)
	if err != nil {
		return err
	}
	for _, t := range subjects {
		if t.moved == nil {
			v.r.Rows += t.sums[0].Rows
		} else {
			v.todo[t.name], v.why[t.name] = true, t.moved
		}
	}
	return v.nameAll(ctx, differ)
}

// expect says what is to be read.
func (v *verification) expect(subjects []*subject, first bool) {
	if first {
		v.r.Tables += len(subjects)
	}
	v.advance(func(g *Progress) {
		if !first {
			return
		}
		g.Tables = len(subjects)
		for _, t := range subjects {
			for _, s := range t.sides {
				g.Estimated += int64(estimate(s.tables[t.name]))
			}
		}
	})
}

// nameAll names the differing rows of tables, several at once.
func (v *verification) nameAll(ctx context.Context, differ []*subject) error {
	turns := make(chan struct{}, v.o.Jobs)
	return each(differ, func(t *subject) error {
		turns <- struct{}{}
		defer func() { <-turns }()
		err := v.nameRows(ctx, t)
		if errors.Is(err, errMoved) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.todo[t.name], v.why[t.name] = true, err
			v.r.Rows -= t.sums[0].Rows
			return nil
		}
		return err
	})
}

// each runs f for all at once and returns the first error.
func each[T any](list []T, f func(T) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, x := range list {
		wg.Go(func() { errs[i] = f(x) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) major(c *conn) (int, error) {
	if v.o.major != 0 {
		return v.o.major, nil
	}
	return strconv.Atoi(serverVersion(c))
}

func difference(m *member, object, what string) Difference {
	return Difference{Member: m.id, Host: m.host, Object: object, What: what}
}
