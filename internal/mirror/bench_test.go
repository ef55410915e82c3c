package mirror

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// BenchmarkFlush times the halves of a flush of one changed row: reading it at the
// leader and putting it in place on a follower, as medians, without waiting for
// disks. Every other apply is one statement per call, for comparison.
func BenchmarkFlush(b *testing.B) {
	for _, x := range []struct{ name, schema, sql string }{
		{"keyed", `CREATE TABLE k (k int PRIMARY KEY, v int, f text DEFAULT repeat('x', 80)); INSERT INTO k SELECT g, 0 FROM generate_series(1, 10000) g`,
			`UPDATE k SET v = v + 1 WHERE k = 1 + $1::int % 10000`},
		{"serial", `CREATE TABLE k (k serial PRIMARY KEY, v int)`, `INSERT INTO k (v) VALUES ($1)`},
		{"keyless", `CREATE TABLE k (v int)`, `INSERT INTO k VALUES ($1)`},
	} {
		b.Run(x.name, func(b *testing.B) {
			set, servers := benchSet(b, x.schema)
			lead, err := set.members.get(1).connect(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer lead.close()
			twin := set.members.get(2).twin()
			defer twin.forget()
			c, err := twin.applier(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			h, err := c.where(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			w := pgtest.Connect(b, servers[0].DSN())
			from, epoch := h.place(), set.View().Epoch
			var reads, applies, merged []time.Duration
			var known *sequenceState
			for i := range b.N {
				if _, err := w.Exec(b.Context(), x.sql, i); err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				batch, err := readBatch(b.Context(), lead, from, 3, 2000, shallow, "")
				if err != nil {
					b.Fatal(err)
				}
				reads = append(reads, time.Since(began))
				known = batch.newSequences(known)
				steps, err := batch.steps(epoch, h.Tick+int64(i), nil)
				if err != nil {
					b.Fatal(err)
				}
				into := &applies
				if i%2 == 0 {
					steps = joined(steps)
					into = &merged
				}
				began = time.Now()
				if err := c.run(b.Context(), steps, func() error { // the commit waits for a disk
					*into = append(*into, time.Since(began))
					return nil
				}); err != nil {
					b.Fatal(err)
				}
				from = batch.to()
			}
			for name, d := range map[string][]time.Duration{"read-µs": reads, "apart-µs": applies, "apply-µs": merged} {
				if len(d) == 0 {
					continue
				}
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)/2].Nanoseconds())/1000, name)
			}
		})
	}
}

// benchSet is a set of two, in its first view, that nobody serves.
func benchSet(b *testing.B, schema string) (*Set, []*pgtest.Server) {
	b.Helper()
	servers := pgtest.Set(b, 2, pgtest.Options{Settings: map[string]string{"synchronous_commit": "off", "wal_writer_delay": "10s"}})
	var cfg Config
	for _, s := range servers {
		s.Exec(b, schema)
		conn, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			b.Fatal(err)
		}
		cfg.Members = append(cfg.Members, MemberConfig{Conn: conn})
	}
	if _, err := Init(b.Context(), cfg, InitOptions{}); err != nil {
		b.Fatal(err)
	}
	set, err := Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	set.Close() // its loop would notice that somebody else flushes
	return set, servers
}
