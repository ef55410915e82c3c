package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakes are databases that answer, refuse or hang.
type fakes struct {
	mu    sync.Mutex
	reply map[MemberID]func(context.Context) error
	asked map[MemberID]int
	at    map[MemberID][]time.Duration
	begun time.Time
}

func newFakes() *fakes {
	return &fakes{reply: map[MemberID]func(context.Context) error{}, asked: map[MemberID]int{}, at: map[MemberID][]time.Duration{}, begun: time.Now()}
}

func (f *fakes) set(id MemberID, reply func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reply[id] = reply
}

func (f *fakes) probe(ctx context.Context, id MemberID) error {
	f.mu.Lock()
	reply := f.reply[id]
	f.asked[id]++
	f.at[id] = append(f.at[id], time.Since(f.begun))
	f.mu.Unlock()
	if reply == nil {
		return nil
	}
	return reply(ctx)
}

func (f *fakes) count(id MemberID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[id]
}

// times are when id was probed, since the first probe of all.
func (f *fakes) times(id MemberID) []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.at[id])
	for i := range out {
		out[i] = out[i].Round(time.Millisecond)
	}
	return out
}

func refuses(context.Context) error { return errGone }

// hangs is a stopped process: no answer until the deadline.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("probe: %w", ctx.Err())
}

// board starts a board over three databases in a bubble of virtual time, in
// which all goroutines are idle whenever f goes on after a sleep.
func board(t *testing.T, f func(t *testing.T, b *Board, dbs *fakes)) {
	synctest.Test(t, func(t *testing.T) {
		dbs := newFakes()
		b := NewBoard(BoardConfig{Members: []MemberConfig{{ID: 1, Host: "h1"}, {ID: 2, Host: "h2"}, {ID: 3, Host: "h3"}}, Probe: dbs.probe})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		synctest.Wait()
		f(t, b, dbs)
	})
}

// until advances virtual time until the member is in the state, and tells how long that took.
func until(t *testing.T, b *Board, id MemberID, s State) time.Duration {
	t.Helper()
	began := time.Now()
	for b.Snapshot().State(id) != s {
		if time.Since(began) > time.Minute {
			t.Fatalf("member %d does not become %v: %+v", id, s, b.Snapshot().Members)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	return time.Since(began)
}

func TestBoardFindsARefusal(t *testing.T) {
	for phase := time.Duration(0); phase < DefaultProbeInterval; phase += 10 * time.Millisecond {
		board(t, func(t *testing.T, b *Board, dbs *fakes) {
			time.Sleep(3*time.Second + phase)
			dbs.set(2, refuses)
			if took := until(t, b, 2, Open); took > 301*time.Millisecond {
				t.Errorf("found after %v", took)
			}
			if s := b.Snapshot(); s.State(1) != Closed || s.State(3) != Closed {
				t.Errorf("others are affected: %+v", s)
			}
		})
	}
}

func TestBoardFindsARefusalAtOnceUnderLoad(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		time.Sleep(DefaultProbeInterval / 2)
		dbs.set(2, refuses)
		for range 16 {
			b.Report(2, time.Millisecond, io.EOF)
		}
		if took := until(t, b, 2, Open); took > time.Millisecond {
			t.Errorf("found after %v", took)
		}
	})
}

func TestBoardFindsAStoppedProcess(t *testing.T) {
	for phase := time.Duration(0); phase < DefaultProbeInterval; phase += 10 * time.Millisecond {
		board(t, func(t *testing.T, b *Board, dbs *fakes) {
			time.Sleep(3*time.Second + phase)
			dbs.set(2, hangs)
			if took := until(t, b, 2, Open); took >= 1810*time.Millisecond {
				t.Errorf("found after %v", took)
			}
			if s, _ := b.Snapshot().Member(2); !errors.Is(s.LastError, ErrTimeout) {
				t.Errorf("last error %v", s.LastError)
			}
		})
	}
}

