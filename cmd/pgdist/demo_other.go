//go:build !unix

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "three throw-away servers, a mixed load, servers killed (Unix only)",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("the demo starts, stops and kills servers as Unix does: run it on Linux, macOS or another Unix")
		},
	}
}
