//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	seconds     float64  // length of a contender's turn
	reps        int      // turns of each contender
	only        []string // parts to run
	json        string   // file for the report; "" is none
	catchupRows int
	memoryRows  int
	accidents   int
	resyncMB    int
}

// bench is one run.
type bench struct {
	options
	out    io.Writer // progress
	report report
}

// parts are the sections of a run, in order.
var parts = []struct {
	name string
	run  func(b *bench, ctx context.Context) error
}{
	{"reads", (*bench).reads},
	{"writes", (*bench).writes},
	{"catchup", (*bench).catchup},
	{"memory", (*bench).memory},
	{"gateway", (*bench).gateway},
	{"recovery", (*bench).recovery},
	{"resync", (*bench).resync},
}

// usual are the parts that run unasked; the others take half an hour more.
var usual = []string{"reads", "writes", "catchup", "memory", "gateway"}

func main() {
	if len(os.Args) == 3 && os.Args[1] == memoryChild {
		exit(runMemoryChild(os.Args[2]))
	}
	if len(os.Args) == 3 && os.Args[1] == gatewayChild {
		exit(runGatewayChild(os.Args[2]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opts, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		b := &bench{options: opts, out: os.Stderr}
		err = b.run(ctx, os.Stdout)
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func parseFlags(args []string) (options, error) {
	var o options
	var only string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.Float64Var(&o.seconds, "seconds", 3, "length of one turn of a contender")
	f.IntVar(&o.reps, "reps", 5, "turns of each contender")
	f.StringVar(&only, "only", strings.Join(usual, ","), "what to measure, of "+strings.Join(partNames(), ","))
	f.StringVar(&o.json, "json", "", "file for all figures as JSON")
	f.IntVar(&o.catchupRows, "catchup-rows", 300_000, "rows that change while a follower is down")
	f.IntVar(&o.memoryRows, "memory-rows", 1_000_000, "rows of the one great UPDATE")
	f.IntVar(&o.accidents, "accidents", 20, "how often each accident of recovery happens")
	f.IntVar(&o.resyncMB, "resync-mb", 1000, "size of the database that resync copies, in MB")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	o.only = strings.Split(only, ",")
	return o, o.validate(f.Args())
}

func (o options) validate(rest []string) error {
	var errs []error
	if len(rest) > 0 {
		errs = append(errs, fmt.Errorf("arguments are not understood: %s", strings.Join(rest, " ")))
	}
	for _, name := range o.only {
		if !slices.Contains(partNames(), name) {
			errs = append(errs, fmt.Errorf("--only=%s: give one or more of %s", name, strings.Join(partNames(), ",")))
		}
	}
	if o.seconds < 0.1 || o.reps < 1 {
		errs = append(errs, fmt.Errorf("--seconds=%g --reps=%d: give at least 0.1 and 1", o.seconds, o.reps))
	}
	if o.accidents < 1 || o.resyncMB < 1 {
		errs = append(errs, fmt.Errorf("--accidents=%d --resync-mb=%d: give at least 1 of each", o.accidents, o.resyncMB))
	}
	if o.catchupRows < 2*chunkRows || o.memoryRows < 1 {
		errs = append(errs, fmt.Errorf("--catchup-rows=%d --memory-rows=%d: give at least %d and 1", o.catchupRows, o.memoryRows, 2*chunkRows))
	}
	return errors.Join(errs...)
}

func partNames() []string {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.name
	}
	return names
}

// run measures what was asked for and prints the report; one that an error cut
// short is printed as far as it got.
func (b *bench) run(ctx context.Context, out io.Writer) error {
	b.report.Began = time.Now().UTC().Truncate(time.Second)
	b.report.Options = fmt.Sprintf("%d turns of %g s each, contenders interleaved", b.reps, b.seconds)
	var err error
	if b.report.Machine, err = describeMachine(); err != nil {
		return err
	}
	var failed error
	for _, p := range parts {
		if !slices.Contains(b.only, p.name) {
			continue
		}
		if err := p.run(b, ctx); err != nil {
			failed = fmt.Errorf("%s: %w", p.name, err)
			break
		}
	}
	b.report.Took = time.Since(b.report.Began).Round(time.Second).Seconds()
	err = b.report.print(out)
	if b.json != "" {
		err = errors.Join(err, b.report.save(b.json))
	}
	return errors.Join(failed, err)
}

// say tells what is being done.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.out, "bench: "+format+"\n", args...)
}