// A shutdown says 57P01 to clients first, then refuses.
func TestBoardLooksAtOnceWhenABackendIsTerminated(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		time.Sleep(DefaultProbeInterval / 2)
		dbs.set(2, refuses)
		b.Report(2, time.Millisecond, server("FATAL", "57P01"))
		if took := until(t, b, 2, Open); took > DefaultProbeInterval/hurry+time.Millisecond {
			t.Errorf("found after %v", took)
		}
	})
}

func TestBoardKeepsWhatClientsBroke(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		for range 200 {
			b.Report(1, time.Millisecond, server("ERROR", "23505"))
			b.Report(1, time.Millisecond, context.Canceled)
			b.Report(1, time.Millisecond, context.DeadlineExceeded)
			b.Report(2, time.Millisecond, server("FATAL", "57P01"))
		}
		for range 15 { // connections that a firewall forgot
			b.Report(3, time.Millisecond, io.EOF)
		}
		time.Sleep(5 * time.Second)
		for _, m := range b.Snapshot().Members {
			if m.State != Closed || !m.Since.Equal(dbs.begun) {
				t.Errorf("%+v", m)
			}
		}
	})
}

// A server that answers the probe with an error cannot do what it is there for.
func TestBoardExcludesWhatCannotServe(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		dbs.set(2, func(context.Context) error { return server("FATAL", "28P01") })
		if took := until(t, b, 2, Open); took > 301*time.Millisecond {
			t.Errorf("found after %v", took)
		}
	})
}

// A busy server misses the probes' deadline and still serves clients.
func TestBoardBelievesClientsThatAreServed(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		dbs.set(2, hangs)
		for range 60 {
			time.Sleep(100 * time.Millisecond)
			b.Report(2, 50*time.Millisecond, nil)
		}
		if s := b.Snapshot().State(2); s != Closed {
			t.Errorf("it is %v", s)
		}
		if took := until(t, b, 2, Open); took > 2*time.Second {
			t.Errorf("found after %v without clients", took)
		}
	})
}

func TestBoardLetsItBackIn(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		dbs.set(2, refuses)
		until(t, b, 2, Open)
		time.Sleep(time.Hour)
		dbs.set(2, nil)
		limit := DefaultOpenTimeout + DefaultProbeInterval/hurry + 5*time.Millisecond
		if took := until(t, b, 2, Closed); took > limit {
			t.Errorf("back after %v, want %v", took, limit)
		}
		s, _ := b.Snapshot().Member(2)
		if !errors.Is(s.LastError, errGone) || s.Failures != 0 || s.LastErrorAt.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

// Full of other people's connections: neither dead, nor tried without pause.
func TestBoardTooManyConnections(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		dbs.set(2, func(context.Context) error { return server("FATAL", "53300") })
		time.Sleep(time.Minute)
		if s := b.Snapshot().State(2); s != Closed {
			t.Errorf("it is %v", s)
		}
		if n := dbs.count(2); n > int(time.Minute/DefaultProbeInterval)+5 {
			t.Errorf("%d probes in a minute", n)
		}
	})
}

// However many clients fail, probes keep a distance.
func TestBoardProbesKeepTheirDistance(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		time.Sleep(time.Second)
		before := dbs.count(2)
		for range 1000 {
			b.Report(2, 0, server("FATAL", "57P01"))
			time.Sleep(time.Millisecond)
		}
		if n := dbs.count(2) - before; n < 15 || n > 21 {
			t.Errorf("%d probes in a second", n)
		}
	})
}

func TestBoardRhythm(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		dbs.set(2, hangs) // one that hangs holds up nobody else
		time.Sleep(time.Second + time.Millisecond)
		ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
		if want := []time.Duration{0, ms(250), ms(500), ms(750), ms(1000)}; !slices.Equal(dbs.times(1), want) {
			t.Errorf("probed at %v, want %v", dbs.times(1), want)
		}
		time.Sleep(3 * time.Second)
		// 0 answered; 250 to 1000, 1050 to 1800: open; half-open at 2800, failing at 3550.
		if want := []time.Duration{0, ms(250), ms(1050), ms(2800)}; !slices.Equal(dbs.times(2), want) {
			t.Errorf("probed at %v, want %v", dbs.times(2), want)
		}
	})
}
