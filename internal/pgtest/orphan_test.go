//go:build linux

package pgtest_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const orphanEnv = "PGTEST_LAUNCH_AND_WAIT"

// TestMain is also the main of a process that launches two servers, freezes
// the second, prints where they are and waits to be killed.
func TestMain(m *testing.M) {
	if os.Getenv(orphanEnv) == "" {
		os.Exit(m.Run())
	}
	set, err := pgtest.LaunchSet(2, pgtest.Options{FsyncOff: true})
	if err == nil {
		err = set[1].SigStop()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, s := range set {
		fmt.Println(s.PID(), s.DataDir())
	}
	select {}
}

func runs(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// A test killed with -9 leaves nothing behind for longer than until the next
// Launch, not even a frozen server.
func TestNothingOutlivesAKilledTest(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("PGDIST_IN_MEMORY", "") // where others would tidy up first
	for dir := os.Getenv("TMPDIR"); strings.Contains(dir, "TestNothing"); dir = dir[:strings.LastIndexByte(dir, '/')] {
		if err := os.Chmod(dir, 0o755); err != nil { // the server's user must pass
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), orphanEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids, dirs := make([]int, 2), make([]string, 2)
	lines := bufio.NewReader(out)
	for i := range pids {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the child said %q: %v", line, err)
		}
		pid, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pids[i], err = strconv.Atoi(pid); err != nil {
			t.Fatalf("the child said %q", line)
		}
		dirs[i] = dir
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for deadline := time.Now().Add(20 * time.Second); runs(t, pids[0]); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server outlives its parent")
		}
	}
	if !runs(t, pids[1]) {
		t.Error("the frozen server ended by itself: the sweep is not tested")
	}
	pgtest.Start(t, pgtest.Options{FsyncOff: true})
	for i := range pids {
		if _, err := os.Stat(dirs[i]); runs(t, pids[i]) || !os.IsNotExist(err) {
			t.Errorf("server %d: runs %v, directory %v", i, runs(t, pids[i]), err)
		}
	}
}
