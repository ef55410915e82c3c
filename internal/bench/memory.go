//go:build linux

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/pgdist/pgdist/driver"
)

const (
	memoryChild  = "memory-child" // argument of the process that is measured
	memoryTarget = 64             // MiB
	memoryLimit  = 15 * time.Minute
	warmUpdates  = 200
	mebi         = 1 << 20
)

// memoryResult is what the measured process tells, in bytes of resident memory.
type memoryResult struct {
	Before  int64   `json:"before"`
	Peak    int64   `json:"peak"`
	After   int64   `json:"after"`
	Rows    int64   `json:"rows"`
	Seconds float64 `json:"seconds"`
	InSync  int     `json:"in_sync"` // members, when the UPDATE was acknowledged
}

// memory runs one UPDATE of very many rows through pgdist in a process of its
// own and tells by how much that grew.
func (b *bench) memory(ctx context.Context) (err error) {
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	m, err := f.mirror(ctx, []string{
		"CREATE TABLE great (id int PRIMARY KEY, n int NOT NULL, filler text NOT NULL)",
		fmt.Sprintf("INSERT INTO great SELECT g, 0, repeat('x', 80) FROM generate_series(1, %d) AS g", b.memoryRows),
	})
	if err != nil {
		return err
	}
	b.say("one UPDATE of %d rows", b.memoryRows)
	if err := m.db.Close(); err != nil { // one distributor at a time
		return err
	}
	r, err := runMeasured(ctx, m.dsn)
	if err != nil {
		return err
	}
	if r.Rows != int64(b.memoryRows) {
		return fmt.Errorf("the UPDATE changed %d rows, want %d", r.Rows, b.memoryRows)
	}
	b.report.Memory = r
	b.note("memory: %d rows updated on three servers in %.1f s, %.0f rows/s; resident before %.1f MiB, peak %.1f MiB, after %.1f MiB",
		r.Rows, r.Seconds, float64(r.Rows)/r.Seconds, mib(r.Before), mib(r.Peak), mib(r.After))
	b.verdict(verdict{What: fmt.Sprintf("growth of memory while %d rows pass", r.Rows), Value: mib(r.Peak - r.Before), Unit: "MiB",
		Target: memoryTarget, AtMost: true}.judged())
	if r.InSync != setSize {
		b.note("memory: ONLY %d OF %d MEMBERS WERE IN SYNC when the great UPDATE was acknowledged", r.InSync, setSize)
	}
	if m.db, err = f.open(driver.Name, m.dsn); err != nil {
		return err
	}
	if err := m.wait(ctx, "the set to be in sync", (*cast).complete); err != nil {
		return err
	}
	return b.alike(ctx, m, "great UPDATE")
}

// runMeasured starts this program again as the process to measure.
func runMeasured(ctx context.Context, dsn string) (*memoryResult, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, memoryChild, dsn)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("the measured process: %w", err)
	}
	r := &memoryResult{}
	return r, json.Unmarshal(out, r)
}

// runMemoryChild is the measured process: a program that has worked a while and
// then updates every row at once.
func runMemoryChild(dsn string) error {
	ctx, cancel := context.WithTimeout(context.Background(), memoryLimit)
	defer cancel()
	db, err := sql.Open(driver.Name, dsn)
	if err != nil {
		return err
	}
	r, err := updateAll(ctx, db)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func updateAll(ctx context.Context, db *sql.DB) (r *memoryResult, err error) {
	for i := range warmUpdates {
		if _, err := db.ExecContext(ctx, "UPDATE great SET n = n + 1 WHERE id = $1", i+1); err != nil {
			return nil, err
		}
	}
	runtime.GC()
	if err := resetPeak(); err != nil {
		return nil, err
	}
	r = &memoryResult{}
	if r.Before, err = memoryOf("VmRSS"); err != nil {
		return nil, err
	}
	began := time.Now()
	result, err := db.ExecContext(ctx, "UPDATE great SET n = n + 1")
	if err != nil {
		return nil, err
	}
	r.Seconds = time.Since(began).Seconds()
	if r.Peak, err = memoryOf("VmHWM"); err != nil {
		return nil, err
	}
	if r.After, err = memoryOf("VmRSS"); err != nil {
		return nil, err
	}
	stats, err := driver.Stats(ctx, db)
	if err != nil {
		return nil, err
	}
	for _, m := range stats {
		if m.InSync {
			r.InSync++
		}
	}
	r.Rows, err = result.RowsAffected()
	return r, err
}

func mib(bytes int64) float64 { return float64(bytes) / mebi }
