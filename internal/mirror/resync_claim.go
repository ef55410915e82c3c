package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// ErrBeingCopied: another program copies the member.
var ErrBeingCopied = errors.New("another program copies it at this moment")

// waitForCopy is the hint to it.
const waitForCopy = "wait until it is done; pgdist status tells how far it is"

// claim is the right to overwrite a target: a lock on its own server, where all who would
// do that meet, whoever leads the set. Its session's name tells how far the copy is.
type claim struct {
	mu  sync.Mutex // guards what follows
	c   *conn
	at  time.Time
	say string
}

const (
	// claimSQL takes the lock, and has the server notice soon if this machine is gone.
	claimSQL = `SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3`
	// claimName begins the name of the session that holds it.
	claimName = "pgdist copy"
	// claimEvery is how often the name is made to tell anew.
	claimEvery = time.Second
)

// claimTarget takes the claim, and looks at the target again: somebody may have copied it
// until now.
func (r *resync) claimTarget(ctx context.Context) error {
	c, err := r.maintenance(ctx)
	if err != nil {
		return err
	}
	got := ""
	if err = c.exec(ctx, claimSQL+"; SET application_name = "+quoteLiteral(claimName)); err == nil {
		got, err = c.one(ctx, `SELECT pg_try_advisory_lock(hashtextextended('pgdist copy ' || $1, 0))`, text(r.target.cfg.Database))
	}
	if err == nil && got != "t" {
		err = r.refuse(r.target.host, waitForCopy, "%w", ErrBeingCopied)
	}
	if err != nil {
		c.close()
		return r.target.fail("claim the server", err)
	}
	r.claim = &claim{c: c}
	if r.o.needed == nil {
		return nil
	}
	now, err := r.target.here(ctx)
	switch {
	case errors.Is(err, ErrHalfCopied), errors.Is(err, ErrNotInstalled), noDatabase(err):
		r.here, r.half = nil, errors.Is(err, ErrHalfCopied)
	case err != nil:
		return r.target.fail("ask for its state", err)
	default:
		r.here = now
	}
	if !r.o.needed(r.here) {
		return r.refuse(r.target.host, "", "%w", errNotNeeded)
	}
	return nil
}

// errNotNeeded: the member is somewhere else by now.
var errNotNeeded = errors.New("a copy is not called for any more")

// here asks the member who and where it is.
func (m *member) here(ctx context.Context) (*here, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	c, err := m.connect(ctx)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	defer c.close()
	h, err := c.where(ctx)
	return h, causeOf(ctx, err)
}

// progress has the claim's session tell how far the copy is.
func (k *claim) progress(ctx context.Context, p ResyncProgress) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.c == nil || time.Since(k.at) < claimEvery {
		return
	}
	k.at, k.say = time.Now(), p.String()
	//nolint:errcheck // it only tells; whoever lost the session loses the lock, and finds out when the copy is taken over
	k.c.exec(ctx, "SET application_name = "+quoteLiteral(claimName+": "+k.say))
}

func (k *claim) release() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.c.close()
	k.c = nil
}

// String is short enough for an application_name.
func (p ResyncProgress) String() string {
	return fmt.Sprintf("%d of %d tables, %.0f MB", p.TablesDone, p.Tables, float64(p.Bytes)/(1<<20))
}

// copying tells how far a copy to the server of a member is; "" if there is none.
func (m *member) copying(ctx context.Context) string {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	c, err := (&resync{target: m}).maintenance(ctx)
	if err != nil {
		return ""
	}
	defer c.close()
	rows, err := c.call(ctx, `SELECT a.application_name FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
		AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('pgdist copy ' || $1, 0)`, text(m.cfg.Database))
	if err != nil || len(rows) == 0 {
		return ""
	}
	return string(rows[0][0])
}

// unaskedMay tells whether a copy that nobody asked for may overwrite tables: those of a
// copy that was broken off, and those of the member itself, on its own server.
func (r *resync) unaskedMay() bool {
	if !r.o.unasked {
		return false
	}
	want, ok := r.view.Member(r.target.id)
	return r.half || r.here != nil && ok && r.here.Set == r.view.Set && r.here.Member == int(r.target.id) && r.here.Cluster == want.System && r.system == want.System
}
