package health

import (
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var errGone = dial(syscall.ECONNREFUSED)

// probed gives b the result of a probe.
func probed(b *Breaker, err error) bool {
	ran, _ := b.Try(func() error { return err }, ClassifyOwn)
	return ran
}

func want(t *testing.T, b *Breaker, s State) {
	t.Helper()
	if got := b.State(); got != s {
		t.Fatalf("the breaker is %v, want %v (%+v)", got, s, b.Status())
	}
}

// opened opens b from closed.
func opened(t *testing.T, b *Breaker) {
	t.Helper()
	for range b.cfg.Failures {
		want(t, b, Closed)
		probed(b, errGone)
	}
	want(t, b, Open)
}

// closed closes b from open, as soon as it may.
func closed(t *testing.T, b *Breaker) {
	t.Helper()
	time.Sleep(b.Tick())
	b.Tick()
	for range b.cfg.HalfOpenRequests {
		want(t, b, HalfOpen)
		probed(b, nil)
	}
	want(t, b, Closed)
}

func TestBreakerOpensAfterFailuresInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{Failures: 3}, nil)
		probed(b, errGone)
		probed(b, errGone)
		probed(b, nil)
		probed(b, errGone)
		probed(b, errGone)
		want(t, b, Closed)
		if n := b.Status().Failures; n != 2 {
			t.Errorf("%d failures in a row, want 2", n)
		}
		probed(b, errGone)
		want(t, b, Open)
	})
}

// A run is not lost however long it takes: slow time-outs are failures too.
func TestBreakerRunHasNoBorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{Interval: time.Second}, nil)
		probed(b, errGone)
		time.Sleep(5 * time.Second)
		probed(b, errGone)
		want(t, b, Open)
	})
}

func TestBreakerIgnoresWhatClientsDo(t *testing.T) {
	b := NewBreaker(Config{FailureRatio: 0.01, MinRequests: 1}, nil)
	for range 100 {
		if b.Report(0, server("ERROR", "23505")) {
			t.Fatal("a constraint violation is suspicious")
		}
		if !b.Report(0, server("FATAL", "57P01")) {
			t.Fatal("a terminated backend is no reason to look")
		}
	}
	want(t, b, Closed)
	if s := b.Status(); s.Failures != 0 || s.LastError != nil {
		t.Errorf("%+v", s)
	}
}

// Ignored probes neither break a run of failures nor lengthen it.
func TestBreakerIgnoredProbes(t *testing.T) {
	b := NewBreaker(Config{}, nil)
	probed(b, errGone)
	for range 10 {
		probed(b, server("FATAL", "53300"))
	}
	want(t, b, Closed)
	probed(b, errGone)
	want(t, b, Open)
}

// Somebody terminates all backends: many clients fail in a row, the database works.
func TestBreakerNeedsAProbeForARun(t *testing.T) {
	b := NewBreaker(Config{FailureRatio: -1}, nil)
	for range 50 {
		if !b.Report(0, io.EOF) {
			t.Fatal("a broken connection is no reason to look")
		}
	}
	want(t, b, Closed)
	probed(b, nil)
	probed(b, errGone)
	probed(b, nil) // that one was wrong; clients alone are not enough again
	for range 50 {
		b.Report(0, io.EOF)
	}
	want(t, b, Closed)
	probed(b, errGone)
	want(t, b, Open)
}

func TestBreakerClientFailureConfirmsAProbe(t *testing.T) {
	b := NewBreaker(Config{}, nil)
	probed(b, errGone)
	want(t, b, Closed)
	b.Report(0, errGone)
	want(t, b, Open)
}

// Successes of clients are counted late but before what came after them.
func TestBreakerFoldsSuccessesBeforeFailures(t *testing.T) {
	b := NewBreaker(Config{}, nil)
	probed(b, errGone)
	b.Report(time.Millisecond, nil)
	probed(b, errGone)
	want(t, b, Closed)
	if n := b.Status().Failures; n != 1 {
		t.Errorf("%d failures in a row, want 1", n)
	}
	b.Report(time.Millisecond, nil)
	b.Report(0, errGone)
	want(t, b, Closed)
	probed(b, errGone)
	want(t, b, Open)
}

func TestBreakerRatio(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want State
	}{
		{"half fail", Config{FailureRatio: 0.5}, Open},
		{"fewer than the ratio", Config{FailureRatio: 0.6}, Closed},
		{"too few to tell", Config{FailureRatio: 0.5, MinRequests: 1000}, Closed},
		{"off", Config{FailureRatio: -1}, Closed},
		{"spread over more than the interval", Config{FailureRatio: 0.5, Interval: 2 * time.Second}, Closed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBreaker(tt.cfg, nil)
				for range 15 {
					b.Report(time.Millisecond, nil)
					b.Report(0, errGone)
					time.Sleep(500 * time.Millisecond)
				}
				want(t, b, tt.want)
			})
		})
	}
}

// All successes count for the ratio, not one per fold.
func TestBreakerRatioCountsEverySuccess(t *testing.T) {
	b := NewBreaker(Config{FailureRatio: 0.5, MinRequests: 10}, nil)
	for range 20 {
		for range 9 {
			b.Report(time.Millisecond, nil)
		}
		b.Report(0, errGone)
	}
	want(t, b, Closed)
	if sum := b.window.total(); sum != (counts{180, 20}) {
		t.Errorf("the window holds %+v", sum)
	}
}

// What failed before an outage is no reason for the next one.
func TestBreakerRatioStartsAfresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{Interval: time.Hour, Failures: 100}, nil)
		for range DefaultMinRequests {
			b.Report(0, errGone)
		}
		closed(t, b)
		for range 19 {
			b.Report(0, nil)
			b.Report(0, nil)
			b.Report(0, errGone)
		}
		want(t, b, Closed)
	})
}
