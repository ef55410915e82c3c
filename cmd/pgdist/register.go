package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/register"
)

const registerHelp = `Change where it is decided who leads a set and who is in sync, while programs use it.

--members, as a set begins: the databases vote, and a majority of them must answer.
--file: one program (a gateway) has a set to itself, and a file on its machine decides. The
  set goes on down to the last database in sync. Commands are run on that machine, as a user
  that may write the file. Never copy the file or put it back from a backup.
--etcd: a majority of etcd's servers decides, for any number of programs, and the set goes on
  down to the last database in sync. Certificates, user and password for it are settings (etcd_ca, etcd_cert,
  etcd_key, etcd_user, etcd_password) of every program that uses the set. Without a prefix the register
  is at /pgdist/ and the set's id.

The old and the new voters must answer for it; what was interrupted goes on by the same
command. Whoever only had a vote (a witness, the register before) leaves the set.`

func newRegister(o *options) *cobra.Command {
	var file, etcd string
	var members bool
	cmd := &cobra.Command{
		Use:   "register [DSN] --file PATH | --etcd HOST:PORT,…[/PREFIX] | --members",
		Short: "keep the set's register in a file, in etcd or in the databases",
		Long:  registerHelp,
		Example: `  pgdist register pgdist://postgres@db1,db2/shop --file /var/lib/pgdist/register.json
  pgdist register pgdist://postgres@db1,db2,db3/shop --etcd e1:2379,e2:2379,e3:2379`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := o.set(args)
			if err != nil {
				return err
			}
			opts := mirror.RegisterOptions{Report: progress(cmd.ErrOrStderr())}
			switch {
			case file != "":
				if opts.Address, err = register.FileURL(file); err != nil {
					return err
				}
			case etcd != "":
				opts.Address = "etcd://" + strings.TrimPrefix(etcd, "etcd://")
			case !members:
				return errors.New("say where the register is to be: --file PATH, --etcd HOST:PORT,… or --members")
			}
			view, err := mirror.MoveRegister(cmd.Context(), mirrorConfig(config, asMirror), opts)
			if err != nil {
				return err
			}
			return printSet(cmd.OutOrStdout(), view)
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "in this `file`, on this machine, for one program")
	f.StringVar(&etcd, "etcd", "", "in the etcd at these `endpoints`, below a prefix")
	f.BoolVar(&members, "members", false, "in the databases")
	cmd.MarkFlagsMutuallyExclusive("file", "etcd", "members")
	return cmd
}
