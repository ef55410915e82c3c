package main

import (
	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/internal/mirror"
)

const uninstallHelp = `Remove pgdist from every database of the set, without a trace. The data stays as
it is. Close the programs that use the set first; databases that cannot be
reached are named and keep their schema pgdist.

It connects as the DSN's user, who must be the one that ran init, or a superuser.`

func newUninstall(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "uninstall [DSN]",
		Short: "remove pgdist from the databases; the data stays",
		Long:  uninstallHelp,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := o.set(args)
			if err != nil {
				return err
			}
			return mirror.Uninstall(cmd.Context(), mirrorConfig(config, asUser), progress(cmd.OutOrStdout()))
		},
	}
}
