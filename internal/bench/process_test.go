//go:build linux

package main

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStatIsParsed(t *testing.T) {
	const line = "4242 (post) gres: (x) S 17 4242 4242 0 -1 4194560 900 800 0 0 12 3 40 5 20 0 1 0 99 1000 200"
	got, err := parseStat([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	want := stat{pid: 4242, parent: 17, own: 150 * time.Millisecond, reaped: 450 * time.Millisecond}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(stat{})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 2 3", "1 (x) S two 3 4 0 -1 4 9 8 0 0 1 3 4 5 20"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestTreeTime(t *testing.T) {
	all := []stat{
		{pid: 1, own: 1000},
		{pid: 10, parent: 1, own: 1, reaped: 2},
		{pid: 11, parent: 10, own: 4, reaped: 500}, // what it waited for is not the root's to tell
		{pid: 20, parent: 1, own: 8, reaped: 16},
		{pid: 21, parent: 20, own: 32},
	}
	if got := treeTime(all, 10, 20); got != 63 {
		t.Errorf("treeTime = %d, want 63", got)
	}
}

func TestThisProcessIsFound(t *testing.T) {
	all, err := processTable()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, st := range all {
		found = found || st.pid == os.Getpid() && st.parent == os.Getppid()
	}
	if !found {
		t.Error("the process table lacks this process")
	}
	for _, name := range []string{"VmRSS", "VmHWM"} {
		if n, err := memoryOf(name); err != nil || n < mebi || n > 1<<40 {
			t.Errorf("%s = %d, %v", name, n, err)
		}
	}
	if _, err := memoryOf("VmNothing"); err == nil {
		t.Error("a line that does not exist was read")
	}
}
