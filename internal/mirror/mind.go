package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgdist/pgdist/health"
)

var (
	// errSilent is the cause of a context that mind ended.
	errSilent = errors.New("no progress within sync_timeout")
	// patience is how many sync_timeouts a statement may run that does work.
	patience = 40
)

// errHeld: a prepared transaction keeps an apply waiting. Nobody can terminate
// it, and what it promised to another system is not ours to break.
type errHeld struct{ gids []string }

func (e *errHeld) Error() string {
	return fmt.Sprintf("a prepared transaction (%s) holds a lock that the mirror needs: ROLLBACK PREPARED or COMMIT PREPARED it", strings.Join(e.gids, ", "))
}

// lookEvery is how often a statement that takes long is looked after: often
// enough for a session that a cancel request does not move to be ended soon.
const lookEvery = 200 * time.Millisecond

// watched is a statement that takes long.
type watched struct {
	m     *member
	pid   uint32
	limit time.Duration
	began time.Time
	ended map[uint32]bool // who was asked to give way already
}

// mind watches over a statement on c. What holds it up by a lock for longer than
// BlockedTimeout is ended. After limit (0: never, it reads a batch at the leader)
// without progress the returned context ends: a backend that works, as the server
// sees it, is making progress, for a million rows are not a dead database, and so
// is one whose blocker has time left. The returned function calls it off.
func (s *Set) mind(ctx context.Context, m *member, c *conn, limit time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	finished := make(chan struct{})
	first := s.cfg.BlockedTimeout
	if limit > 0 {
		first = min(first, limit)
	}
	w := &watched{m: m, pid: c.PID(), limit: limit, began: time.Now(), ended: map[uint32]bool{}}
	t := time.AfterFunc(first, func() {
		defer close(finished)
		s.attend(ctx, cancel, w)
	})
	return ctx, func() {
		cancel(nil)
		if !t.Stop() {
			<-finished
		}
	}
}

// attend looks after a statement that takes long until its context ends.
func (s *Set) attend(ctx context.Context, cancel context.CancelCauseFunc, w *watched) {
	progress := w.began
	tick := time.NewTicker(min(lookEvery, s.cfg.BlockedTimeout))
	defer tick.Stop()
	var c *conn
	defer func() { c.close() }()
	for ctx.Err() == nil {
		if c == nil || c.IsClosed() {
			var err error
			if c, err = w.m.connect(ctx); err != nil {
				c = nil
			}
		}
		if c != nil {
			working, err := s.lookAfter(ctx, c, w)
			if err != nil {
				cancel(err)
				return
			}
			if working {
				progress = time.Now()
			}
		}
		if l := w.limit; l > 0 && (time.Since(progress) >= l || time.Since(w.began) >= l*time.Duration(patience)) {
			cancel(errSilent)
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

const workingSQL = `SELECT 1 FROM pg_stat_activity WHERE pid = $1::int AND state = 'active' AND coalesce(wait_event_type, '') NOT IN ('Lock', 'Client')`

// lookAfter ends what blocks the statement, once its time is over, and tells
// whether the statement makes progress.
func (s *Set) lookAfter(ctx context.Context, c *conn, w *watched) (working bool, err error) {
	pid := fmt.Append(nil, w.pid)
	rows, err := c.call(ctx, `SELECT pid, usename, query, gid FROM pgdist.blockers($1::int)`, pid)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("cannot look for what blocks the mirror", "member", w.m.host, "err", err)
		}
		return false, nil
	}
	if len(rows) == 0 {
		rows, err = c.call(ctx, workingSQL, pid)
		if err == nil && len(rows) == 0 {
			rows, err = c.call(ctx, `SELECT 1 WHERE pgdist.behind_mate($1::int)`, pid)
		}
		return err == nil && len(rows) == 1, nil
	}
	if time.Since(w.began) < s.cfg.BlockedTimeout {
		return true, nil
	}
	return false, s.evict(ctx, c, w, rows)
}

// evict ends sessions whose locks hold up the statement. On a follower those who
// run a statement keep their session: cancelled once, they are ended only if
// that does not help. A prepared transaction is rolled back at the leader, where
// it would stop the whole set; a follower is left to it.
func (s *Set) evict(ctx context.Context, c *conn, w *watched, blockers [][][]byte) error {
	pids, force := "{", w.limit == 0
	var gids []string
	for _, r := range blockers {
		pid := uint32(number(r[0]))
		if pid == 0 {
			gids = append(gids, string(r[3]))
			continue
		}
		force = force || w.ended[pid]
		if !w.ended[pid] {
			s.log.Warn("ending what has held up the mirror by a lock", "member", w.m.host, "pid", pid, "user", string(r[1]), "query", string(r[2]))
		}
		w.ended[pid] = true
		s.evicted.add(w.m.id, pid) // before it hears of it
		if pids != "{" {
			pids += ","
		}
		pids += string(r[0])
	}
	if pids != "{" {
		if _, err := c.call(ctx, `SELECT pgdist.evict($1::int, $2::int[], $3::bool)`, fmt.Append(nil, w.pid), text(pids+"}"), fmt.Append(nil, force)); err != nil && ctx.Err() == nil {
			s.log.Warn("cannot end what blocks the mirror", "member", w.m.host, "err", err)
		}
	}
	if len(gids) == 0 {
		return nil
	}
	held := &errHeld{gids}
	if w.limit > 0 {
		return held
	}
	for _, gid := range gids {
		if gid == "" {
			return held
		}
		s.log.Warn("rolling back a prepared transaction that holds up all writes", "member", w.m.host, "gid", gid)
		if err := c.exec(ctx, `ROLLBACK PREPARED '`+strings.ReplaceAll(gid, `'`, `''`)+`'`); err != nil && ctx.Err() == nil {
			return errors.Join(held, err)
		}
	}
	return nil
}

// Evicted tells whether this backend was lately made to give way because its
// locks held up the mirror.
func (s *Set) Evicted(id health.MemberID, pid uint32) bool { return s.evicted.has(id, pid) }
