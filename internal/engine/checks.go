package engine

import (
	"time"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
)

// checker is a Mirror that compares the members in the background, and copies those
// afresh that need it. It is no part of Mirror: sessions have nothing to do with it.
type checker interface {
	// Checks tells how the comparison goes.
	Checks() mirror.CheckStats
	// States tells in a few words what each member is doing.
	States() map[health.MemberID]string
}

// CheckStats is what this program knows of the comparison in the background.
type CheckStats struct {
	// Rows counts rows that this program has read for it from all members together.
	Rows uint64
	// Through is when everything was last compared, by whichever program; zero: never, as
	// far as this one knows.
	Through time.Time
	// Differences counts what this program has found to differ, by member.
	Differences map[health.MemberID]uint64
}

// Checks tells how the comparison in the background goes.
func (e *Engine) Checks() CheckStats {
	c, ok := e.mirror.(checker)
	if !ok {
		return CheckStats{}
	}
	s := c.Checks()
	return CheckStats{Rows: s.Rows, Through: s.Through, Differences: s.Differences}
}

func (m mirrorSet) Checks() mirror.CheckStats { return m.set.Checks() }

func (m mirrorSet) States() map[health.MemberID]string { return m.set.States() }
