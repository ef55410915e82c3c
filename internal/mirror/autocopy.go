package mirror

import (
	"context"
	"errors"
	"time"
)

// A member that cannot come back row by row is copied afresh, unasked, where nothing can be
// lost by it: what is there is the member's own and of no use to it any more, a copy that was
// broken off, or nothing at all. Anything else stays for people to decide.

// Pauses between copies that fail; tests shorten them.
var copyPauses = copyTimes{calm: 3 * time.Second, first: 30 * time.Second, most: 30 * time.Minute, busy: 5 * time.Second, back: 10 * time.Minute}

type copyTimes struct {
	calm        time.Duration // before the first attempt: who adds a member, or copies it by hand, is to be first
	first, most time.Duration // after the first failure, and at most
	busy        time.Duration // while another program copies it
	back        time.Duration // for which the journal is kept until the copy has caught up
}

// after is how long to wait after the n-th attempt.
func (c copyTimes) after(n int64) time.Duration { return min(c.first<<min(n-1, 10), c.most) }

const textCopied = "being copied"

// copyCalledFor tells whether a member waits for a copy that may be made unasked.
func (s *Set) copyCalledFor(m *member) bool {
	n, down := m.note.Load(), s.downErr(m.id)
	switch {
	case n == nil || down != nil && !noDatabase(down):
		return false
	case n.Text == textLost:
		return true
	case n.Text == textRefused && (errors.Is(n.Err, ErrNotInstalled) || errors.Is(n.Err, ErrHalfCopied)):
		return true
	}
	return noDatabase(down) || noDatabase(n.Err)
}

// copyLost begins to copy a member that needs it, one at a time.
func (s *Set) copyLost(ctx context.Context) {
	if !s.cfg.AutoResync {
		return
	}
	for _, id := range s.sortedIDs() {
		m := s.members.get(id)
		if s.cur.Has(id) || isWitness(s.cur, id) || !s.copyCalledFor(m) || m.joining.Load() {
			continue
		}
		if m.copyAt.CompareAndSwap(0, later(copyPauses.calm)) || monotonic() < m.copyAt.Load() {
			continue
		}
		if !s.copies.CompareAndSwap(false, true) {
			return
		}
		m.joining.Store(true) // nobody catches it up meanwhile
		s.done.Go(func() {
			defer s.copies.Store(false)
			if !s.copyUnasked(ctx, m) {
				m.joining.Store(false)
			}
		})
		return
	}
}

// copyUnasked makes one attempt, and tells whether it has let the member be caught up.
func (s *Set) copyUnasked(ctx context.Context, m *member) (done bool) {
	before := m.note.Load()
	began := time.Now()
	m.forsaken.Store(false)
	o := ResyncOptions{Member: m.host, Wait: copyPauses.back, unasked: true}
	o.needed = func(h *here) bool {
		was := m.seen.Load()
		return h == nil || before.Text == textLost && was != nil && h.place() == was.place && h.Tick == was.tick && !s.View().Has(m.id)
	}
	o.Report = func(format string, args ...any) { // not before it may be copied
		if m.note.Load().Text != textCopied {
			m.note.Store(&State{Text: textCopied, At: began})
		}
		s.log.Debug("copying a member", "member", m.host, "step", format, "of", args)
	}
	told := time.Now()
	o.Progress = func(p ResyncProgress) {
		m.note.Store(&State{Text: textCopied, More: p.String(), At: began})
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			s.log.Info("copying a member", "member", m.host, "progress", p.String(), "table", p.Table)
		}
	}
	o.completed = func() { // from here on it is a member like any that was away
		m.say(textExcluded, nil)
		m.tries.Store(0)
		m.retry.Store(0)
		m.joining.Store(false)
		done = true
	}
	cfg := s.cfg
	cfg.Members = s.reached()
	res, err := Resync(ctx, cfg, o)
	switch {
	case ctx.Err() != nil:
		return done
	case err == nil:
		s.log.Info("a member was copied afresh", "member", m.host, "source", res.Source, "rows", res.Rows, "bytes", res.Bytes, "took", res.Took.Round(time.Millisecond))
		s.notice(m.host, "was copied afresh from "+res.Source)
		// Should it be lost again before it has stayed for a while.
		m.copyAt.Store(later(copyPauses.after(m.copyTries.Add(1))))
		return done
	case errors.Is(err, errNotNeeded):
		m.say(textExcluded, nil)
		m.retry.Store(0)
		return done
	case errors.Is(err, ErrBeingCopied):
		m.note.Store(before)
		m.copyAt.Store(later(copyPauses.busy))
		return done
	}
	n := m.copyTries.Add(1)
	wait := copyPauses.after(n)
	byHand := errors.Is(err, errNeedsSuperuser) || errors.Is(err, errNoTools)
	if byHand {
		wait = copyPauses.most
	}
	m.copyAt.Store(later(wait))
	why := before.Err
	if before.Text != textLost && before.Text != textRefused || errors.Is(err, errNeedsSuperuser) {
		why = err
	}
	state := before.Text
	var half *halfCopied
	if _, e := m.here(ctx); errors.As(e, &half) { // the next attempt goes on with it
		m.leaveAt(half.place)
		state, why = textRefused, half
	}
	m.note.Store(&State{Text: state, Err: errors.Join(why, err), At: time.Now()})
	s.tellWhy(ctx, m, "could not be copied afresh: "+err.Error(), wait+2*time.Minute)
	switch {
	case byHand && n == 1:
		s.log.Error("a member must be copied afresh, and this program cannot do it", "member", m.host, "err", err, "run", "pgdist resync DSN --member "+m.host+", as a superuser, where pg_dump is")
		s.notice(m.host, "must be copied by hand: "+resyncHint(m.host)+": "+err.Error())
	case !byHand:
		s.log.Warn("a member could not be copied afresh", "member", m.host, "err", err, "next_try_in", wait)
	}
	return done
}

// reached is how this program connects to the members that are databases. The configuration need
// not name all: were the one it names to be copied, nobody else would be found.
func (s *Set) reached() (out []MemberConfig) {
	for _, id := range s.sortedIDs() {
		if m := s.members.get(id); m.register == nil {
			out = append(out, MemberConfig{Conn: m.cfg, Health: m.health})
		}
	}
	return out
}

// spotted is where a member was when it was last asked.
type spotted struct {
	place Place
	tick  int64
}
