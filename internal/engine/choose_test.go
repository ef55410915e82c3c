package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/health"
)

// steady is a mirror whose view never changes. Whatever else of it is called panics.
type steady struct {
	Mirror
	view *health.View
}

func (s steady) View() *health.View                           { return s.view }
func (s steady) Usable(health.MemberID) bool                  { return true }
func (s steady) Alike(health.MemberID) bool                   { return true }
func (s steady) Report(health.MemberID, time.Duration, error) {}
func (s steady) Current(context.Context, time.Duration) error { return nil }
func (s steady) Confirmed() bool                              { return true }
func (s steady) Changes() int64                               { return 0 }
func (s steady) WaitView(ctx context.Context, _ int64) (*health.View, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// lateContext has ended once over is set, but nobody who waits for it has been woken yet: so it
// is for whoever was woken by something else just before.
type lateContext struct {
	context.Context
	over atomic.Bool
}

func (c *lateContext) Err() error {
	if c.over.Load() {
		return context.Canceled
	}
	return c.Context.Err()
}

// TestEndedWhileConnecting: a client that cancels a statement, or whose time is over, hears
// that, and not how the last attempt to connect to a server for it went.
func TestEndedWhileConnecting(t *testing.T) {
	for _, sql := range []string{"SELECT 1", "INSERT INTO t VALUES (1)"} {
		t.Run(sql, func(t *testing.T) {
			ctx := &lateContext{Context: t.Context()}
			cc, err := pgx.ParseConfig("postgres://u@127.0.0.1:1/d")
			if err != nil {
				t.Fatal(err)
			}
			config := Config{
				Members: []MemberConfig{{Conn: cc}},
				Dial: func(context.Context, *pgx.ConnConfig) (ServerConn, error) {
					ctx.over.Store(true) // just when the server has refused
					return nil, syscall.ECONNREFUSED
				},
			}
			view := &health.View{Set: "s", Epoch: 1, Term: 1, Leader: 1, InSync: []health.MemberID{1}, Members: []health.Member{{ID: 1}}}
			e, err := New(config, steady{view: view}, map[health.MemberID]int{1: 0}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			s := e.NewSession(SessionOptions{})
			_, err = s.Acquire(ctx, Call{SQL: sql, Verdict: e.Classify(sql)})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the statement was told %v, want %v", err, context.Canceled)
			}
		})
	}
}
