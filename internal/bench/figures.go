//go:build linux

package main

import (
	"math"
	"slices"
	"time"
)

// figure is what one contender reached with one workload.
type figure struct {
	Workload  string `json:"workload"`
	Clients   int    `json:"clients"`
	Contender string `json:"contender"`
	// PerSecond is the throughput of each turn, Median their median.
	PerSecond []float64 `json:"per_second"`
	Median    float64   `json:"median_per_second"`
	// P50 and P99 are medians over the turns of the turns' percentiles, in
	// microseconds.
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
	// CPU is processor time by consumer, over all turns, in microseconds per
	// operation.
	CPU map[string]float64 `json:"cpu_us_per_operation"`
	// Failed counts operations that ended in an error, Failure is the first.
	Failed  int    `json:"failed"`
	Failure string `json:"failure,omitempty"`
}

// verdict is one comparison with what it should be.
type verdict struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Low and High are the quartiles over the turns, compared pair by pair; 0
	// if there was one measurement only.
	Low    float64 `json:"low,omitempty"`
	High   float64 `json:"high,omitempty"`
	Target float64 `json:"target"`  // 0: none
	AtMost bool    `json:"at_most"` // the target is an upper bound
	Met    bool    `json:"met"`
}

func (v verdict) judged() verdict {
	v.Met = v.Value >= v.Target
	if v.AtMost {
		v.Met = v.Value <= v.Target
	}
	return v
}

// summarize reduces the turns of one contender; there is one or more.
func summarize(workload string, clients int, name string, turns []*turn) *figure {
	f := &figure{Workload: workload, Clients: clients, Contender: name, CPU: map[string]float64{}}
	var p50, p99 []float64
	operations := 0
	used := map[string]time.Duration{}
	for _, t := range turns {
		f.PerSecond = append(f.PerSecond, t.perSecond())
		if len(t.latencies) > 0 {
			p50 = append(p50, micros(percentile(t.latencies, 0.50)))
			p99 = append(p99, micros(percentile(t.latencies, 0.99)))
		}
		operations += len(t.latencies)
		for consumer, d := range t.used {
			used[consumer] += d
		}
		f.Failed += t.failed
		if t.failure != nil && f.Failure == "" {
			f.Failure = t.failure.Error()
		}
	}
	f.Median, f.P50, f.P99 = median(f.PerSecond), median(p50), median(p99)
	for consumer, d := range used {
		f.CPU[consumer] = micros(d) / float64(max(operations, 1))
	}
	return f
}

// compare is the ratio of two contenders' medians.
func compare(what string, a, b *figure, target float64) verdict {
	var ratios []float64
	for i := range min(len(a.PerSecond), len(b.PerSecond)) {
		if b.PerSecond[i] > 0 {
			ratios = append(ratios, a.PerSecond[i]/b.PerSecond[i])
		}
	}
	v := verdict{What: what, Unit: "×", Target: target, Low: quantile(ratios, 0.25), High: quantile(ratios, 0.75)}
	if b.Median > 0 {
		v.Value = a.Median / b.Median
	}
	return v.judged()
}

// median of no values is 0.
func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile interpolates between the two nearest values; of none it is 0.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// percentile is the smallest of the sorted values that a share q of them does
// not exceed; there is one value or more.
func percentile(sorted []time.Duration, q float64) time.Duration {
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
