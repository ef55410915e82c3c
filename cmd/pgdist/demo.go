//go:build unix

package main

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

const demoHelp = `Show what pgdist does, on three throw-away PostgreSQL servers of its own.

Eight goroutines use the three as one database through sql.Open("pgdist", …):
server-side random(), clocks and UUIDs, serials, nested triggers, cascades, a job
queue, swaps of unique values. A follower is killed (kill -9) and comes back, then
the leader. In the end every acknowledged write is looked for on each server by
itself, and the three are compared, by pgdist and without it.

The load runs for --seconds; all else takes a quarter of a minute. Everything is
removed in the end, and by Ctrl-C. Exit status 1 if a single statement failed, a
write was lost, or anything differs.`

const (
	demoServers     = 3
	demoClients     = 8
	demoDatabase    = "shop"
	demoSeconds     = 45
	demoMinSeconds  = 5
	demoSettleLimit = 30 * time.Second // longest wait for the set to react
)

//go:embed demo.sql
var demoSQL string

// demo is one performance.
type demo struct {
	seconds int
	keep    bool
	out     io.Writer

	servers []*pgtest.Server
	set     string // DSN of all three
	db      *sql.DB
	load    *load
	began   time.Time
	meter   meter
}

func newDemo() *cobra.Command {
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "three throw-away servers, a mixed load, servers killed: about a minute",
		Long:  demoHelp,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.seconds < demoMinSeconds {
				return fmt.Errorf("--seconds=%d is too short to show anything: give %d or more", d.seconds, demoMinSeconds)
			}
			d.out = cmd.OutOrStdout()
			return d.perform(cmd.Context())
		},
	}
	cmd.Flags().IntVar(&d.seconds, "seconds", demoSeconds, "how long the load runs")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "leave the servers running until Ctrl-C, and say how to reach them")
	return cmd
}

// perform runs the whole and removes what it made.
func (d *demo) perform(ctx context.Context) (err error) {
	defer func() {
		for _, s := range d.servers {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := d.play(ctx); err != nil {
		return err
	}
	verdict := d.judge(ctx)
	if d.keep && ctx.Err() == nil {
		d.linger(ctx)
	}
	return verdict
}

// prepare launches the servers and makes them a set with a schema.
func (d *demo) prepare(ctx context.Context) error {
	d.title("Three PostgreSQL servers, each with a database of its own")
	var err error
	if d.servers, err = pgtest.LaunchSet(demoServers, pgtest.Options{Databases: []string{demoDatabase}}); err != nil {
		return err
	}
	hosts := make([]string, len(d.servers))
	for i, s := range d.servers {
		hosts[i] = s.Addr()
		d.say("%s is %s", d.name(s.Addr()), s.Addr())
	}
	d.set = fmt.Sprintf("pgdist://postgres@%s/%s?sslmode=disable", strings.Join(hosts, ","), demoDatabase)

	d.title("pgdist init " + d.set)
	config, err := (&options{}).set([]string{d.set})
	if err != nil {
		return err
	}
	if _, err := mirror.Init(ctx, mirrorConfig(config, asUser), mirror.InitOptions{Report: d.say}); err != nil {
		return err
	}

	d.title(`sql.Open("pgdist", …): tables, triggers and functions, created once and there three times`)
	if d.db, err = sql.Open(driver.Name, d.set); err != nil {
		return err
	}
	for statement := range strings.SplitSeq(demoSQL, "\n--;\n") {
		if _, err := d.db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("create the demo's schema: %w\n%s", err, statement)
		}
	}
	d.say("done: %d statements", strings.Count(demoSQL, "\n--;\n")+1)
	return nil
}

// play runs the load and kills servers meanwhile; when it returns, the load has
// ended and the program's connections are closed.
func (d *demo) play(ctx context.Context) error {
	d.began = time.Now()
	load, err := startLoad(ctx, d.db)
	if err != nil {
		return errors.Join(err, d.db.Close())
	}
	d.load = load
	err = d.acts(ctx)
	d.load.stop()
	if ctx.Err() == nil {
		err = errors.Join(err, d.summary(ctx))
	}
	return errors.Join(err, d.db.Close())
}

// acts are what happens to the servers while the load runs.
func (d *demo) acts(ctx context.Context) error {
	d.title(fmt.Sprintf("%d goroutines read and write", demoClients))
	if err := d.measure(ctx, 0.2); err != nil {
		return err
	}
	leader, follower, err := d.cast(ctx)
	if err != nil {
		return err
	}
	for _, act := range []struct {
		server *pgtest.Server
		what   string
	}{{follower, "follower"}, {leader, "leader"}} {
		if err := d.strike(ctx, act.server, act.what); err != nil {
			return err
		}
		if err := d.measure(ctx, 0.2); err != nil {
			return err
		}
		if err := d.revive(ctx, act.server); err != nil {
			return err
		}
		if err := d.measure(ctx, 0.2); err != nil {
			return err
		}
	}
	return nil
}

// linger keeps the servers until the user has seen enough.
func (d *demo) linger(ctx context.Context) {
	d.title("The servers keep running until Ctrl-C")
	d.say("all as one: %s", d.set)
	for _, s := range d.servers {
		d.say("%s alone:  psql %q", d.name(s.Addr()), s.DSN(demoDatabase))
	}
	d.say("try: pgdist status %q", d.set)
	<-ctx.Done()
}

func (d *demo) title(text string) { fmt.Fprintf(d.out, "\n== %s\n", text) }

func (d *demo) say(format string, args ...any) {
	at := "        "
	if !d.began.IsZero() {
		at = fmt.Sprintf("%6.1f s", time.Since(d.began).Seconds())
	}
	fmt.Fprintf(d.out, "%s  %s\n", at, fmt.Sprintf(format, args...))
}

// name is what the demo calls a server.
func (d *demo) name(addr string) string {
	for i, s := range d.servers {
		if s.Addr() == addr {
			return fmt.Sprintf("db%d", i+1)
		}
	}
	return addr
}
