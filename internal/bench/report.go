//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// report is all that a run found out.
type report struct {
	Began    time.Time     `json:"began"`
	Took     float64       `json:"took_seconds"`
	Options  string        `json:"options"`
	Machine  machine       `json:"machine"`
	Figures  []*figure     `json:"figures"`
	Memory   *memoryResult `json:"memory,omitempty"`
	Verdicts []verdict     `json:"verdicts"`
	Notes    []string      `json:"notes"`
}

// machine is what the figures were measured on and with.
type machine struct {
	Processors int    `json:"processors"`
	Load       string `json:"load_before"` // one, five and fifteen minutes
	Go         string `json:"go"`
	PostgreSQL string `json:"postgresql"`
	Pgpool     string `json:"pgpool,omitempty"`
}

func describeMachine() (machine, error) {
	m := machine{Processors: runtime.NumCPU(), Go: runtime.Version()}
	bin, err := pgtest.BinDir()
	if err != nil {
		return m, err
	}
	if m.PostgreSQL, err = pgtest.Version(bin); err != nil {
		return m, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	m.Load = strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " ")
	return m, err
}

func (b *bench) verdict(v verdict) { b.report.Verdicts = append(b.report.Verdicts, v) }

func (b *bench) note(format string, args ...any) {
	b.report.Notes = append(b.report.Notes, fmt.Sprintf(format, args...))
}

func (r *report) save(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// print writes the report as text.
func (r *report) print(out io.Writer) error {
	var text bytes.Buffer
	m := r.Machine
	fmt.Fprintf(&text, "pgdist bench, %s: %s; took %.0f s\n", r.Began.Format("2006-01-02 15:04 UTC"), r.Options, r.Took)
	fmt.Fprintf(&text, "%d processors (load before: %s), %s, %s", m.Processors, m.Load, m.Go, m.PostgreSQL)
	if m.Pgpool != "" {
		fmt.Fprintf(&text, ", %s", m.Pgpool)
	}
	text.WriteString("\n\n")
	err := errors.Join(r.printFigures(&text), r.printVerdicts(&text))
	for _, note := range r.Notes {
		fmt.Fprintf(&text, "- %s\n", note)
	}
	_, werr := text.WriteTo(out)
	return errors.Join(err, werr)
}

func (r *report) printFigures(text io.Writer) error {
	if len(r.Figures) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "workload\tclients\tthrough\tper second\tp50 ms\tp99 ms\tprocessor µs per operation\tfailed")
	for _, f := range r.Figures {
		fmt.Fprintf(t, "%s\t%d\t%s\t%.0f\t%.2f\t%.2f\t%s\t%d %s\n", f.Workload, f.Clients, f.Contender,
			f.Median, f.P50/1000, f.P99/1000, processor(f.CPU), f.Failed, firstLine(f.Failure))
	}
	fmt.Fprintln(t)
	return t.Flush()
}

func (r *report) printVerdicts(text io.Writer) error {
	if len(r.Verdicts) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "compared\treached\tquartiles\twanted\t")
	for _, v := range r.Verdicts {
		bound, met := "≥", "met"
		if v.AtMost {
			bound = "≤"
		}
		if !v.Met {
			met = "MISSED"
		}
		quartiles := ""
		if v.Low != 0 || v.High != 0 {
			quartiles = fmt.Sprintf("%s–%s", amount(v.Low), amount(v.High))
		}
		wanted := bound + " " + amount(v.Target)
		if v.Target == 0 {
			wanted, met = "", ""
		}
		fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\t%s\n", v.What, amount(v.Value), v.Unit, quartiles, wanted, met)
	}
	fmt.Fprintln(t)
	return t.Flush()
}

// amount shows three digits or all before the point.
func amount(x float64) string {
	if x >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// processor lists consumers by name, and their sum.
func processor(used map[string]float64) string {
	var list []string
	sum := 0.0
	for _, name := range slices.Sorted(maps.Keys(used)) {
		list = append(list, fmt.Sprintf("%s %.0f", name, used[name]))
		sum += used[name]
	}
	return fmt.Sprintf("%.0f = %s", sum, strings.Join(list, " + "))
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
