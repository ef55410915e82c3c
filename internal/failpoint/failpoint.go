// Package failpoint names the moments at which a program that dies, or stands still,
// leaves something half done. Tests make it do so; see internal/torture/agreement,
// which lets a program die at each of them.
//
// Nothing outside of a test can set anything off: there is no setting for it. Where no
// test watches, a point costs the load of one word. A build tag instead would have
// tests run another program than the one that is used.
package failpoint

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Point is one moment. Make it with [New], as a package's variable.
type Point struct{ name string }

// watcher is what the test wants to happen, nil without one.
var watcher atomic.Pointer[func(name string)]

// all is filled while packages are initialised and then only read.
var all []string

// New names a point, "package: what has just been done". Two of the same name are a
// mistake in the program.
func New(name string) *Point {
	if slices.Contains(all, name) {
		panic(fmt.Sprintf("failpoint %q exists already", name))
	}
	all = append(all, name)
	return &Point{name}
}

// Pass tells that the program is at the point. It returns when the test lets it go on.
func (p *Point) Pass() {
	if f := watcher.Load(); f != nil {
		(*f)(p.name)
	}
}

// Watch has f called at each point that is passed, by whoever passes it; nil ends that.
func Watch(f func(name string)) {
	if f == nil {
		watcher.Store(nil)
		return
	}
	watcher.Store(&f)
}

// All lists the names of all points that the program has, sorted.
func All() []string { return slices.Sorted(slices.Values(all)) }
