//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	accounts  = 100_000 // scale 1 of pgbench
	readRatio = 0.95
	// readTurn is short: two contenders whose ratio is near 1 must meet the same
	// moments of the machine.
	readTurn = 500 * time.Millisecond
)

var clientCounts = []int{1, poolSize}

// accountSchema is pgbench's at scale 1, tables that the transaction does not
// use left out.
var accountSchema = []string{
	"CREATE TABLE pgbench_accounts (aid int NOT NULL, bid int, abalance int, filler char(84))",
	"CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))",
	fmt.Sprintf("INSERT INTO pgbench_accounts SELECT g, 1, 0, '' FROM generate_series(1, %d) AS g", accounts),
	"ALTER TABLE pgbench_accounts ADD PRIMARY KEY (aid)",
}

// reads compares point reads through pgdist with plain pgx on the set's leader.
func (b *bench) reads(ctx context.Context) (err error) {
	f := &fleet{}
	defer func() { err = errors.Join(err, f.close()) }()
	m, err := f.mirror(ctx, accountSchema)
	if err != nil {
		return err
	}
	began, err := m.cast(ctx)
	if err != nil {
		return err
	}
	plain, err := f.open("pgx", began.leader.DSN())
	if err != nil {
		return err
	}
	three, err := f.openEach("pgx", m.servers)
	if err != nil {
		return err
	}
	all := []consumer{ofBench(), ofServers("leader", began.leader), ofServers("followers", began.followers...)}
	contenders := []*contender{
		{name: "pgx, one server", dbs: []*sql.DB{plain}, consumers: []consumer{ofBench(), ofServers("leader", began.leader)}},
		{name: "pgdist, three servers", dbs: []*sql.DB{m.db}, consumers: all},
		{name: "pgx, three servers by turns", dbs: three, consumers: all}, // what three servers on one machine cost by themselves
	}
	total := time.Duration(float64(b.reps) * b.seconds * float64(time.Second))
	length := min(readTurn, time.Duration(b.seconds*float64(time.Second)))
	for _, clients := range clientCounts {
		figures, err := b.compete(ctx, "point read", clients, length, int(total/length), contenders, readAccount)
		if err != nil {
			return err
		}
		b.verdict(compare(fmt.Sprintf("point reads, %s: pgdist to pgx", many(clients)), figures[1], figures[0], readRatio))
		b.verdict(compare(fmt.Sprintf("point reads, %s: pgdist to pgx by turns", many(clients)), figures[1], figures[2], 0))
	}
	return m.unchanged(ctx, began)
}

func readAccount(ctx context.Context, c *client) error {
	var balance int
	return c.db().QueryRowContext(ctx, "SELECT abalance FROM pgbench_accounts WHERE aid = $1", 1+c.rng.IntN(accounts)).Scan(&balance)
}

// unchanged checks that the set is what it was: figures of one that lost a
// member, or whose leader changed, are of something else.
func (m *mirrored) unchanged(ctx context.Context, began *cast) error {
	now, err := m.cast(ctx)
	if err != nil {
		return err
	}
	if now.leader != began.leader || !now.complete() {
		return errNotInSync
	}
	return nil
}
