package health

import (
	"context"
	"errors"
	"os"
	"time"
)

type deadlineKey struct{}

// WithTimeout is context.WithTimeout for a deadline of ours, which [Blame]
// later tells from one that the client set.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(d)
	ctx = context.WithValue(ctx, deadlineKey{}, deadline)
	return context.WithDeadlineCause(ctx, deadline, ErrTimeout)
}

// Blame says whose time-out err is. If it is one, and it is not ctx's own or
// ctx's deadline was set by [WithTimeout], the result is a [*TimeoutError]
// around err; otherwise err itself. ctx is the context the work ran under.
//
// The error alone cannot tell: drivers answer context.DeadlineExceeded for a
// client's deadline, for the pool's connect_timeout below it and for the
// mirror's deadline above it alike. A time-out while ctx is still alive can
// only be one below ctx, that is one of ours.
func Blame(ctx context.Context, err error) error {
	if err == nil || !isDeadline(err) {
		return err
	}
	cause := context.Cause(ctx)
	if cause == nil && pastForeignDeadline(ctx) {
		return err
	}
	if cause == nil || errors.Is(cause, ErrTimeout) {
		return &TimeoutError{Err: err}
	}
	return err
}

// pastForeignDeadline tells that a deadline which is not ours has passed,
// though ctx is not over yet: net reports it a moment before the context does.
func pastForeignDeadline(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	if !ok || time.Now().Before(deadline) {
		return false
	}
	ours, ok := ctx.Value(deadlineKey{}).(time.Time)
	return !ok || !ours.Equal(deadline)
}

func isDeadline(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}
