package gateway

import (
	"testing"
	"time"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// counting is a client that only counts.
func counting() (*client, *engine.Call) {
	v := &classify.Verdict{Class: classify.Read, Statements: []classify.Statement{{Class: classify.Read, Tag: "SELECT"}}}
	return &client{server: &Server{}, id: 1}, &engine.Call{SQL: "SELECT 1", Verdict: v}
}

// TestCountingAllocatesNothing: what is counted for a statement must not be seen in its duration.
func TestCountingAllocatesNothing(t *testing.T) {
	c, call := counting()
	if n := testing.AllocsPerRun(1000, func() {
		c.begun()
		c.asked = c.mark()
		c.measure(call, engine.Now(), nil)
		c.settled()
	}); n != 0 {
		t.Errorf("%v allocations for a statement", n)
	}
	if c.tally.statements.Load() != 1001 || c.tally.transactions.Load() != 1001 || c.server.measures.latency[workRead].read().total != 1001 {
		t.Error("it is not counted")
	}
}

func BenchmarkCounting(b *testing.B) {
	c, call := counting()
	for b.Loop() {
		c.asked = c.mark()
		c.measure(call, c.asked, nil)
		c.settled()
	}
}

func TestErrorClasses(t *testing.T) {
	var e errorCounts
	for _, code := range []string{"22012", "22P02", "XX000", "", "HV000", "ab"} {
		e.add(code)
	}
	got := map[string]uint64{}
	e.each(func(class string, n uint64) { got[class] = n })
	if got["22"] != 2 || got["XX"] != 2 || got["HV"] != 1 {
		t.Error(got)
	}
}

func TestRatesShareAWindow(t *testing.T) {
	s := &Server{began: time.Now().Add(-10 * time.Second)}
	s.gone.Statements = 100
	a := &admin{server: s}
	if r := a.rates(); r.Statements < 9 || r.Statements > 11 || len(r.Work) != works {
		t.Errorf("%+v", r)
	}
	s.gone.Statements = 1000
	if r := a.rates(); r.Statements > 11 { // within the window
		t.Errorf("%+v", r)
	}
}

func BenchmarkClock(b *testing.B) {
	for b.Loop() {
		engine.Now()
	}
}
