package failpoint

import (
	"slices"
	"testing"
)

var here = New("failpoint: here")

func TestPoint(t *testing.T) {
	here.Pass() // nobody watches
	var passed []string
	Watch(func(name string) { passed = append(passed, name) })
	here.Pass()
	here.Pass()
	Watch(nil)
	here.Pass()
	if want := []string{"failpoint: here", "failpoint: here"}; !slices.Equal(passed, want) {
		t.Errorf("passed %q, want %q", passed, want)
	}
	if !slices.Contains(All(), "failpoint: here") {
		t.Errorf("%q lacks the point", All())
	}
	defer func() {
		if recover() == nil {
			t.Error("two points of one name are let through")
		}
	}()
	New("failpoint: here")
}
