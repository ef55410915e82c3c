package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
)

const statusHelp = `Show the members of a set: who leads, who is in sync, how far each has come.

The databases are asked, from here and without taking part: nothing is changed.
Breakers and pools belong to the processes that use the set and cannot be seen
from outside; instead, PROBE shows what an attempt to use each database just now
brought, and CONNECTIONS how many clients of any kind it has. A program sees its
own pools with driver.Stats.

Exit status: 0 all members answer and are in sync; 1 some member does not;
2 the set could not be looked at.`

// report is the whole of what status shows.
type report struct {
	At       time.Time             `json:"at"`
	View     *health.View          `json:"view"`
	Members  []memberReport        `json:"members"`
	Programs []mirror.Program      `json:"programs"`
	Journal  *mirror.JournalStatus `json:"journal"`
	Check    *mirror.CheckStatus   `json:"check,omitempty"`
}

type memberReport struct {
	mirror.MemberStatus
	Probe probe `json:"probe"`
}

// well tells whether nothing is missing.
func (r *report) well() bool {
	for _, m := range r.Members {
		if !m.InSync && m.Role != "witness" || !m.Probe.OK || m.Error != "" {
			return false
		}
	}
	return true
}

func newStatus(o *options) *cobra.Command {
	var asJSON bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status [DSN]",
		Short: "show members, roles, positions and lag",
		Long:  statusHelp,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := o.set(args)
			if err != nil {
				return err
			}
			mc := mirrorConfig(config, asMirror)
			w := cmd.OutOrStdout()
			show := showTable
			if asJSON {
				show = showJSON
			}
			if cmd.Flags().Changed("watch") {
				if every <= 0 {
					return fmt.Errorf("--watch=%v: the interval must be above 0, such as 2s", every)
				}
				return watch(cmd.Context(), w, cmd.ErrOrStderr(), every, func() error { return status(cmd.Context(), mc, w, show) })
			}
			return status(cmd.Context(), mc, w, show)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object in one line")
	cmd.Flags().DurationVar(&every, "watch", 0, "show again and again, at this `interval` (2s if none is given), until interrupted")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2s"
	return cmd
}

// status looks once and shows what it found.
func status(ctx context.Context, mc mirror.Config, w io.Writer, show func(io.Writer, *report) error) error {
	seen, err := mirror.Inspect(ctx, mc)
	if err != nil {
		return err
	}
	probes := probeAll(ctx, mc.Naming(seen))
	r := &report{At: time.Now(), View: seen.View, Programs: seen.Programs, Journal: seen.Journal, Check: seen.Check}
	for _, m := range seen.Members {
		p, probed := probes[m.Host]
		if !probed { // a register, which was asked for what is shown of it
			p = probe{OK: m.Error == "", Error: m.Error}
		}
		r.Members = append(r.Members, memberReport{m, p})
	}
	if err := show(w, r); err != nil {
		return err
	}
	if !r.well() {
		return &verdictError{"not all members answer and are in sync"}
	}
	return nil
}

func showJSON(w io.Writer, r *report) error { return json.NewEncoder(w).Encode(r) }

// clearScreen moves to the upper left and erases what follows (ECMA-48 CUP, ED).
const clearScreen = "\x1b[H\x1b[2J"

// watch shows the status until ctx ends, which is no error. What goes wrong is
// shown too: the set may be back at the next look.
func watch(ctx context.Context, w, errs io.Writer, every time.Duration, look func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if isTerminal(w) {
			fmt.Fprint(w, clearScreen)
		}
		if err := look(); err != nil && ctx.Err() == nil {
			conclude(ctx, errs, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
