package mirror

import (
	"context"
	"errors"
	"time"

	"github.com/pgdist/pgdist/health"
)

// Whoever copies may lose the claim without noticing: its session ends with a link or with the
// server, the copy goes on over other connections, and the next program takes it up. So the
// target says whose copy it is, and each connection that changes it has a lock, for as long as
// it lasts, that is asked for before that is looked up. Whoever takes a copy up ends those who
// have the lock, and says that the copy is its own while nobody has.

const (
	// attemptSQL has the target say whose copy it is.
	attemptSQL = "\nCREATE TABLE pgdist.attempt (id text PRIMARY KEY); INSERT INTO pgdist.attempt VALUES "
	// attemptLock is of the target's database, not of its server as the claim is.
	attemptLock = `hashtextextended('pgdist attempt', 0)`
	// takeOverPause is how long ended connections are given before it is looked whether they have gone.
	takeOverPause = 20 * time.Millisecond
	// takeOverLimit is how long they are given in all.
	takeOverLimit = time.Minute
)

// enlist makes a connection one of those that change the target.
func (r *resync) enlist(ctx context.Context, c *conn) error {
	if err := c.exec(ctx, "SELECT pg_advisory_lock_shared("+attemptLock+")"); err != nil {
		return r.target.fail("take part in the copy", err)
	}
	own, err := c.one(ctx, `SELECT count(*) FROM pgdist.attempt WHERE id = $1`, text(r.attempt))
	switch state := sqlState(err); {
	case state == "42P01" || state == "3F000" || err == nil && own == "0":
		return r.refuse(r.target.host, waitForCopy, "%w: it has taken this copy over", ErrBeingCopied)
	case err != nil:
		return r.target.fail("take part in the copy", err)
	}
	return nil
}

// takenOver is the error of an attempt that is none any more, or nil.
func (r *resync) takenOver(ctx context.Context) error {
	if !r.dropped || ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	c, err := dial(ctx, r.target.cfg, nil)
	if err != nil {
		return nil // what went wrong tells more
	}
	defer c.close()
	if err = r.enlist(ctx, c); errors.Is(err, ErrBeingCopied) {
		return err
	}
	return nil
}

// takeOver takes the target over from whoever copied to it before, and may be at it still. false:
// nothing there can be taken over.
func (r *resync) takeOver(ctx context.Context, c *conn) (bool, error) {
	limited, cancel := context.WithTimeoutCause(ctx, takeOverLimit, health.ErrTimeout)
	defer cancel()
	for {
		rows, err := c.call(ctx, `SELECT pg_try_advisory_lock(`+attemptLock+`)`)
		if err != nil {
			return false, r.target.fail("take the copy over", err)
		}
		if rows[0][0][0] == 't' {
			break
		}
		if _, err := c.call(ctx, `SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
				AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
				AND (l.classid::bigint << 32 | l.objid::bigint) = `+attemptLock); err != nil {
			return false, r.target.fail("take the copy over", err)
		}
		if !sleep(limited, takeOverPause) {
			return false, r.target.fail("end whoever copies to it still", context.Cause(limited))
		}
	}
	err := c.exec(ctx, "BEGIN; SET LOCAL synchronous_commit = on; UPDATE pgdist.attempt SET id = "+quoteLiteral(r.attempt)+"; COMMIT; SELECT pg_advisory_lock_shared("+attemptLock+")")
	if state := sqlState(err); state == "42P01" || state == "3F000" {
		return false, nil
	}
	if err == nil {
		err = c.exec(ctx, "SELECT pg_advisory_unlock("+attemptLock+")")
	}
	return err == nil, r.target.fail("take the copy over", err)
}
