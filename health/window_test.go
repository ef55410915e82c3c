package health

import (
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	start := time.Unix(0, 0)
	w := newWindow(10*time.Second, start)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	for _, tt := range []struct {
		at        float64
		good, bad uint64
		want      counts
	}{
		{0, 3, 0, counts{3, 0}},
		{0.9, 0, 1, counts{3, 1}},
		{5, 1, 0, counts{4, 1}},
		{9.9, 0, 0, counts{4, 1}},
		{10, 0, 0, counts{1, 0}}, // the first second has fallen out
		{14.9, 0, 1, counts{1, 1}},
		{15, 0, 0, counts{0, 1}},
		{1000, 0, 2, counts{0, 2}}, // long after
		{1000.5, 2, 0, counts{2, 2}},
		{999, 1, 0, counts{3, 2}}, // a clock that seems to go back counts as now
	} {
		w.add(at(tt.at), tt.good, tt.bad)
		if got := w.total(); got != tt.want {
			t.Errorf("at %v s: %+v, want %+v", tt.at, got, tt.want)
		}
	}
}
