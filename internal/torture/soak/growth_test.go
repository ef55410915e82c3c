package soak

import (
	"strings"
	"testing"
)

// What does not grow is not said to, with the ups and downs that pools and caches have;
// what leaks a little per client is.
func TestGrowth(t *testing.T) {
	steady := func(i int) Sample {
		s := Sample{Goroutines: 200 + i%3*7, Files: 100 + i%2*9, Heap: 8e6 + uint64(i%4)*3e5, Objects: 60e3, Connections: 50 + i%5*2}
		if i == 0 {
			s.Heap = 3e6 // caches are empty still
		}
		return s
	}
	of := func(n int, change func(i int, s *Sample)) []Sample {
		var out []Sample
		for i := range n {
			s := steady(i)
			change(i, &s)
			out = append(out, s)
		}
		return out
	}
	for _, n := range []int{3, 4, 30} {
		if errs := Growth(of(n, func(int, *Sample) {})); len(errs) > 0 {
			t.Errorf("%d rests: %v", n, errs)
		}
		for name, leak := range map[string]func(i int, s *Sample){
			"goroutines":  func(i int, s *Sample) { s.Goroutines += 100 * i },
			"files":       func(i int, s *Sample) { s.Files += 100 * i },
			"heap":        func(i int, s *Sample) { s.Heap += 4e6 * uint64(i) },
			"objects":     func(i int, s *Sample) { s.Objects += 30e3 * uint64(i) },
			"connections": func(i int, s *Sample) { s.Connections += 40 * i },
		} {
			errs := Growth(of(n, leak))
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), name) {
				t.Errorf("%d rests, %s leak: %v", n, name, errs)
			}
		}
	}
	if errs := Growth(of(2, func(int, *Sample) {})); len(errs) == 0 {
		t.Error("two rests were enough")
	}
}
