package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
)

// header is what a batch read says about itself and the leader.
type header struct {
	Epoch   int64   `json:"epoch"`
	Leads   bool    `json:"leads"`
	Term    int64   `json:"term"`
	Booted  bool    `json:"booted"`
	Snap    string  `json:"snap"` // capped: what a follower may claim after it
	Entries int64   `json:"entries"`
	Keys    int64   `json:"keys"`
	Big     bool    `json:"big"`
	DDL     bool    `json:"ddl"`
	Insert  string  `json:"insert"`  // WAL position after the snapshot …
	Flushed string  `json:"flushed"` // … and how far it was on disk
	Own     *string `json:"own"`     // the batch's own transaction number: must not have one
}

// op is one step of an apply.
type op struct {
	kind byte   // g j d e r i s, as pgdist.batch() marks them; w and v empty a table to be copied whole, after and before DDL; p ends what g began; n and m take NOT VALID constraints away and put them back; o and u do that with what users' publications publish of updates and deletes; q takes what was shipped anew off the member's list, b puts a table on it
	tab  int    // e v w r i b
	a    []byte // d e g p: description, name, state; r i: layout; b: epoch
	k, v []byte // array literals; nil is NULL
}

// batch is what a follower at place from lacks.
type batch struct {
	from   Place
	head   header
	shared []byte // roles and other shared objects; nil: as they were, or not asked for
	marker []byte // of these, as an array; set with shared
	ops    []op
	left   int // tables that are left for another batch
	// shown is what members hold of sequences after it, if it is streamed; nil: not known.
	shown *sequenceState
}

// to is the place a follower is at once it has applied the batch.
func (b *batch) to() Place { return Place{Term: b.head.Term, Snapshot: b.head.Snap} }

// empty tells that nothing is to be shipped.
func (b *batch) empty() bool { return b.head.Entries == 0 && len(b.ops) == 0 && b.shared == nil }

// gated tells that the leader's disk already holds all the batch has read.
func (b *batch) gated() bool { return lsn(b.head.Flushed) >= lsn(b.head.Insert) }

// lsn reads a pg_lsn ("16/B374D848").
func lsn(s string) uint64 {
	for i := range len(s) {
		if s[i] == '/' {
			hi, err1 := strconv.ParseUint(s[:i], 16, 32)
			lo, err2 := strconv.ParseUint(s[i+1:], 16, 32)
			if err1 != nil || err2 != nil {
				return 0
			}
			return hi<<32 | lo
		}
	}
	return 0
}

// depth is how much a batch reads beyond rows, DDL and the sequences in use.
type depth int

const (
	shallow   depth = iota
	sequences       // those that nobody has called, too
	changed         // and shared objects (roles, settings, event triggers) that are not known by their marker
	thorough        // and these in any case
	defined         // shared objects that are not known by their marker, and no more sequences
)

// with is as deep as both.
func (d depth) with(other depth) depth {
	if d == other || d == shallow {
		return other
	}
	if other == shallow {
		return d
	}
	if d == defined || other == defined {
		d, other = min(d, other), changed
	}
	return max(d, other)
}

const batchSQL = `SELECT op, tab, a, k, v FROM pgdist.batch($1::bigint, $2::pg_snapshot, $3::text::xid8, $4::int, $5::int, $6)`

// readBatch asks the leader for what place from lacks. floor is the highest
// xmax of all places this flush starts from. With limit < 0 only the header,
// DDL, emptied tables, sequences and shared objects come.
func readBatch(ctx context.Context, c *conn, from Place, floor uint64, limit int, how depth, marker string) (*batch, error) {
	name, err := c.prepare(ctx, batchSQL)
	if err != nil {
		return nil, err
	}
	b := &batch{from: from}
	rr := c.ExecPrepared(ctx, name, [][]byte{
		strconv.AppendInt(nil, from.Term, 10), nullable(from.Snapshot), strconv.AppendUint(nil, max(floor, 3), 10),
		strconv.AppendInt(nil, int64(limit), 10), strconv.AppendInt(nil, int64(how), 10), text(marker),
	}, nil, nil)
	for rr.NextRow() {
		row := rr.Values()
		if row[0][0] == 'h' {
			if err := json.Unmarshal(row[2], &b.head); err != nil {
				rr.Close() //nolint:errcheck // the decoding error is the one to report
				return nil, fmt.Errorf("batch header: %w", err)
			}
			continue
		}
		if row[0][0] == 'g' {
			b.shared, b.marker = clone(row[2]), clone(row[3])
			continue
		}
		b.ops = append(b.ops, op{kind: row[0][0], tab: number(row[1]), a: clone(row[2]), k: clone(row[3]), v: clone(row[4])})
	}
	if _, err := rr.Close(); err != nil {
		return nil, err
	}
	if b.head.Own != nil && !c.holds {
		return nil, fmt.Errorf("the batch ran in a transaction with a number of its own (%s), so its snapshot hides that", *b.head.Own)
	}
	return b, nil
}

func number(b []byte) int {
	n := 0
	for _, c := range b {
		n = n*10 + int(c-'0')
	}
	return n
}

func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append(make([]byte, 0, len(b)), b...)
}
