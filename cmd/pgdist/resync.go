package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/internal/mirror"
)

const resyncHelp = `Copy one member of a set afresh from one that is in sync, while the set goes on:
a member that lost its place, one whose server was replaced by an empty one, one
that was restored from a backup.

The member's database is dropped and made anew; what is in it is lost. Roles of its
server stay. Everything is copied as one moment saw it, from a follower if one is in
sync; the program that uses the set then brings the copy up to date and takes it
back. Until the copy is complete the member is refused by name; after an interruption
run resync again: it goes on. Tables that were complete are kept, and what was written
to them since is shipped from the journal; those without a key that were written to,
UNLOGGED ones, and all of them if there was DDL, are copied again.

The leader's journal is kept for the copy as long as it is for a member that is away
(journal_max_size, journal_max_age); a copy that takes longer fails. Tables that
are dropped, emptied or rewritten before they have been read come as the copy catches
up. A source that leads keeps DDL on a table waiting while that table is read.

It connects as the DSN's user, who must be a superuser on all members. It needs
pg_dump and pg_restore on this machine, of the servers' version or later.`

func newResync(o *options) *cobra.Command {
	var opts mirror.ResyncOptions
	var yes, quiet bool
	cmd := &cobra.Command{
		Use:     "resync [DSN] --member HOST[:PORT]",
		Short:   "copy one member afresh, while the set goes on",
		Long:    resyncHelp,
		Example: `  pgdist resync pgdist://postgres@db1,db2,db3/shop --member db3:5432`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if opts.Member == "" {
				return errors.New("--member: say which member is to be copied, as host:port")
			}
			if opts.Jobs < 1 {
				return fmt.Errorf("--jobs=%d: it must be 1 or more", opts.Jobs)
			}
			config, err := o.set(args)
			if err != nil {
				return err
			}
			opts.Report = progress(cmd.ErrOrStderr())
			opts.Confirm = asker(yes, cmd.InOrStdin(), cmd.ErrOrStderr())
			if !quiet {
				p := copyProgress{newVerifyProgress(cmd.ErrOrStderr())}
				defer p.close()
				opts.Progress = p.set
			}
			if opts.Wait == 0 {
				opts.Wait = -1
			}
			res, err := mirror.Resync(cmd.Context(), mirrorConfig(config, asUser), opts)
			if err != nil {
				return err
			}
			return showResync(cmd.OutOrStdout(), opts.Member, res)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Member, "member", "", "the member to overwrite, `host:port`")
	f.IntVar(&opts.Jobs, "jobs", 2, "how many tables, or parts of a large one, are copied at once")
	f.BoolVar(&yes, "yes", false, "do not ask before a database that holds tables is dropped")
	f.BoolVar(&opts.Force, "force", false, "overwrite a member that is in sync, or belongs to another set")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not show progress")
	f.DurationVar(&opts.Wait, "wait", time.Minute, "how long to wait until the copy is in sync; 0 is not at all")
	return cmd
}

// asker asks on a terminal before data is lost.
func asker(yes bool, in io.Reader, w io.Writer) func(string) error {
	return func(question string) error {
		f, ok := in.(*os.File)
		switch {
		case yes:
			return nil
		case !ok || !isTerminal(f):
			return fmt.Errorf("%s (to go on, give --yes)", question)
		}
		fmt.Fprintf(w, "%s. Type yes to go on: ", question)
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil || strings.TrimSpace(line) != "yes" {
			return fmt.Errorf("%s: not confirmed, nothing was changed", question)
		}
		return nil
	}
}

func showResync(w io.Writer, member string, r *mirror.ResyncResult) error {
	fmt.Fprintf(w, "%s was copied from %s: %d rows, %s, in %v, at %v\n", member, r.Source, r.Rows, megabytes(r.Bytes), r.Took.Round(time.Millisecond), r.Place)
	if r.Kept > 0 {
		fmt.Fprintf(w, "%d tables had been copied before\n", r.Kept)
	}
	if r.InSync {
		fmt.Fprintln(w, "it is in sync")
	} else {
		fmt.Fprintln(w, "it is not in sync yet: the program that uses the set brings it up to date as soon as it runs; see pgdist status")
	}
	if r.NoVote {
		fmt.Fprintf(w, "it has no vote: run pgdist add DSN %s, if it is to have one\n", member)
	}
	return nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }

// copyProgress shows how far a copy has come.
type copyProgress struct{ *verifyProgress }

func (p copyProgress) set(g mirror.ResyncProgress) {
	p.show(func(took time.Duration) string {
		s := progressLine(mirror.Progress{Tables: g.Tables, TablesDone: g.TablesDone, Rows: g.Rows, Estimated: int64(g.Estimated)}, took)
		if sec := took.Seconds(); sec > 0 {
			s += fmt.Sprintf(", %.1f MB/s", float64(g.Bytes)/(1<<20)/sec)
		}
		return s + ", " + g.Table
	}, g.TablesDone == g.Tables)
}
