package mirror

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Place is a position: "equal to the leader of Term as Snapshot sees it".
// Snapshot is a pg_snapshot's text (PostgreSQL docs, "Transaction ID and
// Snapshot Information Functions"); "" is all of the term: the member led it.
type Place struct {
	Term     int64
	Snapshot string
}

func (p Place) String() string {
	if p.Snapshot == "" {
		return fmt.Sprintf("(%d, all)", p.Term)
	}
	return fmt.Sprintf("(%d, %s)", p.Term, p.Snapshot)
}

// snapshot is a parsed pg_snapshot.
type snapshot struct {
	xmin, xmax uint64
	xip        []uint64
}

func parseSnapshot(s string) (snapshot, error) {
	var out snapshot
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return out, fmt.Errorf("snapshot %q: want xmin:xmax:xip", s)
	}
	var err error
	if out.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return out, fmt.Errorf("snapshot %q: %w", s, err)
	}
	if out.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return out, fmt.Errorf("snapshot %q: %w", s, err)
	}
	if parts[2] == "" {
		return out, nil
	}
	for x := range strings.SplitSeq(parts[2], ",") {
		v, err := strconv.ParseUint(x, 10, 64)
		if err != nil {
			return out, fmt.Errorf("snapshot %q: %w", s, err)
		}
		out.xip = append(out.xip, v)
	}
	return out, nil
}

// within tells whether everything p has seen, q has seen. Snapshots of one
// server between two crashes lie on one chain, so of two places of one term one
// is always within the other.
func (p Place) within(q Place) (bool, error) {
	switch {
	case p.Term != q.Term:
		return p.Term < q.Term, nil
	case q.Snapshot == "":
		return true, nil
	case p.Snapshot == "":
		return false, nil
	}
	a, err := parseSnapshot(p.Snapshot)
	if err != nil {
		return false, err
	}
	b, err := parseSnapshot(q.Snapshot)
	if err != nil {
		return false, err
	}
	if a.xmax > b.xmax {
		return false, nil
	}
	for _, x := range b.xip {
		if x < a.xmax && !slices.Contains(a.xip, x) {
			return false, nil
		}
	}
	return true, nil
}

// xmax is the first transaction not yet begun as p sees it; 0 for all of a term.
func (p Place) xmax() (uint64, error) {
	if p.Snapshot == "" {
		return 0, nil
	}
	s, err := parseSnapshot(p.Snapshot)
	return s.xmax, err
}
