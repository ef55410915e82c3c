package mirror

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The time of day decides nothing: it is put forward and back. That of a lease counts
// where it says that more time has passed.
func TestNothingGoesByTheTimeOfDay(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(f, "_test.go") && f != "lease.go" && (strings.Contains(string(text), "UnixNano()") || strings.Contains(string(text), "time.Unix(")) {
			t.Errorf("%s stores the time of day: use monotonic", f)
		}
	}
}

// A grant is over when either clock says so, and not renewed by one that is put back.
func TestGrantUnderAClockThatIsSet(t *testing.T) {
	for _, c := range []struct {
		passed, set time.Duration // how long ago it was given; by how much the time of day was put forward since
		want        bool
	}{
		{0, 0, true},
		{0, -time.Hour, true},
		{0, time.Hour, false},
		{2 * time.Minute, -time.Hour, false},
		{2 * time.Minute, 0, false},
		{2 * time.Minute, time.Hour, false},
	} {
		g := newGrant(time.Now().Add(-c.passed), time.Minute)
		g.wall -= int64(c.set)
		if g.holds() != c.want {
			t.Errorf("given %v ago, the clock set by %v: it holds is %v", c.passed, c.set, !c.want)
		}
	}
}
