package soak

import (
	"fmt"
	"slices"
)

// Sample is what a gateway at rest has in use.
type Sample struct {
	Goroutines  int    `json:"goroutines"`
	Files       int    `json:"files"`       // open file descriptors
	Heap        uint64 `json:"heap"`        // bytes, after a garbage collection
	Objects     uint64 `json:"objects"`     // on the heap
	Resident    uint64 `json:"resident"`    // bytes of the process; told, not judged: the runtime gives memory back when it likes
	Connections int    `json:"connections"` // of the gateway's, to all servers
}

func (s Sample) String() string {
	return fmt.Sprintf("%d goroutines, %d files, heap %.1f MB in %d objects, resident %.0f MB, %d connections to servers",
		s.Goroutines, s.Files, float64(s.Heap)/1e6, s.Objects, float64(s.Resident)/1e6, s.Connections)
}

// metric is one figure of a sample, with what it may differ by between two rests: share of
// the earlier one, and slack besides.
type metric struct {
	name  string
	of    func(Sample) float64
	share float64
	slack float64
}

// Pools keep what they have opened, up to their size, and a rest may fall between two
// probes: small differences say nothing. A leak adds up over the clients of a round, of
// which there are hundreds.
var metrics = []metric{
	{"goroutines", func(s Sample) float64 { return float64(s.Goroutines) }, 0.10, 25},
	{"files", func(s Sample) float64 { return float64(s.Files) }, 0.10, 25},
	{"heap", func(s Sample) float64 { return float64(s.Heap) }, 0.15, 2e6},
	{"objects", func(s Sample) float64 { return float64(s.Objects) }, 0.15, 10e3},
	{"connections", func(s Sample) float64 { return float64(s.Connections) }, 0.10, 12},
}

// Growth says what has grown over the rests of a run: the median of its last third
// against that of its first. The first rest of all is left out, for caches fill then.
// Fewer than three rests tell nothing, which is an error as well.
func Growth(rests []Sample) []error {
	if len(rests) < 3 {
		return []error{fmt.Errorf("%d rests are too few to tell growth by", len(rests))}
	}
	rests = rests[1:]
	third := max(1, len(rests)/3)
	var out []error
	for _, m := range metrics {
		first, last := median(m.of, rests[:third]), median(m.of, rests[len(rests)-third:])
		if last > first*(1+m.share)+m.slack {
			out = append(out, fmt.Errorf("%s grew from %.0f to %.0f over %d rounds", m.name, first, last, len(rests)))
		}
	}
	return out
}

func median(of func(Sample) float64, samples []Sample) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
