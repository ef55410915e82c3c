package main

import (
	"github.com/spf13/cobra"
)

const rootHelp = `pgdist keeps several PostgreSQL databases identical and makes them look like one.

The set of databases is named by a DSN, as an argument, in the environment
variable PGDIST_DSN, or in a YAML file given with --config:

  pgdist://user:password@host1:5432,host2:5432,host3:5432/database
  host=host1,host2,host3 port=5432,5432,5432 dbname=database user=user

With an argument and --config, the argument wins where both say something;
PGDIST_DSN counts only without either. A password in an argument can be seen by
others on this machine: use a password file (passfile), PGPASSWORD or PGDIST_DSN.

Exit status:
  0    done; for verify and status: all is as it should be
  1    verify: members differ; status: a member is missing or not in sync;
       demo: something was lost, differed or failed
  2    the command could not be carried out; the reason is on standard error
  130  interrupted`

// options are the flags that every command has.
type options struct {
	config string // --config
	named  string // --dsn
}

func newRoot() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:           "pgdist",
		Short:         "one database out of several that hold the same data",
		Long:          rootHelp,
		Version:       programVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&o.config, "config", "", "YAML `file` with the set and its settings (see pgdist.example.yaml)")
	root.PersistentFlags().StringVar(&o.named, "dsn", "", "the set's `DSN`, in place of the argument")
	root.AddCommand(newInit(o), newStatus(o), newGateway(o), newVerify(o), newResync(o), newSwitchover(o), newAdd(o), newRemove(o), newRegister(o), newForce(o), newClassify(), newUninstall(o), newDemo(), newVersion())
	return root
}
