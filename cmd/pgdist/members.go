package main

import (
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/internal/mirror"
)

const addHelp = `Make one more database a member of a set, while programs use it.

Its server must be one of its own and may be empty: the database is made anew there,
gets a full copy of a member in sync, is brought up to date, and has a vote from then on.
It is connected to with the DSN's user, password and database; so are the programs that
use the set, which notice it by themselves. Name it in their configuration when that is
convenient.

With --witness the database gets a vote and none of the data: a third place for two
databases, of which neither outvotes the other. Any small PostgreSQL does, and so does an etcd.

What was interrupted goes on by the same command. It connects as the DSN's user, who must
be a superuser on all members, and needs pg_dump and pg_restore, as pgdist resync does.`

func newAdd(o *options) *cobra.Command {
	opts := mirror.AddOptions{}
	var yes, quiet bool
	cmd := &cobra.Command{
		Use:   "add [DSN] HOST[:PORT]",
		Short: "make one more database a member, or a witness, while programs go on",
		Long:  addHelp,
		Example: `  pgdist add pgdist://postgres@db1,db2,db3/shop db4:5432
  pgdist add pgdist://postgres@db1,db2/shop --witness small:5432
  pgdist add pgdist://postgres@db1,db2/shop --witness etcd://e1:2379,e2:2379,e3:2379`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			mc, member, err := o.member(args)
			if err != nil {
				return err
			}
			if opts.Jobs < 1 {
				return fmt.Errorf("--jobs=%d: it must be 1 or more", opts.Jobs)
			}
			opts.Member = member
			opts.Report = progress(cmd.ErrOrStderr())
			opts.Confirm = asker(yes, cmd.InOrStdin(), cmd.ErrOrStderr())
			if !quiet {
				p := copyProgress{newVerifyProgress(cmd.ErrOrStderr())}
				defer p.close()
				opts.Progress = p.set
			}
			view, err := mirror.Add(cmd.Context(), mc, opts)
			if err != nil {
				return err
			}
			return printSet(cmd.OutOrStdout(), view)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&opts.Witness, "witness", false, "give it a vote, and none of the data")
	f.IntVar(&opts.Votes, "votes", -1, "how many votes it has; -1 is one, and the first member has one more if their number is even")
	f.IntVar(&opts.Jobs, "jobs", 2, "how many tables, or parts of a large one, are copied at once")
	f.BoolVar(&yes, "yes", false, "do not ask before a database that holds tables is dropped")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not show progress")
	f.DurationVar(&opts.Wait, "wait", time.Minute, "how long to wait until the copy is in sync")
	return cmd
}

const removeHelp = `Take a member off a set's list, while programs use the set.

If it leads, another one leads first, as with pgdist switchover. Its data stays where it is;
schema pgdist is removed from it, if it can be reached, unless --keep is given. It has no vote any more, and
is not read. To have it back, add it anew.`

func newRemove(o *options) *cobra.Command {
	var opts mirror.RemoveOptions
	cmd := &cobra.Command{
		Use:     "remove [DSN] HOST[:PORT]",
		Short:   "take a member off the set's list, while programs go on",
		Long:    removeHelp,
		Example: `  pgdist remove pgdist://postgres@db1,db2,db3/shop db3:5432`,
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			mc, member, err := o.member(args)
			if err != nil {
				return err
			}
			opts.Host = member.Host()
			opts.Report = progress(cmd.ErrOrStderr())
			view, err := mirror.Remove(cmd.Context(), mc, opts)
			if err != nil {
				return err
			}
			return printSet(cmd.OutOrStdout(), view)
		},
	}
	cmd.Flags().DurationVar(&opts.Wait, "wait", 30*time.Second, "if it leads: how long to wait for transactions that have written and are open; 0 ends them")
	cmd.Flags().BoolVar(&opts.Keep, "keep", false, "leave schema pgdist in its database")
	return cmd
}

// member reads the arguments "[DSN] HOST[:PORT]".
func (o *options) member(args []string) (mirror.Config, mirror.MemberConfig, error) {
	config, err := o.set(args[:len(args)-1])
	if err != nil {
		return mirror.Config{}, mirror.MemberConfig{}, err
	}
	mc := mirrorConfig(config, asUser)
	if len(mc.Members) == 0 {
		return mc, mirror.MemberConfig{}, errors.New("the configuration names no member of the set")
	}
	first, host := mc.Members[0], args[len(args)-1]
	if strings.Contains(host, "://") {
		return mc, mirror.MemberConfig{Register: host, Health: first.Health}, nil
	}
	return mc, mirror.MemberConfig{Conn: mirror.At(first.Conn, host), Health: first.Health}, nil
}

const forceHelp = `Give a set a leader against the rules, when the members that the rules ask for are lost for
good: most of its votes, or all that held everything that was acknowledged.

What was acknowledged and is on none of the members that are left is lost. Those that do not answer
are taken off the list; should they come back, add them anew. Who forced it, when and why is recorded
in the view, which pgdist status shows.

Without --accept-data-loss it only says what it would do, what would be lost, and whose return
would make it unnecessary. Before it is used, make sure that no program can still reach the lost
members: nothing would keep it from going on there.`

func newForce(o *options) *cobra.Command {
	var opts mirror.ForceOptions
	cmd := &cobra.Command{
		Use:     "force [DSN] --accept-data-loss",
		Short:   "go on without members that are lost for good, at the price of what only they held",
		Long:    forceHelp,
		Example: `  pgdist force pgdist://postgres@db1,db2,db3/shop`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := o.set(args)
			if err != nil {
				return err
			}
			if opts.Who == "" {
				opts.Who = operator()
			}
			opts.Report = progress(cmd.ErrOrStderr())
			view, err := mirror.Force(cmd.Context(), mirrorConfig(config, asUser), opts)
			if err != nil {
				return err
			}
			return printSet(cmd.OutOrStdout(), view)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&opts.Accept, "accept-data-loss", false, "do it")
	f.StringVar(&opts.Leader, "leader", "", "the member that is to lead, `host:port`; without it the one that has the most")
	f.StringVar(&opts.Who, "who", "", "who is to be recorded as having done it (default: this machine's user)")
	return cmd
}

// operator is who runs this, as far as the machine knows.
func operator() string {
	name := "?"
	if u, err := osuser.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return name + " at " + host
}
