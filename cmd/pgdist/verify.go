package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
)

const verifyHelp = `Compare all members, definitions and every row, at one state of the set.

verify joins the set like a program that uses it, brings the followers to the
same point, opens one snapshot on each, and compares digests of all rows; of a
table that differs, the first differing rows are named. Writes go on meanwhile.
Members that are not in sync yet are waited for, up to --wait.

Exit status: 0 all members are equal; 1 members differ; 2 the comparison could
not be made, or a member was not in sync and so not compared (--in-sync accepts
that).`

// defaultWait lets a member that is catching up take part.
const defaultWait = 10 * time.Second

type verifyOptions struct {
	json   bool
	inSync bool
	quiet  bool
	wait   time.Duration
}

// finding is what verify reports.
type finding struct {
	Equal bool `json:"equal"`
	*mirror.Report
	// NotCompared are the hosts of members that were not in sync.
	NotCompared []string `json:"not_compared"`
}

func newVerify(o *options) *cobra.Command {
	var v verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [DSN]",
		Short: "compare the contents of all members, row by row",
		Long:  verifyHelp,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := o.set(args)
			if err != nil {
				return err
			}
			steps := io.Discard
			if !v.quiet {
				steps = cmd.ErrOrStderr()
			}
			f, err := verify(cmd.Context(), mirrorConfig(config, asMirror), v.wait, steps)
			if err != nil {
				return err
			}
			return v.show(cmd.OutOrStdout(), f)
		},
	}
	cmd.Flags().BoolVar(&v.json, "json", false, "print JSON, one object in one line")
	cmd.Flags().BoolVar(&v.inSync, "in-sync", false, "be content with the members that are in sync")
	cmd.Flags().BoolVarP(&v.quiet, "quiet", "q", false, "do not show progress")
	cmd.Flags().DurationVar(&v.wait, "wait", defaultWait, "how long to wait for members that are not in sync")
	return cmd
}

// verify joins the set and compares its members. steps hears of progress.
func verify(ctx context.Context, mc mirror.Config, wait time.Duration, steps io.Writer) (*finding, error) {
	set, err := mirror.Open(ctx, mc)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	if err := awaitAll(ctx, set, wait); err != nil {
		return nil, err
	}
	var mu sync.Mutex // keeps lines whole
	r, err := set.Verify(ctx, func(host, table string, rows int64) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(steps, "%s: %s, %d rows\n", host, table, rows)
	})
	if err != nil {
		return nil, err
	}
	f := &finding{Equal: len(r.Differences) == 0, Report: r, NotCompared: []string{}}
	for _, m := range r.View.Members {
		if !r.View.Has(m.ID) {
			f.NotCompared = append(f.NotCompared, m.Host)
		}
	}
	return f, nil
}

// awaitAll waits until all members are in sync, or the time is up.
func awaitAll(ctx context.Context, set *mirror.Set, wait time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for v := set.View(); len(v.InSync) < len(v.Members); {
		next, err := set.WaitView(limited, v.Epoch)
		switch {
		case err == nil:
			v = next
		case ctx.Err() == nil && limited.Err() != nil:
			return nil
		default:
			return err
		}
	}
	return nil
}

// show prints a finding and turns it into the command's outcome.
func (o verifyOptions) show(w io.Writer, f *finding) error {
	print := printFinding
	if o.json {
		print = func(w io.Writer, f *finding) error { return json.NewEncoder(w).Encode(f) }
	}
	if err := print(w, f); err != nil {
		return err
	}
	switch {
	case !f.Equal:
		return &verdictError{"members differ"}
	case len(f.NotCompared) > 0 && !o.inSync:
		return fmt.Errorf("not in sync, so not compared: %s (bring it back and verify again, or give --in-sync to be content with the others)", strings.Join(f.NotCompared, ", "))
	}
	return nil
}

func printFinding(w io.Writer, f *finding) error {
	hosts := make([]string, len(f.View.InSync))
	for i, id := range f.View.InSync {
		hosts[i] = hostOf(f.View, id)
	}
	if f.Equal {
		_, err := fmt.Fprintf(w, "equal: %s: %d tables, %d rows each\n", strings.Join(hosts, ", "), f.Tables, f.Rows)
		return err
	}
	for _, d := range f.Differences {
		fmt.Fprintf(w, "%s (member %d): %s\n", d.Host, d.Member, d.What)
		for _, r := range d.Rows {
			where := "only there:        "
			if r.OnLeader {
				where = "only on the leader:"
			}
			fmt.Fprintf(w, "    %s %s\n", where, r.Row)
		}
	}
	_, err := fmt.Fprintf(w, "%d differences from the leader, %s, in %d tables\n", len(f.Differences), hostOf(f.View, f.View.Leader), f.Tables)
	return err
}

func hostOf(v *health.View, id health.MemberID) string {
	i := slices.IndexFunc(v.Members, func(m health.Member) bool { return m.ID == id })
	if i < 0 {
		return fmt.Sprintf("member %d", id)
	}
	return v.Members[i].Host
}
