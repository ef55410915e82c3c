package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
)

const initHelp = `Make a set of databases that hold the same data.

init checks that the databases can be kept identical (version, encoding, locale,
collations, extensions, settings, what they hold) and that they are identical
now, by digests of every row and definition; then it installs schema pgdist in
each. Writers wait meanwhile. If anything is in the way, nothing is changed, and
every obstacle is named. A set that an older version of pgdist made is upgraded in
place.

It connects as the DSN's user, who must be a superuser (for event triggers);
mirroring itself runs as --mirror-user. The first database leads unless --leader
names another.`

func newInit(o *options) *cobra.Command {
	var opts mirror.InitOptions
	cmd := &cobra.Command{
		Use:   "init [DSN]",
		Short: "make a set of databases that hold the same data",
		Long:  initHelp,
		Example: `  pgdist init pgdist://postgres@db1,db2,db3/shop
  pgdist init --leader db2:5432 --mirror-user mirror pgdist://postgres@db1,db2,db3/shop`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := o.set(args)
			if err != nil {
				return err
			}
			if opts.Mirror == "" {
				opts.Mirror = config.MirrorUser
			}
			opts.Report = progress(cmd.ErrOrStderr())
			view, err := mirror.Init(cmd.Context(), mirrorConfig(config, asUser), opts)
			if err != nil {
				return err
			}
			return printSet(cmd.OutOrStdout(), view)
		},
	}
	cmd.Flags().StringVar(&opts.Leader, "leader", "", "`host:port` of the first leader (default: the first database named)")
	cmd.Flags().StringVar(&opts.Mirror, "mirror-user", "", "`role` that mirrors (default: mirror_user of the DSN or file, else its user)")
	return cmd
}

// progress prints lines about what is being done.
func progress(w io.Writer) func(format string, args ...any) {
	return func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
}

// printSet tells about a set that was made or upgraded.
func printSet(w io.Writer, v *health.View) error {
	fmt.Fprintf(w, "set %s\n", v.Set)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "MEMBER\tHOST\tROLE\tVOTES")
	for _, m := range v.Members {
		role := "follower"
		switch {
		case m.ID == v.Leader:
			role = "leader"
		case m.Witness:
			role = "witness"
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%d\n", m.ID, m.Host, role, m.Weight)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if r, there := v.Register(); there {
		fmt.Fprintf(w, "all votes are with the register %s: the set goes on with any database that is in sync\n", r.Host)
	} else if n := len(v.Members); n%2 == 0 {
		fmt.Fprintf(w, "%d members cannot outvote each other by halves: %s has the casting vote, and without it no new leader is chosen\n", n, v.Members[0].Host)
	}
	return nil
}
