//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// summary prints what the program did and saw.
func (d *demo) summary(ctx context.Context) error {
	stats, err := driver.Stats(ctx, d.db)
	if err != nil {
		return err
	}
	d.title("The load has ended")
	var reads []string
	for _, m := range stats {
		reads = append(reads, fmt.Sprintf("%s %d", d.name(m.Host), m.Reads))
	}
	l := d.load
	d.say("%7d writes acknowledged", l.acked.Load())
	d.say("%7d reads, each checked; statements read from %s", l.reads.Load(), strings.Join(reads, ", "))
	d.say("%7d statements refused as they had to be (duplicate key)", l.refused.Load())
	d.say("%7d transactions rolled back with their leader (40001) and run again by the program", l.reruns.Load())
	d.say("%7d statements that failed or read something wrong", l.failed.Load())
	for _, f := range l.failures {
		d.say("        %s", f)
	}
	return nil
}

// judge looks at the servers once all is over; its error is a *verdictError if
// something is not as promised.
func (d *demo) judge(ctx context.Context) error {
	var wrong []string
	if n := d.load.failed.Load(); n > 0 {
		wrong = append(wrong, fmt.Sprintf("%d statements failed", n))
	}
	d.title("Every acknowledged write, looked for on each server by itself")
	for _, s := range d.servers {
		faults, err := d.account(ctx, s)
		if err != nil {
			return err
		}
		wrong = append(wrong, faults...)
	}
	faults, err := d.compare(ctx)
	if err != nil {
		return err
	}
	wrong = append(wrong, faults...)
	if len(wrong) > 0 {
		return &verdictError{strings.Join(wrong, "; ")}
	}
	fmt.Fprintf(d.out, "\nNothing was lost, nothing failed, and all three databases are identical (%s).\n", round(time.Since(d.began)))
	return nil
}

// compare compares the servers with each other, by pgdist and without it.
func (d *demo) compare(ctx context.Context) (faults []string, err error) {
	d.title("pgdist verify: every row and definition, compared by digest")
	config, err := (&options{}).set([]string{d.set})
	if err != nil {
		return nil, err
	}
	f, err := verify(ctx, mirrorConfig(config, asMirror), verifyOptions{wait: demoSettleLimit}, nil)
	if err != nil {
		return nil, err
	}
	if err := printFinding(d.out, f); err != nil {
		return nil, err
	}
	if !f.Equal || len(f.NotCompared) > 0 {
		faults = append(faults, "verify found differences, or a member missing")
	}
	d.title("The same once more without pgdist, from plain connections")
	var differ *pgtest.DifferenceError
	switch err := pgtest.CompareServers(ctx, d.servers...); {
	case errors.As(err, &differ):
		faults = append(faults, differ.Error())
	case err != nil:
		return nil, err
	default:
		d.say("rows, sequences and definitions are equal on all %d", len(d.servers))
	}
	return faults, nil
}

// account compares one server's ledger with what the program was told, and asks
// for what must always be true.
func (d *demo) account(ctx context.Context, s *pgtest.Server) (faults []string, err error) {
	conn, err := pgx.Connect(ctx, s.DSN(demoDatabase))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT op FROM shop.ledger")
	if err != nil {
		return nil, err
	}
	ops, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	missing, phantom := d.load.reconcile(ops)
	name := d.name(s.Addr())
	d.say("%s: %d there, %d missing, %d that were rolled back or never sent", name, len(ops), missing, phantom)
	if missing > 0 || phantom > 0 {
		faults = append(faults, fmt.Sprintf("%s lacks %d acknowledged writes and has %d that were none", name, missing, phantom))
	}
	broken, err := d.load.broken(ctx, conn)
	for _, b := range broken {
		faults = append(faults, name+": "+b)
	}
	return faults, err
}

// reconcile counts acknowledged writes that are not in ops and entries of ops
// that no client was told of.
func (l *load) reconcile(ops []int64) (missing, phantom int) {
	there := make(map[int64]bool, len(ops))
	for _, op := range ops {
		there[op] = true
	}
	for _, w := range l.workers {
		for _, op := range w.acked {
			if !there[op] {
				missing++
			}
			delete(there, op)
		}
	}
	return missing, len(there)
}

// broken names the invariants that do not hold.
func (l *load) broken(ctx context.Context, conn *pgx.Conn) (list []string, err error) {
	ask := func(what, want, query string, args ...any) {
		var got string
		if err == nil {
			err = conn.QueryRow(ctx, query, args...).Scan(&got)
		}
		if err == nil && got != want {
			list = append(list, fmt.Sprintf("%s: %s instead of %s", what, got, want))
		}
	}
	ask("sum of balances", balances, balancesSQL)
	for _, w := range l.workers {
		ask("orders whose total is wrong", "0", totalsSQL, w.lane)
		ask("customers whose sum is wrong", "0", spentSQL, w.lane)
		ask("seats", seats, seatsSQL, w.lane)
	}
	return list, err
}
