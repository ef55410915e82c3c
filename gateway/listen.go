package gateway

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// deaf ends a client whose notifications do not come any more: it may wait for them
// without ever sending a statement that could tell it, and what was missed meanwhile
// only a client that begins anew looks for.
func (c *client) deaf() {
	c.lastWords(&pgconn.PgError{
		Severity: "FATAL", Code: "57P01", Message: "the leader's connection was lost, and with it what this session listens for",
		Hint: "Connect again, LISTEN, and look for what was missed.",
	})
}

// lastWords ends a client that its own goroutine waits for.
func (c *client) lastWords(e *pgconn.PgError) {
	_ = c.conn.SetWriteDeadline(time.Now().Add(farewell))
	_ = c.write(appendError(nil, msgError, e)) // its reader notices the end in any case
	_ = c.conn.Close()
}

// hear passes on what comes until it is told to stop; succeeded tells that another leads.
func (c *client) hear(u *upstream, succeeded *atomic.Bool) {
	for {
		typ, body, err := u.in.next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if succeeded.Load() { // the connection may well be as it was: nobody notifies it any more
				c.deaf()
			}
			return
		case err != nil:
			_ = u.broken(err)
			c.deaf()
			return
		}
		switch typ {
		case msgNotice, msgNotification:
			if err := c.write(appendMessage(nil, typ, body)); err != nil {
				return // the client's reader notices, too
			}
		case msgError:
			_ = u.broken(errorOf(body))
			c.deaf()
			return
		case msgParameterStatus:
			u.aside(typ, body)
		}
	}
}

// overhear passes on what the server says while the client is silent: a session that
// listens has a connection of its own, on which notifications come at any time. It ends the
// client when another leads.
func (c *client) overhear() {
	u, view := c.session.Held().(*upstream), c.session.HeldView()
	ctx, stop := context.WithCancel(c.server.ctx)
	var succeeded atomic.Bool
	var both sync.WaitGroup
	both.Go(func() {
		if err := c.server.safely("notifications of "+c.String(), func() error { c.hear(u, &succeeded); return nil }); err != nil {
			_ = u.broken(err)
			c.server.measures.errors.add("XX000")
			c.lastWords(internalError())
		}
	})
	both.Go(func() {
		if c.source.engine.Succeeded(ctx, view) {
			succeeded.Store(true)
			_ = u.conn.SetReadDeadline(time.Unix(1, 0))
		}
	})
	c.in.woken = func() {
		c.in.woken = nil
		stop()
		_ = u.conn.SetReadDeadline(time.Unix(1, 0))
		both.Wait()
		_ = u.conn.SetReadDeadline(time.Time{})
	}
}
