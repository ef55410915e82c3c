package mirror

import (
	"bytes"
	"context"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

const (
	// firstRows is how many differing rows of a table are named.
	firstRows = 5
	// countRows is how many are counted.
	countRows = 1000
	// valueBytes is how much of a value is looked at for where it differs.
	valueBytes = 4096
)

// rowSum digests a row whose text is r.
const rowSum = `hashtextextended(r COLLATE "C", 0)::text || '/' || hashtextextended(r COLLATE "C", 77)::text`

// rowSearch looks for the rows in which one member's table differs: by digests of
// buckets of rows first, so that only rows of buckets that differ are sorted,
// and only digests of them. Memory is bounded whatever the table holds.
type rowSearch struct {
	t       *subject
	most    int      // differing rows to list
	key     []string // columns; none: rows are told apart by their images
	buckets int
	sides   [2]*side // leader, member
	conns   [2]*conn
}

// rowDiff is one key, or image, whose rows differ: how many each side has, and
// the first of them.
type rowDiff struct {
	key   []byte
	count [2]int
	first [2]rowRef
}

func (d *rowDiff) add(side int, r rowRef) {
	if d.count[side]++; d.count[side] == 1 {
		d.first[side] = r
	}
}

// rowRef is a row: its digest, and where it lies.
type rowRef struct{ sum, place string }

// differingRows names the first rows in which the member's table differs from the
// leader's, and counts them.
func (v *verification) differingRows(ctx context.Context, t *subject, other *side, hurt **wound) (rows []RowDifference, n int, atLeast bool, err error) {
	w := &rowSearch{t: t, sides: [2]*side{t.sides[0], other}, buckets: 4096, most: countRows}
	named := firstRows
	if v.o.collect {
		w.most, named = repairRows, repairNamed
	}
	lead := t.sides[0].tables[t.name]
	if !slices.ContainsFunc(lead.Key, func(c string) bool { return !slices.Contains(t.columns, c) }) {
		w.key = lead.Key
	}
	if t.sums[0].Rows > 4<<20 {
		w.buckets = 65536
	}
	err = w.sides[0].table(ctx, lead, func(c *conn) error {
		w.conns[0] = c
		return other.table(ctx, other.tables[t.name], func(c *conn) error {
			w.conns[1] = c
			differing, more, err := w.find(ctx, v)
			if err != nil {
				return err
			}
			n, atLeast = len(differing), more
			if v.o.collect {
				if *hurt, err = w.wound(ctx, differing, more); err != nil {
					return err
				}
			}
			if more && len(w.key) > 0 {
				first, err := w.walk(ctx)
				if err != nil {
					return err
				}
				if len(first) > 0 {
					differing = first
				}
			}
			rows, err = w.describe(ctx, differing[:min(len(differing), named)])
			return err
		})
	})
	return rows, n, atLeast, err
}

// keyText is the text that rows are paired by.
func (w *rowSearch) keyText() string {
	if len(w.key) > 0 {
		return rowText(w.key)
	}
	return `(SELECT to_hex(hashtextextended(x COLLATE "C", 0)) || to_hex(hashtextextended(x COLLATE "C", 77)) FROM (SELECT ` + rowText(w.t.columns) + ` AS x OFFSET 0) y)`
}

// find lists what differs, at most w.most of it, in the order of the keys;
// more tells that there may be further ones.
func (w *rowSearch) find(ctx context.Context, v *verification) (diffs []rowDiff, more bool, err error) {
	buckets, err := w.differingBuckets(ctx, v)
	if err != nil {
		return nil, false, err
	}
	if len(buckets) > w.most { // each holds one at least
		buckets, more = buckets[:w.most], true
	}
	a, err := w.open(ctx, 0, buckets)
	if err != nil {
		return nil, false, err
	}
	b, err := w.open(ctx, 1, buckets)
	if err != nil {
		return nil, false, err
	}
	for a.row != nil || b.row != nil {
		if len(diffs) == w.most {
			more = true
			break
		}
		d, err := nextKey(ctx, a, b)
		if err != nil {
			return nil, false, err
		}
		if !d.same() {
			diffs = append(diffs, d)
		}
	}
	for _, c := range w.conns {
		if err := c.exec(ctx, "CLOSE pgdist_c"); err != nil {
			return nil, false, err
		}
	}
	slices.SortStableFunc(diffs, func(x, y rowDiff) int { return compareKeys(x.key, y.key) })
	return diffs, more, nil
}

func (d rowDiff) same() bool { return d.count[0] == d.count[1] && d.first[0].sum == d.first[1].sum }

// nextKey takes the rows of the lowest key off both streams.
func nextKey(ctx context.Context, a, b *rowStream) (d rowDiff, err error) {
	d.key = a.row
	if a.row == nil || b.row != nil && bytes.Compare(b.row, a.row) < 0 {
		d.key = b.row
	}
	for i, s := range []*rowStream{a, b} {
		for s.row != nil && bytes.Equal(s.row, d.key) {
			d.add(i, s.ref)
			if err := s.next(ctx); err != nil {
				return d, err
			}
		}
	}
	return d, nil
}

// compareKeys puts numbers in their order and all else in that of its bytes.
func compareKeys(a, b []byte) int {
	x, y := strings.Split(strings.Trim(string(a), "()"), ","), strings.Split(strings.Trim(string(b), "()"), ",")
	for i := range min(len(x), len(y)) {
		m, err1 := strconv.ParseFloat(x[i], 64)
		n, err2 := strconv.ParseFloat(y[i], 64)
		if err1 == nil && err2 == nil && m != n {
			if m < n {
				return -1
			}
			return 1
		}
		if c := strings.Compare(x[i], y[i]); c != 0 && (err1 != nil || err2 != nil) {
			return c
		}
	}
	return bytes.Compare(a, b)
}

// bucketSum digests the rows of a bucket.
type bucketSum struct {
	rows int64
	sum  [2]big.Int
}

// differingBuckets reads both tables whole.
func (w *rowSearch) differingBuckets(ctx context.Context, v *verification) ([]int, error) {
	sums := make([][2]bucketSum, w.buckets)
	for i, s := range w.sides {
		for _, p := range v.partsOf(w.t, slices.Index(w.t.sides, s)) {
			where := ""
			if s.pace.rate > 0 {
				major, err := v.major(w.conns[i])
				if err != nil {
					return nil, err
				}
				where = p.where(major)
			}
			n, err := w.addBuckets(ctx, i, where, sums)
			if err != nil {
				return nil, err
			}
			if err := s.pace.spend(ctx, n); err != nil {
				return nil, err
			}
			if where == "" {
				break // all at once: every part costs an answer of its own
			}
		}
	}
	var out []int
	for b := range sums {
		l, m := &sums[b][0], &sums[b][1]
		if l.rows != m.rows || l.sum[0].Cmp(&m.sum[0]) != 0 || l.sum[1].Cmp(&m.sum[1]) != 0 {
			out = append(out, b)
		}
	}
	return out, nil
}

func (w *rowSearch) addBuckets(ctx context.Context, i int, where string, sums [][2]bucketSum) (rows int64, err error) {
	res := w.conns[i].ExecParams(ctx, `SELECT (hashtextextended(k COLLATE "C", 5) & `+strconv.Itoa(w.buckets-1)+`)::text, count(*)::text,
		sum(hashtextextended(r COLLATE "C", 0))::text, sum(hashtextextended(r COLLATE "C", 77))::text
		FROM (SELECT `+w.keyText()+` AS k, `+rowText(w.t.columns)+` AS r FROM ONLY `+w.t.name+` t`+where+` OFFSET 0) x GROUP BY 1`, nil, nil, nil, nil).Read()
	if res.Err != nil {
		return 0, res.Err
	}
	for _, r := range res.Rows {
		b, err := strconv.Atoi(string(r[0]))
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(string(r[1]), 10, 64)
		if err != nil {
			return 0, err
		}
		s := &sums[b][i]
		s.rows, rows = s.rows+n, rows+n
		for j := range s.sum {
			var x big.Int
			x.SetString(string(r[2+j]), 10)
			s.sum[j].Add(&s.sum[j], &x)
		}
	}
	return rows, nil
}

// rowStream reads keys of rows in order, a few at a time.
type rowStream struct {
	c    *conn
	buf  [][][]byte
	done bool
	row  []byte // the key; nil at the end
	ref  rowRef
}

// open reads the rows of some buckets.
func (w *rowSearch) open(ctx context.Context, i int, buckets []int) (*rowStream, error) {
	list := make([]string, len(buckets))
	for j, b := range buckets {
		list[j] = strconv.Itoa(b)
	}
	sum := `'' AS s`
	if len(w.key) > 0 {
		sum = rowSum + ` AS s`
	}
	return declare(ctx, w.conns[i], `SELECT k, s, at FROM (SELECT k COLLATE "C" AS k, `+sum+`, at::text AS at
		FROM (SELECT `+w.keyText()+` AS k, `+rowText(w.t.columns)+` AS r, t.ctid AS at FROM ONLY `+w.t.name+` t OFFSET 0) x
		WHERE hashtextextended(k COLLATE "C", 5) & `+strconv.Itoa(w.buckets-1)+` = ANY ('{`+strings.Join(list, ",")+`}'::bigint[])) y ORDER BY k, s`)
}

// declare reads a query of key, digest and place.
func declare(ctx context.Context, c *conn, query string) (*rowStream, error) {
	if err := c.exec(ctx, "DECLARE pgdist_c NO SCROLL CURSOR FOR "+query); err != nil {
		return nil, err
	}
	s := &rowStream{c: c}
	return s, s.next(ctx)
}

func (s *rowStream) next(ctx context.Context) error {
	if len(s.buf) == 0 && !s.done {
		var err error
		if s.buf, err = s.c.fetch(ctx, 500); err != nil {
			return err
		}
		s.done = len(s.buf) == 0
	}
	s.row = nil
	if len(s.buf) > 0 {
		r := s.buf[0]
		s.buf = s.buf[1:]
		s.row, s.ref = r[0], rowRef{string(r[1]), string(r[2])}
	}
	return nil
}

// describe reads what is shown of differing rows.
func (w *rowSearch) describe(ctx context.Context, diffs []rowDiff) ([]RowDifference, error) {
	var out []RowDifference
	for _, d := range diffs {
		x := RowDifference{Leader: d.count[0], Member: d.count[1]}
		if len(w.key) > 0 {
			x.Key = *cut(new("("+strings.Join(w.key, ", ")+") = "+string(d.key)), 0)
		}
		var err error
		if x.Leader == 1 && x.Member == 1 {
			x.Columns, err = w.columns(ctx, d)
		} else {
			side := 0
			if x.Leader == 0 {
				side = 1
			}
			x.Row, err = w.image(ctx, side, d.first[side])
		}
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// image is a row's text, shortened.
func (w *rowSearch) image(ctx context.Context, side int, at rowRef) (string, error) {
	s, err := w.conns[side].one(ctx, `SELECT left(`+rowText(w.t.columns)+`, `+strconv.Itoa(4*shown)+`) FROM ONLY `+w.t.name+` t WHERE t.ctid = $1::text::tid`, text(at.place))
	return *cut(&s, 0), err
}

// value is the beginning of a column's text, and a digest of all of it.
type value struct {
	Text *string `json:"t"`
	Sum  *string `json:"s"`
}

// columns lists those of a row that differ.
func (w *rowSearch) columns(ctx context.Context, d rowDiff) ([]Attribute, error) {
	var sides [2][]value
	for i, c := range w.conns {
		parts := make([]string, len(w.t.columns))
		for j, col := range w.t.columns {
			// format() calls the type's output function, a cast might be a user's.
			q := "t." + quoteIdent(col)
			parts[j] = fmt.Sprintf(`CASE num_nulls(%[1]s) WHEN 0 THEN jsonb_build_object('t', left(format('%%s', %[1]s), %[2]d), 's', md5(format('%%s', %[1]s))) ELSE '{}' END`, q, valueBytes)
		}
		raw, err := c.one(ctx, `SELECT to_json(ARRAY[`+strings.Join(parts, ", ")+`])::text FROM ONLY `+w.t.name+` t WHERE t.ctid = $1::text::tid`, text(d.first[i].place))
		if err != nil {
			return nil, err
		}
		if err := decode(text(raw), &sides[i]); err != nil {
			return nil, err
		}
	}
	var out []Attribute
	for j, col := range w.t.columns {
		a, b := sides[0][j], sides[1][j]
		if a.Sum == b.Sum || a.Sum != nil && b.Sum != nil && *a.Sum == *b.Sum {
			continue
		}
		at := Attribute{Name: col, Leader: cut(quoted(a.Text), 0), Member: cut(quoted(b.Text), 0)}
		if a.Text != nil && b.Text != nil && *a.Text == *b.Text {
			at.Member = new(fmt.Sprintf("%s, other after %d characters,", *at.Member, valueBytes))
		} else {
			at.Leader, at.Member = shortened(quoted(a.Text), quoted(b.Text))
		}
		out = append(out, at)
	}
	return out, nil
}

// quoted sets a value off from "none", which is NULL.
func quoted(s *string) *string {
	if s == nil {
		return nil
	}
	return new(`"` + *s + `"`)
}

// nameRows reports in which rows the members' tables differ from the leader's.
// errMoved: nothing is reported.
func (v *verification) nameRows(ctx context.Context, t *subject) error {
	var found []Difference
	for i, s := range t.sides[1:] {
		if t.sums[i+1] == t.sums[0] {
			continue
		}
		d := difference(s.m, "table "+t.name, "")
		var err error
		d.table, d.sum, d.peers = t.name, t.sums[i+1], len(t.sides)-1
		if d.Rows, d.Differing, d.AtLeast, err = v.differingRows(ctx, t, s, &d.wound); err != nil {
			return err
		}
		d.What = fmt.Sprintf("table %s %s: %s", t.name, t.sums[i+1].how(t.sums[0]), countOf(d.Differing, d.AtLeast))
		found = append(found, d)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tables = append(v.tables, found...)
	return nil
}

func countOf(n int, atLeast bool) string {
	switch {
	case atLeast:
		return fmt.Sprintf("at least %d rows differ", n)
	case n == 1:
		return "1 row differs"
	}
	return fmt.Sprintf("%d rows differ", n)
}
