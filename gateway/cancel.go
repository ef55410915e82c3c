package gateway

import (
	"context"
	"crypto/subtle"
	"slices"
	"time"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// cancelTimeout bounds a cancel request to a server.
const cancelTimeout = 5 * time.Second

// acquire leases a connection for call. A cancel request ends the wait for it.
func (c *client) acquire(call engine.Call) (*engine.Lease, *upstream, error) {
	if c.asked == 0 { // it is no repetition
		c.asked = c.mark()
	}
	c.mu.Lock()
	c.waiting, c.waitingSince = true, c.asked
	c.mu.Unlock()
	lease, err := c.session.Acquire(c.ctx, call)
	var u *upstream
	if err == nil {
		u = lease.Conn().(*upstream)
	}
	if err != nil {
		c.mu.Lock()
		c.waiting = false
		c.asked = 0
		c.renew()
		c.mu.Unlock()
		if call.Verdict.Class == classify.Refused && slices.ContainsFunc(call.Verdict.Statements, prepares) && c.session.Status() == 'E' {
			_ = c.session.Rollback() // what is open has failed
		}
		return nil, nil, err
	}
	c.under(u)
	return lease, u, nil
}

// prepares tells that a statement is PREPARE TRANSACTION. Where that fails PostgreSQL has ended the
// transaction, and drivers send no ROLLBACK.
func prepares(st classify.Statement) bool {
	return st.Tx != nil && st.Tx.Kind == classify.TxPrepare
}

// under notes that u serves the client from now on. A cancel request that came when the
// wait was just over has ended the client's context and nothing else: it is for the
// statement that is sent now, and not for the next one.
func (c *client) under(u *upstream) {
	c.mu.Lock()
	late := c.waiting && c.ctx != nil && c.ctx.Err() != nil && c.server.ctx.Err() == nil
	c.serving, c.cancelled, c.waiting = u, late, false
	if late {
		c.renew()
		c.cancels.Add(1)
	}
	c.mu.Unlock()
	if late {
		go c.relayCancel(c.server.ctx, u)
	}
}

// served ends what acquire began; until then cancel requests go to the server,
// and the connection is nobody else's before the last of them is over.
func (c *client) served(lease *engine.Lease) {
	c.mu.Lock()
	c.serving = nil
	if c.cancelled {
		lease.ByClient()
	}
	c.mu.Unlock()
	c.cancels.Wait()
}

// enter and leave bracket what is run for the client beside its statement: a cancel request
// reaches it, too. Within acquire and served u goes on serving the client after it.
func (c *client) enter(u *upstream) (before *upstream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, c.serving = c.serving, u
	if before == nil {
		c.cancelled = false
	}
	return before
}

// leave takes what enter returned.
func (c *client) leave(before *upstream) {
	c.mu.Lock()
	c.serving = before
	c.mu.Unlock()
	if before == nil {
		c.cancels.Wait()
	}
}

// goesOn has a cancel request that came for what a statement needed before it be for the statement,
// which is sent next: what it was for may have been over already.
func (c *client) goesOn(u *upstream) {
	c.mu.Lock()
	again := c.cancelled && c.serving == u
	if again {
		c.cancels.Add(1)
	}
	c.mu.Unlock()
	if again {
		go c.relayCancel(c.server.ctx, u)
	}
}

// await says whether a cancel request ends the client's wait for something of the engine's.
func (c *client) await(waits bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting = waits; waits {
		c.waitingSince = engine.Now()
	} else {
		c.renew()
	}
}

// renew replaces the context that a cancel request has ended. mu is held.
func (c *client) renew() {
	if c.ctx == nil || c.ctx.Err() != nil {
		c.ctx, c.stop = context.WithCancel(c.server.ctx)
	}
}

// cancel carries out a cancel request: it ends the statement that runs now, or the
// wait for a connection. Nobody is told whether it did.
func (c *client) cancel(ctx context.Context) {
	c.mu.Lock()
	u := c.serving
	switch {
	case u != nil:
		c.cancelled = true
		c.cancels.Add(1)
	case c.waiting:
		c.stop()
	}
	c.mu.Unlock()
	if u == nil {
		return
	}
	c.relayCancel(ctx, u)
}

// relayCancel sends the server a cancel request, which is one of cancels.
func (c *client) relayCancel(ctx context.Context, u *upstream) {
	defer c.cancels.Done()
	ctx, stop := context.WithTimeout(ctx, cancelTimeout)
	defer stop()
	if err := u.cancel(ctx); err != nil {
		c.server.log.Debug("cancel request", "client", c.id, "error", err)
	}
}

// cancelRequest finds the client that a cancel request is for.
func (s *Server) cancelRequest(ctx context.Context, id uint32, key []byte) {
	s.mu.Lock()
	c, k := s.clients[id], s.consoles[id]
	s.mu.Unlock()
	if k != nil && subtle.ConstantTimeCompare(k.key, key) == 1 {
		k.cancel()
		return
	}
	if c == nil || subtle.ConstantTimeCompare(c.key, key) != 1 {
		return
	}
	c.cancel(ctx)
}
