package mirror

import (
	"context"
	"strings"
)

// walkRows is how many rows of each side walk reads at most.
const walkRows = 100_000

// walk looks for the first rows that differ in the order of the key itself, as
// its index has it: where very many rows differ, buckets tell only some of them.
// Both sides are in one order that this process need not know: what one side has
// before a key that both have, the other has not. It finds nothing if that takes
// too many rows.
func (w *rowSearch) walk(ctx context.Context) ([]rowDiff, error) {
	var streams [2]*rowStream
	for i := range streams {
		order := make([]string, len(w.key))
		for j, k := range w.key {
			order[j] = "t." + quoteIdent(k)
		}
		var err error
		streams[i], err = declare(ctx, w.conns[i], `SELECT k, `+rowSum+`, at::text FROM (SELECT `+w.keyText()+` AS k, `+rowText(w.t.columns)+` AS r, t.ctid AS at
			FROM ONLY `+w.t.name+` t ORDER BY `+strings.Join(order, ", ")+` OFFSET 0) x`)
		if err != nil {
			return nil, err
		}
	}
	p := pairing{at: [2]map[string]int{{}, {}}}
	for n := 0; n < walkRows && len(p.found) < firstRows && (streams[0].row != nil || streams[1].row != nil); n++ {
		for i, s := range streams {
			if s.row == nil {
				continue
			}
			p.take(i, string(s.row), s.ref)
			if err := s.next(ctx); err != nil {
				return nil, err
			}
		}
	}
	if streams[0].row == nil && streams[1].row == nil {
		p.pass(0, len(p.open[0]))
		p.pass(1, len(p.open[1]))
	}
	return p.found, nil
}

// pairing matches two streams of keys in one unknown order.
type pairing struct {
	open  [2][]waitingRow   // not matched yet, in order
	gone  [2]int            // how many were before them
	at    [2]map[string]int // which place each has, those before included
	found []rowDiff
}

type waitingRow struct {
	key string
	ref rowRef
}

// take adds the next row of a side.
func (p *pairing) take(side int, key string, ref rowRef) {
	other := 1 - side
	at, ok := p.at[other][key]
	if !ok {
		p.at[side][key] = p.gone[side] + len(p.open[side])
		p.open[side] = append(p.open[side], waitingRow{key, ref})
		return
	}
	p.pass(side, len(p.open[side]))
	p.pass(other, at-p.gone[other])
	d := rowDiff{key: []byte(key)}
	d.add(side, ref)
	d.add(other, p.open[other][0].ref)
	p.drop(other, 1)
	if !d.same() {
		p.found = append(p.found, d)
	}
}

// pass notes that a side's first n rows are its alone.
func (p *pairing) pass(side, n int) {
	for _, r := range p.open[side][:n] {
		d := rowDiff{key: []byte(r.key)}
		d.add(side, r.ref)
		p.found = append(p.found, d)
	}
	p.drop(side, n)
}

func (p *pairing) drop(side, n int) {
	for _, r := range p.open[side][:n] {
		delete(p.at[side], r.key)
	}
	p.open[side], p.gone[side] = p.open[side][n:], p.gone[side]+n
}
