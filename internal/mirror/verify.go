package mirror

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/pgdist/pgdist/health"
)

// Difference is one thing in which a member differs from the leader.
type Difference struct {
	Member health.MemberID `json:"member"`
	Host   string          `json:"host"`
	What   string          `json:"what"`
	// Rows are the first rows that differ, if What is about a table's contents.
	Rows []RowDifference `json:"rows,omitempty"`
}

// RowDifference is a row that only one side has, as the text of its columns.
type RowDifference struct {
	OnLeader bool   `json:"on_leader"`
	Row      string `json:"row"`
}

// Report is what Verify found.
type Report struct {
	View        *health.View                  `json:"view"`
	Members     map[health.MemberID]*Contents `json:"-"`
	Tables      int                           `json:"tables"`
	Rows        int64                         `json:"rows"`
	Differences []Difference                  `json:"differences"`
}

// firstRows is how many differing rows of a table are named.
const firstRows = 5

// Verify compares all in-sync members, schema and contents, at one state of the
// set, while writes go on. progress is called from several goroutines; nil is none.
func (s *Set) Verify(ctx context.Context, progress func(host, table string, rows int64)) (*Report, error) {
	a, err := s.aligned(ctx)
	if err != nil {
		return nil, err
	}
	defer a.close()
	r := &Report{View: s.View(), Members: map[health.MemberID]*Contents{}}
	if err := s.digest(ctx, a, r, progress); err != nil {
		return nil, err
	}
	lead := r.Members[r.View.Leader]
	if lead == nil {
		return nil, fmt.Errorf("the leader changed while contents were compared: %w", ErrTermOver)
	}
	r.Tables = len(lead.Tables)
	for _, t := range lead.Tables {
		r.Rows += t.Rows
	}
	for _, id := range r.View.Followers() {
		c := r.Members[id]
		if c == nil {
			continue
		}
		// Sequences move without regard to snapshots: ahead of a follower is no
		// difference while writes go on; they are compared when equal work was flushed.
		c.Sequences = lead.Sequences
		if err := s.compare(ctx, a, r, id, lead, c); err != nil {
			return nil, err
		}
	}
	return r, s.compareSequences(ctx, r)
}

func (s *Set) digest(ctx context.Context, a *alignment, r *Report, progress func(host, table string, rows int64)) error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var first error
	for id, c := range a.conns {
		wg.Go(func() {
			var each func(string, int64)
			if progress != nil {
				each = func(table string, rows int64) { progress(s.hostOf(id), table, rows) }
			}
			sum, err := contents(ctx, c, each)
			mu.Lock()
			defer mu.Unlock()
			if err != nil && first == nil {
				first = s.members[id].fail("read contents", err)
			}
			r.Members[id] = sum
		})
	}
	wg.Wait()
	return first
}

func (s *Set) compare(ctx context.Context, a *alignment, r *Report, id health.MemberID, lead, c *Contents) error {
	for _, what := range lead.diff(c) {
		r.Differences = append(r.Differences, Difference{Member: id, Host: s.hostOf(id), What: what})
	}
	for name, sum := range lead.Tables {
		other, ok := c.Tables[name]
		if !ok || other == sum {
			continue
		}
		rows, err := differingRows(ctx, a.conns[r.View.Leader], a.conns[id], name)
		if err != nil {
			return err
		}
		for i := range r.Differences {
			if d := &r.Differences[i]; d.Member == id && bytes.HasPrefix([]byte(d.What), []byte("table "+name+" has ")) {
				d.Rows = rows
			}
		}
	}
	return nil
}

// compareSequences compares them at rest: a difference must stay while nothing
// moves on the leader.
func (s *Set) compareSequences(ctx context.Context, r *Report) error {
	for range 10 {
		before, err := s.readSequences(ctx, r.View.Leader)
		if err != nil {
			return err
		}
		if err := s.Flush(ctx); err != nil {
			return err
		}
		var diffs []Difference
		for _, id := range s.View().Followers() {
			have, err := s.readSequences(ctx, id)
			if err != nil {
				return err
			}
			for _, what := range (&Contents{Sequences: before}).diff(&Contents{Sequences: have}) {
				diffs = append(diffs, Difference{Member: id, Host: s.hostOf(id), What: what})
			}
		}
		after, err := s.readSequences(ctx, r.View.Leader)
		if err != nil {
			return err
		}
		if len(diffs) == 0 {
			return nil
		}
		if len((&Contents{Sequences: before}).diff(&Contents{Sequences: after})) == 0 {
			r.Differences = append(r.Differences, diffs...)
			return nil
		}
	}
	return nil // they never stood still; the flushes set them each time
}

func (s *Set) readSequences(ctx context.Context, id health.MemberID) (map[string]string, error) {
	c, err := s.members[id].connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	return sequenceValues(ctx, c)
}

// differingRows merges the two sides, each in the order of its text.
func differingRows(ctx context.Context, lead, other *conn, table string) ([]RowDifference, error) {
	a, err := openRows(ctx, lead, table)
	if err != nil {
		return nil, err
	}
	b, err := openRows(ctx, other, table)
	if err != nil {
		return nil, err
	}
	var out []RowDifference
	for len(out) < firstRows && (a.row != nil || b.row != nil) {
		order := bytes.Compare(a.row, b.row)
		switch {
		case a.row != nil && b.row != nil && order == 0:
			err = a.next(ctx)
			if err == nil {
				err = b.next(ctx)
			}
		case b.row == nil || (a.row != nil && order < 0):
			out = append(out, RowDifference{OnLeader: true, Row: string(a.row)})
			err = a.next(ctx)
		default:
			out = append(out, RowDifference{Row: string(b.row)})
			err = b.next(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := lead.exec(ctx, "CLOSE pgdist_c"); err != nil {
		return nil, err
	}
	return out, other.exec(ctx, "CLOSE pgdist_c")
}

// rows reads a table's rows in order, a few at a time.
type rows struct {
	c    *conn
	buf  [][][]byte
	row  []byte // nil at the end
	done bool
}

func openRows(ctx context.Context, c *conn, table string) (*rows, error) {
	found, err := c.call(ctx, `SELECT t[3] FROM (SELECT ARRAY[a, b, c] AS t FROM (`+tablesSQL+`) x(a, b, c)) y WHERE t[1] = $1`, text(table))
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("table %s is gone", table)
	}
	err = c.exec(ctx, `DECLARE pgdist_c NO SCROLL CURSOR FOR SELECT r FROM (SELECT `+string(found[0][0])+` COLLATE "C" AS r FROM ONLY `+table+` t) x ORDER BY r`)
	if err != nil {
		return nil, err
	}
	r := &rows{c: c}
	return r, r.next(ctx)
}

func (r *rows) next(ctx context.Context) error {
	if len(r.buf) == 0 && !r.done {
		var err error
		if r.buf, err = r.c.fetch(ctx, 64); err != nil {
			return err
		}
		r.done = len(r.buf) == 0
	}
	r.row = nil
	if len(r.buf) > 0 {
		r.row = append([]byte{}, r.buf[0][0]...)
		r.buf = r.buf[1:]
	}
	return nil
}
