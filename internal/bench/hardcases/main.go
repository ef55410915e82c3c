//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/pgdist/pgdist/internal/bench/pgpool"
	"github.com/pgdist/pgdist/internal/pgtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	only := flag.String("only", "", "run the cases whose name contains this")
	flag.Parse()
	if err := runAll(ctx, os.Stdout, *only); err != nil {
		fmt.Fprintln(os.Stderr, "hardcases:", err)
		os.Exit(1)
	}
}

// runAll runs all cases and prints the page.
func runAll(ctx context.Context, out io.Writer, only string) (err error) {
	servers, err := pgtest.LaunchSet(7, pgtest.Options{})
	if err != nil {
		return err
	}
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.Close())
		}
	}()
	ours, err := behindPgdist(ctx, servers[4:])
	if err != nil {
		return err
	}
	plain, theirs := plainPostgres(servers[:1]), behindPgpool(servers[1:4])
	version, err := pgpool.Version(ctx)
	if err != nil {
		return err
	}
	bin, err := pgtest.BinDir()
	if err != nil {
		return err
	}
	pg, err := pgtest.Version(bin)
	if err != nil {
		return err
	}
	var table strings.Builder
	n, right := 0, [2]int{}
	for _, g := range groups {
		fmt.Fprintf(&table, "\n## %s\n\n| case | pgpool-II | pgdist |\n| --- | --- | --- |\n", g.name)
		for _, c := range g.cases {
			if !strings.Contains(c.what, only) {
				continue
			}
			row, err := compare(ctx, plain, c, theirs, ours)
			if err != nil {
				return err
			}
			for i, text := range row {
				if text == same {
					right[i]++
				}
			}
			n++
			fmt.Fprintf(&table, "| %s | %s | %s |\n", c.what, row[0], row[1])
			fmt.Fprintf(os.Stderr, "%s\n\tpgpool-II: %s\n\tpgdist: %s\n", c.what, row[0], row[1])
		}
	}
	fmt.Fprintf(out, header, n, version, pg, right[0], n, right[1], n)
	_, err = io.WriteString(out, table.String())
	return err
}

// compare runs a case against two and plain PostgreSQL.
func compare(ctx context.Context, plain *contender, c hardCase, two ...*contender) (row [2]string, err error) {
	want, err := try(ctx, plain, c)
	if err != nil {
		return row, err
	}
	for i, k := range two {
		got, err := try(ctx, k, c)
		if err != nil {
			return row, err
		}
		row[i] = judge(c, want, got)
	}
	return row, nil
}

const header = `# Hard cases

%d things that systems which write to several databases are known to get wrong, run against %s in its native
replication mode over three servers and against pgdist over three others (%s; each with its defaults).
"same" is: the three databases are equal, and answers and contents are those of one plain PostgreSQL, where its rules say what they must be.
pgpool-II: %d of %d; pgdist: %d of %d. What is not "same" is told: what a client was answered instead, and what
differs between the three. Cases that depend on timing may come out better in another run, not because they are.
` + "`make hardcases` prints this page; what each case is exactly is in `internal/bench/hardcases`.\n"
