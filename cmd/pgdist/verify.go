package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
)

const verifyHelp = `Compare all members, at one state of the set, while writes go on: definitions
of every kind, privileges, roles, every row, sequences.

verify joins the set like a program that uses it, brings the followers to the
same point (which sets sequences and roles right; what differed of them is told), opens one snapshot on each, and compares digests, several tables at
once. What differs is named: of definitions, what in them; of tables, the first
rows by primary key, and their columns. Members that are not in sync yet are
waited for, up to --wait.

With --table, the contents and definitions of these tables alone are compared:
no sequences, roles or other objects.

With --state, each table found equal is noted in a file. After an interruption
--resume skips these tables, unless their definition changed: they count as
equal, though they were compared at an earlier moment than the rest. Without
--resume the file is begun anew.

With --repair, rows and sequences that differ are put right from the leader, while
the set is used: a member that differs is left out, so that nobody reads it, gets
the rows anew as it catches up, and is taken back; then its tables are compared
again. Nothing of the leader's is changed, and no definitions: those are named, and
pgdist resync helps. If all followers, two or more, agree against the leader, nothing is
repaired without --force. Clients have read what was wrong until then.

Exit status: 0 all members are equal (by now, with --repair); 1 members differ; 2 the comparison could
not be made, or a member was not in sync and so not compared (--in-sync accepts
that), or a table was rewritten whenever it was to be read.`

// defaultWait lets a member that is catching up take part.
const defaultWait = 10 * time.Second

type verifyOptions struct {
	json   bool
	inSync bool
	quiet  bool
	wait   time.Duration
	tables []string
	jobs   int
	rate   float64
	state  string
	resume bool
	repair bool
	force  bool
}

// finding is what verify reports.
type finding struct {
	Equal bool `json:"equal"`
	*mirror.Report
	// NotCompared are the hosts of members that were not in sync.
	NotCompared []string `json:"not_compared"`
	// Mended is what differed until the comparison began, which put it right.
	Mended []mirror.Difference `json:"mended_beforehand,omitempty"`

	repair bool // it was to be put right
}

func newVerify(o *options) *cobra.Command {
	var v verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [DSN]",
		Short: "compare all members: definitions, privileges, rows, sequences",
		Long:  verifyHelp,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := v.validate(); err != nil {
				return err
			}
			config, err := o.set(args)
			if err != nil {
				return err
			}
			var steps io.Writer
			if !v.quiet {
				steps = cmd.ErrOrStderr()
			}
			f, err := verify(cmd.Context(), mirrorConfig(config, asMirror), v, steps)
			if f == nil {
				return err
			}
			if shown := v.show(cmd.OutOrStdout(), f); err == nil {
				err = shown
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&v.json, "json", false, "print JSON, one object in one line")
	f.BoolVar(&v.inSync, "in-sync", false, "be content with the members that are in sync")
	f.BoolVarP(&v.quiet, "quiet", "q", false, "do not show progress")
	f.DurationVar(&v.wait, "wait", defaultWait, "how long to wait for members that are not in sync")
	f.StringArrayVar(&v.tables, "table", nil, "compare this `table` only, and its partitions: name or schema.name; may be repeated")
	f.IntVar(&v.jobs, "jobs", 4, "how many connections read from each member at once")
	f.Float64Var(&v.rate, "rate", 0, "read at most so many `rows` a second from each member; 0 is no limit")
	f.StringVar(&v.state, "state", "", "note tables found equal in this `file`")
	f.BoolVar(&v.resume, "resume", false, "skip tables that the file of --state has as equal")
	f.BoolVar(&v.repair, "repair", false, "put rows and sequences that differ right from the leader")
	f.BoolVar(&v.force, "force", false, "with --repair: also where all followers agree against the leader")
	return cmd
}

func (o verifyOptions) validate() error {
	var errs []error
	if o.jobs < 1 {
		errs = append(errs, fmt.Errorf("--jobs=%d: it must be 1 or more", o.jobs))
	}
	if o.rate < 0 {
		errs = append(errs, fmt.Errorf("--rate=%v: it must be 0, which is no limit, or more", o.rate))
	}
	if o.resume && o.state == "" {
		errs = append(errs, errors.New("--resume: give the file of the run before with --state"))
	}
	if o.repair && o.state != "" {
		errs = append(errs, errors.New("--repair compares everything: leave --state out"))
	}
	if o.force && !o.repair {
		errs = append(errs, errors.New("--force is for --repair"))
	}
	return errors.Join(errs...)
}

