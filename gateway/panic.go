package gateway

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A panic is a fault of this program's, in what it did for one client. It ends that client and
// nobody else. What Go cannot recover from (a stack that overflows, memory that ends, a map
// written to at the same time) ends the process all the same.

// mishap is a panic that was caught. It tells what it was about to whoever may see it.
type mishap struct{ where string }

func (m *mishap) Error() string { return "panic in " + m.where }

// Unwrap: what it happened to does not go on.
func (m *mishap) Unwrap() error { return errGone }

// caught notes a panic, given what recover returned.
func (s *Server) caught(where string, value any) *mishap {
	s.measures.panics.Add(1)
	s.log.Error("panic", "in", where, "value", fmt.Sprint(value), "stack", string(debug.Stack()))
	s.history.add("", "panic in %s: the log has the stack", where)
	return &mishap{where}
}

// safely runs f and makes an error of a panic.
func (s *Server) safely(where string, f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = s.caught(where, value)
		}
	}()
	return f()
}

// spawn runs f in a goroutine that Close waits for.
func (s *Server) spawn(where string, f func()) {
	s.work.Go(func() {
		_ = s.safely(where, func() error { f(); return nil }) // it is in the log
	})
}

// internalError is what a client hears that a panic ends.
func internalError() *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "XX000", Message: "internal error of the gateway, which ends this connection",
		Hint: "The gateway's log says where. What was under way may have been carried out or not.",
	}
}

// broke ends what a client had under way when it met a panic, whatever state that is in: its
// connections to servers are closed, and what it was about to be told is not said, since
// nobody knows how much of it is true.
func (c *client) broke() {
	c.server.measures.errors.add("XX000")
	c.mu.Lock()
	u := c.serving
	c.serving = nil
	c.mu.Unlock()
	if u != nil { // a server does not look for clients that left before its statement is over
		c.server.spawn("cancel", func() {
			ctx, stop := context.WithTimeout(c.server.ctx, cancelTimeout)
			defer stop()
			if err := u.cancel(ctx); err != nil {
				c.server.log.Debug("cancel request", "client", c.id, "error", err)
			}
		})
		_ = u.conn.Close() // who else writes to it, or reads from it, ends
	}
	if woken := c.in.woken; woken != nil {
		woken()
	}
	if p := c.relaying.pump; p != nil {
		c.relaying.pump = nil
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		<-p.ended // it has the client's buffer
	}
	c.session.Abandon()
	_ = c.conn.SetWriteDeadline(time.Now().Add(farewell))
	_, _ = c.conn.Write(appendError(nil, msgError, internalError())) // the connection ends in any case
	c.out = nil
}

// broke is the same for a console.
func (k *console) broke() {
	_ = k.conn.SetWriteDeadline(time.Now().Add(farewell))
	_, _ = k.conn.Write(appendError(nil, msgError, internalError())) // the connection ends in any case
	k.out = nil
}
