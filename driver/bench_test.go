package driver

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const benchRows = 10000

// benchTables fills each server with the same rows.
func benchTables(b *testing.B, servers []*pgtest.Server) {
	b.Helper()
	for _, s := range servers {
		s.Exec(b, fmt.Sprintf(`CREATE TABLE p (id int PRIMARY KEY, v text);
			INSERT INTO p SELECT i, md5(i::text) FROM generate_series(0, %d) i; ANALYZE p`, benchRows-1))
	}
}

// BenchmarkPointRead compares point reads through pgx's driver on one server
// with reads through pgdist on that server alone and on three.
func BenchmarkPointRead(b *testing.B) {
	servers := pgtest.Set(b, 3, pgtest.Options{FsyncOff: true})
	benchTables(b, servers)
	plain, err := sql.Open("pgx", servers[0].DSN())
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	one, _ := openFake(b, nil, servers[0].DSN())
	three, _ := openFake(b, nil, dsnsOf(servers)...)
	for _, goroutines := range []int{1, 16} {
		for _, c := range []struct {
			name string
			db   *sql.DB
		}{{"pgx", plain}, {"one", one}, {"three", three}} {
			c.db.SetMaxIdleConns(32)
			b.Run(fmt.Sprintf("%s-%d", c.name, goroutines), func(b *testing.B) { pointReads(b, c.db, goroutines) })
		}
	}
}

func pointReads(b *testing.B, db *sql.DB, goroutines int) {
	ctx := context.Background()
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range goroutines {
		wg.Go(func() {
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				var v string
				if err := db.QueryRowContext(ctx, "SELECT v FROM p WHERE id = $1", i%benchRows).Scan(&v); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkReadRatio interleaves short runs through pgx and pgdist, so that what
// else the machine does hits both, and reports the medians' ratio: 1 is as
// fast as pgx.
func BenchmarkReadRatio(b *testing.B) {
	servers := pgtest.Set(b, 3, pgtest.Options{FsyncOff: true})
	benchTables(b, servers)
	plain, err := sql.Open("pgx", servers[0].DSN())
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	one, _ := openFake(b, nil, servers[0].DSN())
	three, _ := openFake(b, nil, dsnsOf(servers)...)
	dbs := []*sql.DB{plain, one, three}
	for _, db := range dbs {
		db.SetMaxIdleConns(32)
	}
	for _, goroutines := range []int{1, 16} {
		b.Run(fmt.Sprint(goroutines), func(b *testing.B) {
			const rounds, reads = 60, 1000
			times := make([][]float64, len(dbs))
			for range rounds {
				for i, db := range dbs {
					start := time.Now()
					readMany(b, db, goroutines, reads)
					times[i] = append(times[i], float64(time.Since(start)))
				}
			}
			for i := range times {
				slices.Sort(times[i])
			}
			base := times[0][rounds/2]
			b.ReportMetric(base/reads, "pgx-ns")
			b.ReportMetric(base/times[1][rounds/2], "one/pgx")
			b.ReportMetric(base/times[2][rounds/2], "three/pgx")
		})
	}
}

func readMany(b *testing.B, db *sql.DB, goroutines, reads int) {
	var n atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := n.Add(1); i <= int64(reads); i = n.Add(1) {
				var v string
				if err := db.QueryRow("SELECT v FROM p WHERE id = $1", i%benchRows).Scan(&v); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
