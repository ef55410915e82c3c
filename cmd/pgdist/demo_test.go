//go:build unix

package main

import (
	"context"
	"errors"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// addresses are those that the demo said its servers listen on.
func addresses(t *testing.T, out string) []string {
	t.Helper()
	var list []string
	for _, m := range regexp.MustCompile(`db\d is (\S+)`).FindAllStringSubmatch(out, -1) {
		list = append(list, m[1])
	}
	if len(list) != demoServers {
		t.Fatalf("%d servers named in\n%s", len(list), out)
	}
	return list
}

func wantGone(t *testing.T, out string) {
	t.Helper()
	for _, addr := range addresses(t, out) {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			c.Close()
			t.Errorf("a server still listens on %s", addr)
		}
	}
}

func TestDemo(t *testing.T) {
	r := pgdist(t, "demo", "--seconds", "5")
	r.want(t, statusOK, "kill -9: ", ", the follower, is dead", ", the leader, is dead", "leads now", "first write begun and acknowledged since: ",
		"comes back", "caught up while writes went on", "0 statements that failed or read something wrong", "equal: ",
		"Nothing was lost, nothing failed, and all three databases are identical")
	if n := strings.Count(r.out, " 0 missing, 0 that were rolled back or never sent"); n != demoServers {
		t.Errorf("%d servers without a fault:\n%s", n, r.out)
	}
	wantGone(t, r.out)
}

// Interrupted at any moment, it leaves no server behind.
func TestDemoInterrupted(t *testing.T) {
	for _, at := range []string{"checking", "goroutines read and write", "kill -9"} {
		t.Run(at, func(t *testing.T) {
			ctx, interrupt := context.WithTimeout(t.Context(), ages)
			defer interrupt()
			out, errs := &after{text: at, n: 1, do: interrupt}, &after{}
			code := run(ctx, []string{"demo"}, strings.NewReader(""), out, errs)
			if code != statusInterrupted || !strings.Contains(errs.String(), "pgdist: interrupted") {
				t.Errorf("exit status %d\n%s\n%s", code, out, errs)
			}
			wantGone(t, out.String())
		})
	}
}

func TestDemoTooShort(t *testing.T) {
	pgdist(t, "demo", "--seconds", "1").wantErrors(t, 1, "--seconds=1 is too short")
}

// What was acknowledged and is not there, and what is there and never was, count.
func TestReconcile(t *testing.T) {
	l := &load{workers: []*worker{{acked: []int64{1, 2}}, {acked: []int64{3}}}}
	for _, c := range []struct {
		ops              []int64
		missing, phantom int
	}{
		{[]int64{3, 2, 1}, 0, 0}, {[]int64{1, 3}, 1, 0}, {nil, 3, 0}, {[]int64{1, 2, 3, 4}, 0, 1}, {[]int64{4, 5}, 3, 2},
	} {
		if missing, phantom := l.reconcile(c.ops); missing != c.missing || phantom != c.phantom {
			t.Errorf("%v: %d missing, %d too many, want %d and %d", c.ops, missing, phantom, c.missing, c.phantom)
		}
	}
}

// A single failed statement is remembered; what an interruption breaks is none.
func TestLoadRemembersFailures(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	l := &load{ctx: ctx}
	l.fail("x", errors.New("broken"))
	interrupt()
	l.fail("y", errors.New("broken by the interruption"))
	if l.failed.Load() != 1 || len(l.failures) != 1 || l.failures[0] != "x: broken" {
		t.Errorf("%d failures: %v", l.failed.Load(), l.failures)
	}
}
