package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pgdist/pgdist/internal/mirror"
)

// showTable prints a status for people.
func showTable(w io.Writer, r *report) error {
	fmt.Fprintf(w, "set %s  epoch %d  term %d  %s\n", r.View.Set, r.View.Epoch, r.View.Term, r.At.Format("2006-01-02 15:04:05"))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "MEMBER\tHOST\tROLE\tVOTES\tIN SYNC\tPOSITION\tLAG\tPROBE\tCONNECTIONS")
	for _, m := range r.Members {
		sync := "no"
		switch {
		case m.InSync:
			sync = "yes"
		case m.Role == "witness":
			sync = "-"
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", m.ID, m.Host, m.Role, m.Votes, sync, orDash(m.Place), lag(m), m.Probe.short(), m.Probe.load())
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if k, there := r.View.Register(); there {
		fmt.Fprintf(w, "register: %s has all votes\n", k.Host)
	}
	if len(r.View.Former) > 0 {
		fmt.Fprintln(w, "votes are being given and taken: until that is done, majorities of those before are needed, too")
	}
	if f := r.View.Forced; f != nil {
		fmt.Fprintf(w, "forced in epoch %d by %s at %s, without %s: %s\n", f.Epoch, f.Who, f.At.Format("2006-01-02 15:04:05"), orDash(strings.Join(f.Lost, ", ")), f.Why)
	}
	if r.Journal != nil {
		fmt.Fprintln(w, journalLine(r.Journal))
	}
	if r.Check != nil {
		fmt.Fprintln(w, checkLine(r.Check))
	}
	for _, p := range r.Programs {
		fmt.Fprintf(w, "used by %s, epoch %d, since %s\n", p.Name, p.Epoch, p.Since.Local().Format("2006-01-02 15:04:05"))
	}
	for _, m := range r.Members {
		if why := m.trouble(); why != "" {
			fmt.Fprintf(w, "%s: %s\n", m.Host, why)
		}
	}
	return nil
}

// journalLine says how full the journal is, and who is to be looked after if it fills.
func journalLine(j *mirror.JournalStatus) string {
	seconds := func(s float64) time.Duration { return (time.Duration(s) * time.Second).Round(time.Second) }
	line := fmt.Sprintf("journal: %.1f of %.1f MB, held back for %v of %v", float64(j.Bytes)/(1<<20), float64(j.MaxBytes)/(1<<20), seconds(j.HeldSeconds), seconds(j.MaxHeldSeconds))
	if !j.Alarms() {
		return line
	}
	line = fmt.Sprintf("ALARM: %s (%d %%)", line, j.Percent)
	if len(j.HeldBy) > 0 {
		line += ", by " + strings.Join(j.HeldBy, ", ")
	}
	return line + ": at 100 % who is away loses its place"
}

// checkLine says when everything was last compared in the background.
func checkLine(c *mirror.CheckStatus) string {
	line := "compared in the background: never to the end"
	if c.Ended != nil {
		line = "compared in the background: last " + c.Ended.Local().Format("2006-01-02 15:04:05")
	}
	if c.Table != "" {
		line += fmt.Sprintf("; now table %s, %d rows of this round", c.Table, c.Rows)
	}
	if c.Differ > 0 {
		line += fmt.Sprintf("; %d differences found so far", c.Differ)
	}
	return line
}

// lag says how much a member lacks.
func lag(m memberReport) string {
	switch {
	case m.LagTransactions < 0:
		return "unknown"
	case m.LagTransactions == 0:
		return "0"
	}
	return fmt.Sprintf("%d tx, %.1f s", m.LagTransactions, m.LagSeconds)
}

func (p probe) short() string {
	if !p.OK {
		return "failed"
	}
	return fmt.Sprintf("ok %.1f ms", p.ConnectMillis+p.QueryMillis)
}

func (p probe) load() string {
	if !p.OK {
		return "-"
	}
	return fmt.Sprintf("%d of %d", p.Connections, p.Max)
}

// trouble is the error to show for a member; that of the probe, which says the
// same in fewer words, comes first.
func (m memberReport) trouble() string {
	if m.Probe.Error != "" {
		return m.Probe.Error
	}
	return flat(m.Error)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
