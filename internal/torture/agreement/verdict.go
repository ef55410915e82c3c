//go:build unix

package agreement

import (
	"fmt"
	"sync"
	"testing"
)

// verdict is a test that says once more at its very end why it failed: thousands of lines
// of programs' and servers' logs come before, and whoever keeps but the end of a long
// output keeps that.
type verdict struct {
	*testing.T

	mu  sync.Mutex
	why []string
}

// toldAgain is how many of its failures a test repeats.
const toldAgain = 10

// judged must be called before any other cleanup is registered.
func judged(t *testing.T) *verdict {
	v := &verdict{T: t}
	t.Cleanup(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		for i, s := range v.why {
			if i == toldAgain {
				t.Logf("… and %d more", len(v.why)-i)
				break
			}
			t.Logf("why %s failed: %.1000s", t.Name(), s)
		}
	})
	return v
}

func (v *verdict) note(s string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.why = append(v.why, s)
}

func (v *verdict) Errorf(format string, args ...any) {
	v.Helper()
	v.note(fmt.Sprintf(format, args...))
	v.T.Errorf(format, args...)
}

func (v *verdict) Error(args ...any) {
	v.Helper()
	v.note(fmt.Sprint(args...))
	v.T.Error(args...)
}

func (v *verdict) Fatalf(format string, args ...any) {
	v.Helper()
	v.note(fmt.Sprintf(format, args...))
	v.T.Fatalf(format, args...)
}

func (v *verdict) Fatal(args ...any) {
	v.Helper()
	v.note(fmt.Sprint(args...))
	v.T.Fatal(args...)
}
