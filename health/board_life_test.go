package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestBoardEvents(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		var got []string
		var read sync.WaitGroup
		read.Go(func() {
			for e := range b.Events() {
				got = append(got, fmt.Sprintf("%d %v to %v", e.Member, e.From, e.To))
				if s := b.Snapshot().State(e.Member); s != e.To {
					t.Errorf("the snapshot is behind event %+v: %v", e, s)
				}
			}
		})
		dbs.set(2, refuses)
		until(t, b, 2, Open)
		dbs.set(2, nil)
		until(t, b, 2, Closed)
		b.Close()
		read.Wait()
		if want := []string{"2 closed to open", "2 open to half-open", "2 half-open to closed"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// A reader that sleeps holds nobody up, and learns where every member ended up.
func TestBoardEventsOfASlowReader(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		for _, id := range []MemberID{1, 2, 3} {
			dbs.set(id, refuses)
		}
		until(t, b, 3, Open)
		dbs.set(1, nil)
		time.Sleep(time.Minute)
		dbs.set(3, nil)
		until(t, b, 3, Closed)
		dbs.set(3, refuses)
		until(t, b, 3, Open)
		ends := map[MemberID]Change{}
		for range 3 {
			e := <-b.Events()
			if e.From != Closed {
				t.Errorf("the reader left member %d closed, not %v", e.Member, e.From)
			}
			ends[e.Member] = e.Change
		}
		if ends[1].To != Closed || ends[2].To == Closed || ends[3].To != Open || !errors.Is(ends[3].Err, errGone) {
			t.Errorf("%+v", ends)
		}
		if ends[1].Err == nil {
			t.Error("it is not told why member 1 was away")
		}
	})
}

func TestBoardCloseInTheMiddle(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		ended := false
		dbs.set(1, func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second) // a probe takes its time to go
			ended = true
			return ctx.Err()
		})
		time.Sleep(DefaultProbeInterval + time.Millisecond)
		b.Close()
		if !ended {
			t.Error("Close did not wait for the probe")
		}
		if s, _ := b.Snapshot().Member(1); s.State != Closed || s.LastError != nil {
			t.Errorf("closing counts as a failure: %+v", s)
		}
		if _, open := <-b.Events(); open {
			t.Error("Events is not closed")
		}
		b.Close()               // again: nothing happens
		b.Report(1, 0, errGone) // late: nothing happens
		if err := b.Start(t.Context()); err == nil {
			t.Error("started after Close")
		}
	})
}

func TestBoardEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dbs := newFakes()
		ctx, cancel := context.WithCancel(t.Context())
		b := NewBoard(BoardConfig{Members: []MemberConfig{{ID: 1}}, Probe: dbs.probe})
		if err := b.Start(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		n := dbs.count(1)
		time.Sleep(time.Minute)
		if dbs.count(1) != n {
			t.Error("it goes on probing")
		}
		b.Close()
	})
}

func TestBoardConfigOfOneMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dbs := newFakes()
		b := NewBoard(BoardConfig{Members: []MemberConfig{{ID: 2, Config: Config{ProbeInterval: 10 * time.Millisecond}}, {ID: 1}}, Probe: dbs.probe})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		time.Sleep(time.Second - time.Millisecond)
		if dbs.count(1) != 4 || dbs.count(2) != 100 {
			t.Errorf("%d and %d probes", dbs.count(1), dbs.count(2))
		}
		if ids := b.Snapshot().Members; ids[0].ID != 1 || ids[1].ID != 2 {
			t.Errorf("not ordered by id: %+v", ids)
		}
	})
}

func TestBoardRefusesBadConfig(t *testing.T) {
	b := NewBoard(BoardConfig{Members: []MemberConfig{{ID: 1, Host: "a"}, {ID: 1, Host: "b"}, {ID: 0}, {ID: 4, Config: Config{FailureRatio: 2}}}})
	defer b.Close()
	err := b.Start(t.Context())
	if err == nil {
		t.Fatal("started")
	}
	for _, part := range []string{"Probe is not set", "member 1 (b) is listed twice", "ids count from 1", "failure_ratio"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestBoardUnknownMember(t *testing.T) {
	board(t, func(t *testing.T, b *Board, _ *fakes) {
		b.Report(0, 0, errGone)
		b.Report(9, 0, errGone)
		if s := b.Snapshot(); s.State(9) != Open || s.State(0) != Open {
			t.Error("a member that nobody watches is taken to work")
		}
		if _, known := b.Snapshot().Member(9); known {
			t.Error("known")
		}
	})
}

// Ids may have gaps after a member was removed.
func TestBoardIDsWithGaps(t *testing.T) {
	b := NewBoard(BoardConfig{Members: []MemberConfig{{ID: 5, Host: "five"}, {ID: 2, Host: "two"}}})
	b.Report(5, time.Second, nil)
	if w := b.find(5); w.Host != "five" || w.breaker.good.Load() != 1 {
		t.Errorf("%+v", w)
	}
	if s, ok := b.Snapshot().Member(5); !ok || s.Host != "five" || b.Snapshot().State(5) != Closed {
		t.Errorf("%+v", s)
	}
	if s, ok := b.Snapshot().Member(2); !ok || s.Host != "two" {
		t.Errorf("%+v", s)
	}
}

func TestBoardLogsTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder // written by one goroutine, read after Close
		dbs := newFakes()
		dbs.set(1, refuses)
		b := NewBoard(BoardConfig{Members: []MemberConfig{{ID: 1, Host: "h1"}}, Probe: dbs.probe, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		until(t, b, 1, Open)
		b.Close()
		for _, part := range []string{"level=WARN", "member=1", "host=h1", "from=closed to=open", "refused"} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%q does not say %q", out.String(), part)
			}
		}
	})
}

func TestReportAllocatesNothing(t *testing.T) {
	b := NewBoard(BoardConfig{Members: []MemberConfig{{ID: 1}, {ID: 2}, {ID: 3}}})
	if n := testing.AllocsPerRun(100, func() { b.Report(2, time.Millisecond, nil) }); n != 0 {
		t.Errorf("Report of a success allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { b.Snapshot().State(2) }); n != 0 {
		t.Errorf("Snapshot allocates %v times", n)
	}
}

// A member that is added is probed and found dead like any other; one that is removed is
// not asked any more, and no result about it counts.
func TestBoardAddAndRemove(t *testing.T) {
	board(t, func(t *testing.T, b *Board, dbs *fakes) {
		dbs.set(7, refuses)
		if err := b.Add(MemberConfig{ID: 7, Host: "seven"}); err != nil {
			t.Fatal(err)
		}
		if err := b.Add(MemberConfig{ID: 7, Host: "seven"}); err == nil {
			t.Error("the same member was added twice")
		}
		until(t, b, 7, Open)
		b.Remove(7)
		b.Remove(7)
		b.Remove(1)
		time.Sleep(3 * time.Second)
		was, first := dbs.count(7), dbs.count(1)
		time.Sleep(10 * time.Second)
		if n := dbs.count(7); n != was {
			t.Errorf("a member that was removed was probed %d times more", n-was)
		}
		if n := dbs.count(1); n != first || b.Snapshot().State(1) != Open {
			t.Errorf("member 1 was probed %d times more and is %v", n-first, b.Snapshot().State(1))
		}
		b.Report(7, 0, errGone)
		if _, known := b.Snapshot().Member(7); known {
			t.Error("it is in the snapshot")
		}
		if b.Snapshot().State(2) != Closed {
			t.Error("the others are not watched any more")
		}
	})
}
