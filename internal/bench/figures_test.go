//go:build linux

package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestQuantiles(t *testing.T) {
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.25, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{5, 4, 3, 2, 1}, 0.25, 2},
		{[]float64{1, 2}, 1, 2},
	} {
		if got := quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.values, c.q, got, c.want)
		}
	}
	values := make([]time.Duration, 100)
	for i := range values {
		values[i] = time.Duration(i + 1)
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := percentile(values, q); got != want {
			t.Errorf("percentile %v = %v, want %v", q, got, want)
		}
	}
}

func TestSummaryIsOfMedians(t *testing.T) {
	turns := []*turn{
		{took: time.Second, latencies: []time.Duration{time.Millisecond, 3 * time.Millisecond}, used: map[string]time.Duration{"go": 2 * time.Millisecond}},
		{took: 2 * time.Second, latencies: []time.Duration{2 * time.Millisecond}, used: map[string]time.Duration{"go": time.Millisecond}, failed: 1, failure: errors.New("first")},
		{took: time.Second, latencies: []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond}, failed: 2, failure: errors.New("second")},
	}
	want := &figure{
		Workload: "w", Clients: 4, Contender: "c", PerSecond: []float64{2, 0.5, 3}, Median: 2, P50: 1000, P99: 2000,
		CPU: map[string]float64{"go": 500}, Failed: 3, Failure: "first",
	}
	if diff := cmp.Diff(want, summarize("w", 4, "c", turns)); diff != "" {
		t.Error(diff)
	}
	none := summarize("w", 1, "c", []*turn{{took: time.Second, failed: 5}})
	if none.Median != 0 || none.P99 != 0 || none.Failed != 5 {
		t.Errorf("a contender that did nothing: %+v", none)
	}
}

func TestComparison(t *testing.T) {
	a := &figure{PerSecond: []float64{90, 100, 120}, Median: 100}
	b := &figure{PerSecond: []float64{100, 100, 100}, Median: 100}
	got := compare("a to b", a, b, 1.1)
	want := verdict{What: "a to b", Value: 1, Unit: "×", Low: 0.95, High: 1.1, Target: 1.1}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Error(diff)
	}
	if v := compare("a to b", a, b, 1); !v.Met {
		t.Errorf("%+v is not met", v)
	}
	if v := compare("to nothing", a, &figure{PerSecond: []float64{0}}, 1); v.Met || v.Value != 0 {
		t.Errorf("a ratio to nothing: %+v", v)
	}
	for value, met := range map[float64]bool{63: true, 65: false} {
		if v := (verdict{Value: value, Target: 64, AtMost: true}).judged(); v.Met != met {
			t.Errorf("at most 64: %+v", v)
		}
	}
}

func TestReportTellsWhatMissed(t *testing.T) {
	r := &report{
		Figures:  []*figure{{Workload: "w", Clients: 16, Contender: "c", Median: 1234.4, P50: 1500, P99: 2500, CPU: map[string]float64{"go": 10, "a": 5}, Failed: 1, Failure: "why\nmore"}},
		Verdicts: []verdict{{What: "x", Value: 0.94, Unit: "×", Low: 0.9, High: 1, Target: 0.95}, {What: "y", Value: 3, Unit: "MiB", Target: 64, AtMost: true, Met: true}, {What: "z", Value: 2, Unit: "×", Met: true}},
		Notes:    []string{"noted"},
	}
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"w 16 c 1234 1.50 2.50 15 = a 5 + go 10 1 why",
		"x 0.94 × 0.9–1 ≥ 0.95 MISSED", "y 3 MiB ≤ 64 met", "z 2 × - noted",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
