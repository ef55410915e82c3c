package mirror

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// While a copy goes on the journal must keep what comes after its position, for
// which the program that uses the set knows no reason: the member is lost to it. A
// lock that lets everybody write, but nobody TRUNCATE, keeps the journal's slots; it
// takes no snapshot, so it holds back no vacuum. What a member away may hold back
// bounds a copy, too.

// hold keeps the journals of the members in sync from being emptied.
type hold struct {
	ctx    context.Context // ends, with the cause, when the journal cannot be kept any longer
	cancel context.CancelCauseFunc
	done   sync.WaitGroup
	conns  map[health.MemberID]*conn
}

// holdEvery is how often the locks and the journal's size are looked after.
const holdEvery = time.Second

const holdSQL = `BEGIN; LOCK TABLE pgdist.journal IN ACCESS SHARE MODE`

// hold begins; it fails if the leader's journal cannot be kept.
func (r *resync) hold(ctx context.Context) (*hold, error) {
	h := &hold{conns: map[health.MemberID]*conn{}}
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	members := r.view.InSync
	look := func(first bool) error {
		for _, id := range members {
			m := r.s.members.get(id)
			if id == r.target.id {
				continue
			}
			if err := h.lock(h.ctx, m); err != nil && first && id == r.view.Leader {
				return m.fail("keep the journal", err)
			}
		}
		return r.bounded(h.ctx, r.s.members.get(r.view.Leader))
	}
	leader := r.s.members.get(r.view.Leader)
	if err := look(true); err != nil {
		h.release()
		return nil, err
	}
	h.done.Go(func() {
		t := time.NewTicker(holdEvery)
		defer t.Stop()
		for {
			select {
			case <-h.ctx.Done():
				return
			case <-t.C:
			}
			for _, id := range members {
				if id != r.target.id {
					//nolint:errcheck // it is tried again; whether enough was kept is checked at the end
					h.lock(h.ctx, r.s.members.get(id))
				}
			}
			if err := r.bounded(h.ctx, leader); err != nil {
				h.cancel(err)
				return
			}
		}
	})
	return h, nil
}

// lock takes the lock on one member, unless it is held.
func (h *hold) lock(ctx context.Context, m *member) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	if c := h.conns[m.id]; c != nil {
		if _, err := c.one(ctx, "SELECT 1"); err == nil {
			return nil
		}
		c.close()
		delete(h.conns, m.id)
	}
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	if err := c.exec(ctx, holdSQL); err != nil {
		c.close()
		return err
	}
	h.conns[m.id] = c
	return nil
}

func (h *hold) release() {
	h.cancel(context.Canceled)
	h.done.Wait()
	for _, c := range h.conns {
		c.close()
	}
}

// bounded tells whether the journal is still within what a member away may hold back.
// It asks over a connection of its own: in the lock's transaction time stands still.
func (r *resync) bounded(ctx context.Context, leader *member) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	c, err := leader.connect(ctx)
	if err != nil {
		return nil //nolint:nilerr // it is gone; others have the lock, too
	}
	defer c.close()
	j, err := r.cfg.journal(ctx, c, nil)
	if err != nil || j.Percent < 100 {
		return nil //nolint:nilerr // as above
	}
	return &Error{Op: "resync", Host: r.target.host,
		Err:  fmt.Errorf("%w: the copy takes longer than the journal may be kept for it: %d of %d bytes, %.0f of %.0f s", ErrPlaceLost, j.Bytes, j.MaxBytes, j.HeldSeconds, j.MaxHeldSeconds),
		Hint: "raise journal_max_size or journal_max_age, copy with more --jobs, or when less is written"}
}