// verify joins the set and compares its members. steps hears of progress; nil is
// none.
func verify(ctx context.Context, mc mirror.Config, o verifyOptions, steps io.Writer) (_ *finding, err error) {
	mc.Brief = true
	var mended []mirror.Difference
	if len(o.tables) == 0 {
		mended = mirror.Beforehand(ctx, mc)
	}
	set, err := mirror.Open(ctx, mc)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	if err := awaitAll(ctx, set, o.wait); err != nil {
		return nil, err
	}
	mo := mirror.VerifyOptions{Tables: o.tables, Jobs: o.jobs, Rate: o.rate}
	if o.state != "" {
		st, err := openVerifyState(o.state, set.View().Set, o.resume)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, st.close()) }()
		mo.Known, mo.Proven = st.known, st.add
	}
	if steps != nil {
		p := newVerifyProgress(steps)
		defer p.close()
		mo.Progress = p.set
	}
	var r *mirror.Report
	if o.repair {
		r, err = set.Repair(ctx, mo, o.force)
	} else {
		r, err = set.Verify(ctx, mo)
	}
	if r == nil {
		return nil, err
	}
	f := &finding{Equal: !slices.ContainsFunc(r.Differences, func(d mirror.Difference) bool { return !d.Repaired }), Report: r, NotCompared: []string{}, Mended: mended, repair: o.repair}
	for _, m := range r.View.Data() {
		if !r.Whole(m.ID) {
			f.NotCompared = append(f.NotCompared, m.Host)
		}
	}
	return f, err
}

// awaitAll waits until all members are in sync, or the time is up.
func awaitAll(ctx context.Context, set *mirror.Set, wait time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for v := set.View(); len(v.InSync) < len(v.Data()); {
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
	if !f.Equal {
		return &verdictError{"members differ"}
	}
	var errs []error
	if len(f.NotCompared) > 0 && !o.inSync {
		errs = append(errs, fmt.Errorf("not in sync, so not compared: %s (bring it back and verify again, or give --in-sync to be content with the others)", strings.Join(f.NotCompared, ", ")))
	}
	for _, u := range f.Unread {
		errs = append(errs, fmt.Errorf("table %s could not be compared: %s (try again when nothing rewrites it)", u.Table, u.Why))
	}
	return errors.Join(errs...)
}

func printFinding(w io.Writer, f *finding) error {
	var b strings.Builder
	repaired := 0
	for _, d := range f.Differences {
		done := ""
		if d.Repaired {
			done = ": REPAIRED"
			repaired++
		} else if f.repair && len(f.Against) == 0 {
			done = "; not repaired: see pgdist resync DSN --member " + d.Host + " --force"
		}
		fmt.Fprintf(&b, "%s (member %d): %s%s\n", d.Host, d.Member, d.What, done)
		for _, r := range d.Rows {
			fmt.Fprintf(&b, "    %s\n", r)
		}
		if more := d.Differing - len(d.Rows); more > 0 && len(d.Rows) > 0 {
			fmt.Fprintf(&b, "    and %d more\n", more)
		}
	}
	for _, d := range f.Mended {
		fmt.Fprintf(&b, "%s (member %d): %s, until this comparison began, which put it right\n", d.Host, d.Member, d.What)
	}
	for _, d := range f.Unclear {
		fmt.Fprintf(&b, "%s (member %d), of another version, may write this otherwise, see for yourself: %s\n", d.Host, d.Member, d.What)
	}
	if f.Equal {
		hosts := make([]string, len(f.View.InSync))
		for i, id := range f.View.InSync {
			hosts[i] = hostOf(f.View, id)
		}
		fmt.Fprintf(&b, "equal: %s: %d tables, %d rows each\n", strings.Join(hosts, ", "), f.Tables-len(f.Unread), f.Rows)
	} else {
		fmt.Fprintf(&b, "%d differences from the leader, %s, in %d tables\n", len(f.Differences)-repaired, hostOf(f.View, f.View.Leader), f.Tables)
	}
	if repaired > 0 {
		fmt.Fprintf(&b, "%d differences were put right from the leader; until then clients may have read what was wrong\n", repaired)
	}
	for _, t := range f.Against {
		fmt.Fprintf(&b, "table %s: all followers hold the same, and the leader something else\n", t)
	}
	if e := f.Earlier; e != nil {
		fmt.Fprintf(&b, "%d of these tables, %d rows each, were not read now: they were found equal between %s and %s\n", e.Tables, e.Rows, stamp(e.First), stamp(e.Last))
	}
	fmt.Fprintf(&b, "%d rows read from %d members in %.1f s: %.0f rows per second\n", f.Read, len(f.View.InSync), f.Seconds, f.RowsPerSecond)
	_, err := io.WriteString(w, b.String())
	return err
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func hostOf(v *health.View, id health.MemberID) string {
	i := slices.IndexFunc(v.Members, func(m health.Member) bool { return m.ID == id })
	if i < 0 {
		return fmt.Sprintf("member %d", id)
	}
	return v.Members[i].Host
}
