package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
)

// queue has users come to a gate in that order; the channel tells who was let in.
func queue(t *testing.T, g *gate, users ...string) chan string {
	in := make(chan string)
	for i, user := range users {
		go func() {
			if err := g.enter(t.Context(), user[:1]); err == nil {
				in <- user
			}
		}()
		synctest.Wait()
		g.mu.Lock()
		waiting := 0
		for _, l := range g.lines {
			waiting += len(l.waiting)
		}
		g.mu.Unlock()
		if waiting != i+1 {
			t.Fatalf("%d wait after %s has come", waiting, user)
		}
	}
	return in
}

// TestGateTakesTurns: many sessions of one user do not hold up another's, and those of one user
// are served in the order in which they came.
func TestGateTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		g.set(Limits{Connections: 1})
		if err := g.enter(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		in := queue(t, g, "a1", "a2", "a3", "a4", "b1", "b2", "c1")
		var got []string
		for last := "x"; len(got) < 7; {
			g.leave(last[:1])
			last = <-in
			got = append(got, last)
		}
		if want := []string{"a1", "b1", "c1", "a2", "b2", "a3", "a4"}; !slices.Equal(got, want) {
			t.Errorf("they were let in as %v, want %v", got, want)
		}
	})
}

func TestGateLimitsUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		g.set(Limits{Connections: 3, User: func(user string) int { return map[string]int{"a": 1}[user] }})
		if err := g.enter(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		in := queue(t, g, "a1", "a2")
		for range 2 { // others do not wait behind whose limit is reached
			if err := g.enter(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
		}
		g.leave("a")
		if got := <-in; got != "a1" {
			t.Errorf("%s is let in", got)
		}
		g.set(Limits{Connections: 5}) // more room
		if got := <-in; got != "a2" {
			t.Errorf("%s is let in", got)
		}
		g.mu.Lock()
		leased := g.leased
		g.mu.Unlock()
		if leased != 4 {
			t.Errorf("%d are counted", leased)
		}
	})
}

// TestGateForgetsWhoLeaves: a session that gives up takes no turn.
func TestGateForgetsWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		g.set(Limits{Connections: 1})
		if err := g.enter(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() { gone <- g.enter(ctx, "a") }()
		synctest.Wait()
		in := make(chan string)
		go func() {
			if err := g.enter(t.Context(), "b"); err == nil {
				in <- "b"
			}
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up hears %v", err)
		}
		g.leave("x")
		if got := <-in; got != "b" {
			t.Errorf("%s is let in", got)
		}
		g.leave("b")
		for i := range 100 { // whether it gives up before or after it is let in
			ctx, cancel := context.WithCancel(t.Context())
			if err := g.enter(ctx, "x"); err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- g.enter(ctx, fmt.Sprint("u", i)) }()
			synctest.Wait()
			go cancel()
			g.leave("x")
			if err := <-done; err == nil {
				g.leave(fmt.Sprint("u", i))
			}
			synctest.Wait()
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.leased != 0 || len(g.turns) != 0 {
			t.Errorf("%d are counted, %d lines wait", g.leased, len(g.turns))
		}
	})
}
