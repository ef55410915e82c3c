package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/internal/mirror"
)

const switchoverHelp = `Make another member the leader, while programs go on: before the server that leads is
restarted, or taken away.

Nobody's transaction is ended. The office changes in a moment in which no transaction
that has written is open; such a moment is waited for (--wait), in attempts that hold
writers up for a third of a second at most. With --force, or when nobody may be waited
for, open transactions are ended: their clients hear 40001, and run them again.`

// switchoverRejoin is how long the member that led may take to be in sync again.
const switchoverRejoin = 30 * time.Second

func newSwitchover(o *options) *cobra.Command {
	var to string
	var wait time.Duration
	var force bool
	cmd := &cobra.Command{
		Use:     "switchover [DSN] [--to HOST[:PORT]]",
		Short:   "make another member the leader, while programs go on",
		Long:    switchoverHelp,
		Example: `  pgdist switchover pgdist://postgres@db1,db2,db3/shop --to db2:5432`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := o.set(args)
			if err != nil {
				return err
			}
			if wait <= 0 && !force {
				return fmt.Errorf("--wait=%v: it must be above 0, or use --force", wait)
			}
			if force {
				wait = 0
			}
			mc := mirrorConfig(config, asMirror)
			mc.Brief = true
			set, err := mirror.Open(cmd.Context(), mc)
			if err != nil {
				return err
			}
			defer set.Close()
			before := set.View()
			began := time.Now()
			after, err := set.Switchover(cmd.Context(), to, wait)
			if err != nil {
				return err
			}
			hosts := set.Hosts()
			if after.Leader == before.Leader {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s leads already\n", hosts[after.Leader])
				return err
			}
			took := time.Since(began).Round(time.Millisecond)
			// The one that led has to be brought to where the new one stands: if no
			// program uses the set, this one does it.
			var back error
			if before.Has(before.Leader) && len(before.InSync) == len(before.Data()) {
				back = awaitAll(cmd.Context(), set, switchoverRejoin)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s leads now, in epoch %d, instead of %s, after %v\n", hosts[after.Leader], after.Epoch, hosts[before.Leader], took)
			return errors.Join(err, back)
		},
	}
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "the member that is to lead, `host:port`; without it the set chooses one in sync")
	f.DurationVar(&wait, "wait", 30*time.Second, "how long to wait for transactions that have written and are open")
	f.BoolVar(&force, "force", false, "wait for no transaction: end those that are open")
	return cmd
}
