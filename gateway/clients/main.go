// Command clients runs programs of many kinds of clients, unmodified, on a plain server and
// through the gateway, and compares what they print: make clients.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
)

func main() {
	only := flag.String("only", "", "comma-separated names of programs; all if empty")
	show := flag.Bool("show", false, "print what the programs say to a plain server")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	failed, err := run(ctx, *only, *show)
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		failed++
	}
	if failed > 0 {
		os.Exit(1)
	}
}

// run runs the programs and returns how many print something else through the gateway.
func run(ctx context.Context, only string, show bool) (failed int, err error) {
	f, err := open(ctx)
	if err != nil {
		return 0, err
	}
	defer func() {
		if e := f.close(); err == nil {
			err = e
		}
	}()
	for _, p := range programs {
		if only != "" && !strings.Contains(","+only+",", ","+p.name+",") {
			continue
		}
		if why := p.missing(); why != "" {
			fmt.Printf("%-12s left out: %s\n", p.name, why)
			continue
		}
		began := time.Now()
		diff, said := f.compare(ctx, p)
		if show {
			fmt.Println(strings.Join(said, "\n"))
		}
		if diff == "" {
			fmt.Printf("%-12s the same, %d lines, %v\n", p.name, len(said), time.Since(began).Round(time.Second))
			continue
		}
		failed++
		fmt.Printf("%-12s DIFFERS: the gateway (+), a plain server (-)\n%s\n", p.name, diff)
	}
	return failed, nil
}

// compare runs a program on both sides.
func (f *field) compare(ctx context.Context, p program) (diff string, plain []string) {
	var said [2][]string
	for i, addr := range []string{f.plain.Addr(), f.addr} {
		said[i] = f.runOn(ctx, p, addr)
	}
	if last := said[0][max(0, len(said[0])-1):]; len(last) > 0 && strings.HasPrefix(last[0], failed) {
		return "it fails on a plain server:\n" + strings.Join(said[0], "\n"), said[0]
	}
	return cmp.Diff(said[0], said[1]), said[0]
}
