//go:build linux

package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// dsnVariable holds the DSN of the set, in the environment of a child that is to be a gateway.
const dsnVariable = "PGDIST_SOAK_GATEWAY"

// Process is a gateway of its own process: this program, run again, whose main has called Main.
type Process struct {
	Port int
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// Start runs a gateway for the set of dsn, which logs to log.
func Start(dsn string, log io.Writer) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), dsnVariable+"="+dsn)
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.answer(&p.Port); err != nil {
		return nil, errors.Join(fmt.Errorf("start a gateway: %w", err), p.Stop())
	}
	return p, nil
}

// DSN is for clients of the gateway; more are parameters, such as "&default_query_exec_mode=exec".
func (p *Process) DSN(database, more string) string {
	return fmt.Sprintf("postgres://postgres@%s:%d/%s?sslmode=disable%s", pgtest.Host, p.Port, database, more)
}

func (p *Process) answer(v any) error {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the gateway's process has ended: %w", err)
	}
	return json.Unmarshal(line, v)
}

// Sample measures the gateway, without its connections to servers.
func (p *Process) Sample() (s Sample, err error) {
	if _, err := io.WriteString(p.in, "sample\n"); err != nil {
		return s, err
	}
	return s, p.answer(&s)
}

// Stop ends the gateway and tells how it ended.
func (p *Process) Stop() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

// Main is to be called first in main or TestMain: in a child it serves clients until its
// input ends, and does not return.
func Main() {
	dsn := os.Getenv(dsnVariable)
	if dsn == "" {
		return
	}
	if err := serve(dsn); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(dsn string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g, err := gateway.Open(ctx, gateway.Config{DSN: dsn, Auth: gateway.Trust, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(pgtest.Host, "0"))
	if err != nil {
		return errors.Join(err, g.Close())
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		s, err := measure()
		if err != nil {
			return errors.Join(err, g.Close())
		}
		line, err := json.Marshal(s)
		if err != nil {
			return errors.Join(err, g.Close())
		}
		fmt.Println(string(line))
	}
	err = errors.Join(in.Err(), g.Close())
	if e := <-served; !errors.Is(e, gateway.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

func measure() (Sample, error) {
	for range 3 { // what has a finalizer, and what a pool holds, goes with the next
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return Sample{}, err
	}
	s := Sample{Goroutines: runtime.NumGoroutine(), Heap: m.HeapAlloc, Objects: m.HeapObjects, Files: len(files)}
	statm, err := os.ReadFile("/proc/self/statm") // proc(5): pages; the second is what is resident
	if err != nil {
		return Sample{}, err
	}
	if f := strings.Fields(string(statm)); len(f) > 1 {
		pages, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return Sample{}, err
		}
		s.Resident = pages * uint64(os.Getpagesize())
	}
	return s, nil
}
