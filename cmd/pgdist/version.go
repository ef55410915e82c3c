package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/mirror"
)

// programVersion is the module's version as the build recorded it.
func programVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print versions: of this program, of schema pgdist, of PostgreSQL needed, of clients taken over",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "pgdist %s (%s)\nschema pgdist: version %d\nPostgreSQL: %d or later\n%s%d\n",
				programVersion(), runtime.Version(), mirror.Version, mirror.MinServer/10000, takesLine, gateway.HandoverFormat)
			return err
		},
	}
}
