package health

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestBreakerRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{HalfOpenRequests: 5}, nil)
		opened(t, b)
		if probed(b, nil) {
			t.Error("a probe ran while the breaker was open")
		}
		time.Sleep(DefaultOpenTimeout - time.Millisecond)
		if left := b.Tick(); left <= 0 || left > 2*time.Millisecond {
			t.Errorf("still open for %v", left)
		}
		want(t, b, Open)
		time.Sleep(2 * time.Millisecond)
		if left := b.Tick(); left != 0 {
			t.Errorf("still open for %v", left)
		}
		want(t, b, HalfOpen)
		probed(b, nil)
		probed(b, nil)
		for range 10 {
			probed(b, server("FATAL", "53300")) // neither yes nor no, and no permission is lost
			b.Report(time.Millisecond, nil)     // only probes decide
			b.Report(0, errGone)
			b.fail(0, errGone) // one that saw the breaker closed, and came too late
		}
		probed(b, nil)
		probed(b, nil)
		want(t, b, HalfOpen)
		probed(b, nil)
		want(t, b, Closed)
	})
}

func TestBreakerFailedTrialOpensAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{}, nil)
		opened(t, b)
		for range 20 { // however often, the pause stays plain
			time.Sleep(b.Tick())
			b.Tick()
			want(t, b, HalfOpen)
			probed(b, nil)
			probed(b, errGone)
			want(t, b, Open)
			if left := b.Tick(); left > DefaultOpenTimeout+time.Millisecond {
				t.Fatalf("open for %v after a failed trial", left)
			}
		}
		if n := b.Status().Failures; n != 1 {
			t.Errorf("%d failures in a row, want 1", n)
		}
	})
}

func TestBreakerRelapsesWaitLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{}, nil)
		pause := func() time.Duration { return b.Tick().Round(time.Millisecond) }
		for _, n := range []time.Duration{1, 2, 4, 8, 8} {
			opened(t, b)
			if got := pause(); got != n*DefaultOpenTimeout {
				t.Fatalf("open for %v, want %d times %v", got, n, DefaultOpenTimeout)
			}
			closed(t, b)
			time.Sleep(DefaultInterval / 2)
		}
		time.Sleep(DefaultInterval)
		opened(t, b)
		if got := pause(); got != DefaultOpenTimeout {
			t.Errorf("open for %v after a long time in health", got)
		}
	})
}

// Work that hung through an outage fails when it is over; that is old news.
func TestBreakerIgnoresFailuresOfTheTimeBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{}, nil)
		time.Sleep(time.Minute)
		opened(t, b)
		closed(t, b)
		time.Sleep(time.Second)
		if b.Report(5*time.Second, errGone) || b.Status().Failures != 0 {
			t.Error("a failure of work begun before the breaker closed counts")
		}
		if !b.Report(500*time.Millisecond, errGone) || b.Status().Failures != 1 {
			t.Error("a failure of work begun after the breaker closed does not count")
		}
	})
}

// A probe that began before the breaker opened does not decide the trial.
func TestBreakerLateProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{HalfOpenRequests: 1}, nil)
		_, err := b.Try(func() error {
			opened(t, b)
			time.Sleep(b.Tick())
			b.Tick()
			want(t, b, HalfOpen)
			return nil
		}, ClassifyOwn)
		if err != nil {
			t.Fatal(err)
		}
		want(t, b, HalfOpen)
		probed(b, nil)
		want(t, b, Closed)
	})
}

func TestBreakerSettlesAPanickingProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{HalfOpenRequests: 1}, nil)
		opened(t, b)
		time.Sleep(b.Tick())
		b.Tick()
		func() {
			defer func() {
				if recover() != "boom" {
					t.Error("the panic was swallowed")
				}
			}()
			b.Try(func() error { panic("boom") }, ClassifyOwn)
		}()
		want(t, b, Open) // not half-open for ever
		if err := b.Status().LastError; !errors.Is(err, errProbePanicked) {
			t.Errorf("last error %v", err)
		}
	})
}

func TestBreakerTakeMergesChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{}, nil)
		if _, has := b.Take(); has {
			t.Error("a change out of nothing")
		}
		time.Sleep(time.Second)
		opened(t, b)
		if c, has := b.Take(); !has || c != (Change{Closed, Open, errGone, time.Now()}) {
			t.Errorf("%+v, %v", c, has)
		}
		closed(t, b)
		opened(t, b)
		if c, _ := b.Take(); c.From != Open || c.To != Open || c.Err != errGone || !c.At.Equal(time.Now()) {
			t.Errorf("%+v", c)
		}
		closed(t, b)
		if c, _ := b.Take(); c.From != Open || c.To != Closed || c.Err != nil {
			t.Errorf("%+v", c)
		}
		if _, has := b.Take(); has {
			t.Error("a change was told twice")
		}
	})
}

func TestBreakerLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(Config{}, nil)
		b.Report(10*time.Millisecond, nil)
		b.Report(30*time.Millisecond, nil)
		b.Try(func() error { time.Sleep(3 * time.Millisecond); return nil }, ClassifyOwn)
		if s := b.Status(); s.Latency != 20*time.Millisecond || s.ProbeLatency != 3*time.Millisecond {
			t.Errorf("%+v", s)
		}
		for range 8 {
			b.Report(40*time.Millisecond, nil)
		}
		probed(b, errGone)
		if s := b.Status(); s.Latency != 30*time.Millisecond || s.ProbeLatency != 3*time.Millisecond {
			t.Errorf("%+v", s)
		}
	})
}

// changed may look at the breaker: no lock is held around it.
func TestBreakerCallsBackWithoutLocks(t *testing.T) {
	var b *Breaker
	var states []State
	b = NewBreaker(Config{}, func() {
		b.Status()
		b.Take()
		b.Tick()
		b.Report(0, server("ERROR", "42601"))
		states = append(states, b.State())
	})
	probed(b, errGone)
	b.Report(0, errGone)
	if len(states) != 2 || states[1] != Open {
		t.Errorf("called back in %v", states)
	}
}

func TestBreakerUnderConcurrentUse(t *testing.T) {
	b := NewBreaker(Config{OpenTimeout: time.Millisecond, FailureRatio: 0.2, MinRequests: 5}, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 500 {
				switch (i + j) % 4 {
				case 0:
					b.Report(time.Microsecond, errGone)
				case 1:
					probed(b, nil)
				case 2:
					b.Tick()
					b.Take()
				default:
					b.Report(time.Microsecond, nil)
				}
			}
		})
	}
	wg.Wait()
	for deadline := time.Now().Add(time.Minute); b.State() != Closed; { // whatever happened, it can still close
		if time.Now().After(deadline) {
			t.Fatalf("stuck: %+v", b.Status())
		}
		b.Tick()
		probed(b, nil)
	}
}

// What relapses add to the pause ends when somebody else has found the database well; the
// pause itself does not.
func TestRetryEndsWhatRelapsesAdd(t *testing.T) {
	b := NewBreaker(Config{Failures: 1, OpenTimeout: 20 * time.Millisecond, Interval: time.Hour, HalfOpenRequests: 1, ProbeInterval: time.Second, FailureRatio: -1}, nil)
	bad, good := errors.New("connection refused"), func() error { return nil }
	classify := func(err error) Kind {
		if err != nil {
			return Failure
		}
		return Success
	}
	fail := func() {
		t.Helper()
		if ran, _ := b.Try(func() error { return bad }, classify); !ran || b.State() != Open {
			t.Fatalf("ran %v, state %v", ran, b.State())
		}
	}
	for range 12 {
		fail()
		b.Retry()
		if left := b.Tick(); left > 20*time.Millisecond+time.Nanosecond {
			t.Fatalf("it stays open for %v", left)
		}
		for b.Tick() > 0 {
			time.Sleep(time.Millisecond)
		}
		if ran, _ := b.Try(good, classify); !ran || b.State() != Closed {
			t.Fatalf("ran %v, state %v", ran, b.State())
		}
	}
	fail()
	if left := b.Tick(); left < 100*time.Millisecond {
		t.Errorf("after so many relapses, and unless asked, it stays open for %v", left)
	}
}
