package driver

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pgdist/pgdist/internal/engine"
)

// PoolStats counts the connections of one pool.
type PoolStats struct {
	// InUse are at work or waited for, Idle wait for work, Max may exist.
	InUse, Idle, Max int
}

// MemberStats is what is known of one database.
type MemberStats struct {
	// ID is the database's number in the set, from 1; Host is "host:port".
	ID   int
	Host string
	// Leader and InSync are its part in the present view.
	Leader, InSync bool
	// Weight is its weight for reads; 0 is last resort.
	Weight int
	// Reads and Writes count statements that ran there since the set was
	// opened, Errors those that a broken connection ended.
	Reads, Writes, Errors uint64
	// Outstanding are statements running now.
	Outstanding int
	// Latency is a moving average over its reads; 0 if there were none.
	Latency time.Duration
	// ReadPool and WritePool are its connections.
	ReadPool, WritePool PoolStats
	// LastError is the text of the latest broken connection, or empty.
	LastError string
}

// Stats tells about each database of the set behind db.
func Stats(ctx context.Context, db *sql.DB) (list []MemberStats, err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	err = conn.Raw(func(dc any) error {
		c, ok := dc.(*Conn)
		if !ok {
			return fmt.Errorf("pgdist: Stats needs a database of driver %q, not %T", Name, dc)
		}
		list = c.Stats()
		return nil
	})
	return list, err
}

func memberStats(e *engine.Engine) []MemberStats {
	var list []MemberStats
	for _, m := range e.Stats() {
		list = append(list, MemberStats{
			ID: int(m.ID), Host: m.Host, Leader: m.Leader, InSync: m.InSync, Weight: m.Weight,
			Reads: m.Reads, Writes: m.Writes, Errors: m.Errors, Outstanding: m.Outstanding, Latency: m.Latency,
			ReadPool: poolStats(m.ReadPool), WritePool: poolStats(m.WritePool), LastError: m.LastError,
		})
	}
	return list
}

func poolStats(s engine.PoolStats) PoolStats {
	return PoolStats{InUse: s.InUse, Idle: s.Idle, Max: s.Max}
}

// ReplayStats count what became of transactions that were lost with their server while
// they were kept to be run again.
type ReplayStats struct {
	// Tried were begun anew. Of these, Done went on with the program none the wiser,
	// Differed gave another result, Failed found no leader, or were lost again and again.
	// One that is lost twice counts twice; one whose statement under way differs, after
	// those before it were the same, is in Done and in Differed.
	Tried, Done, Differed, Failed uint64
	// Unfit could not be run again: too large, or bound to their connection.
	Unfit uint64
}

// Replays tells how often transactions were run again in the set behind db.
func Replays(ctx context.Context, db *sql.DB) (stats ReplayStats, err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return stats, err
	}
	defer conn.Close()
	err = conn.Raw(func(dc any) error {
		c, ok := dc.(*Conn)
		if !ok {
			return fmt.Errorf("pgdist: Replays needs a database of driver %q, not %T", Name, dc)
		}
		stats = ReplayStats(c.e.Replays())
		return nil
	})
	return stats, err
}
