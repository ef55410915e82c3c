package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// errSilent is the cause of a context that mind ended.
	errSilent = errors.New("no progress within sync_timeout")
	// patience is how many sync_timeouts a statement may run that does work.
	patience = 40
)

// mind watches over a statement on c. What holds it up by a lock is ended after
// BlockedTimeout. After limit (0: never) without progress the returned context
// ends: a backend that works, as the server sees it, is making progress, for a
// million rows are not a dead database. The returned function calls it off.
func (s *Set) mind(ctx context.Context, m *member, c *conn, limit time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	finished := make(chan struct{})
	first := s.cfg.BlockedTimeout
	if limit > 0 {
		first = min(first, limit)
	}
	t := time.AfterFunc(first, func() {
		defer close(finished)
		s.attend(ctx, cancel, m, c.PID(), limit)
	})
	return ctx, func() {
		cancel(nil)
		if !t.Stop() {
			<-finished
		}
	}
}

// attend looks after a statement that takes long until its context ends.
func (s *Set) attend(ctx context.Context, cancel context.CancelCauseFunc, m *member, pid uint32, limit time.Duration) {
	began := time.Now()
	tick := time.NewTicker(s.cfg.BlockedTimeout)
	defer tick.Stop()
	var c *conn
	defer func() { c.close() }()
	for ctx.Err() == nil {
		if c == nil || c.IsClosed() {
			var err error
			if c, err = m.connect(ctx); err != nil {
				c = nil
			}
		}
		working := false
		if c != nil {
			working = s.lookAfter(ctx, m, c, pid)
		}
		late := time.Since(began) + s.cfg.BlockedTimeout
		if limit > 0 && (late >= limit && !working || late >= limit*time.Duration(patience)) {
			cancel(errSilent)
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// lookAfter ends what blocks the backend and tells whether it does work itself.
func (s *Set) lookAfter(ctx context.Context, m *member, c *conn, pid uint32) (working bool) {
	rows, err := c.call(ctx, `SELECT pid, usename, query FROM pgdist.unblock($1::int)`, fmt.Append(nil, pid))
	if err != nil && ctx.Err() == nil {
		s.log.Warn("cannot look for what blocks the mirror", "member", m.host, "err", err)
		return false
	}
	for _, r := range rows {
		s.log.Warn("ended a backend whose lock held up the mirror", "member", m.host, "pid", string(r[0]), "user", string(r[1]), "query", string(r[2]))
	}
	rows, err = c.call(ctx, `SELECT 1 FROM pg_stat_activity WHERE pid = $1::int AND state = 'active' AND coalesce(wait_event_type, '') NOT IN ('Lock', 'Client')`, fmt.Append(nil, pid))
	return err == nil && len(rows) == 1
}
