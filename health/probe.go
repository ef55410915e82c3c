package health

import (
	"context"
	"time"
)

// hurry is the part of ProbeInterval after which a result that is not yet
// believed is looked at again.
const hurry = 5

// watch probes one member until ctx ends.
func (b *Board) watch(ctx context.Context, w *watched) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	p := pace{interval: w.Config.ProbeInterval, patience: w.Config.Failures}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.look:
			timer.Reset(p.soon(time.Now()))
			continue
		case <-timer.C:
		}
		timer.Reset(b.probe(ctx, w, &p))
	}
}

// probe has one look at the member and says how long to wait for the next.
func (b *Board) probe(ctx context.Context, w *watched, p *pace) time.Duration {
	if left := w.breaker.Tick(); left > 0 {
		return left
	}
	kind := Ignored
	ran, _ := w.breaker.Try(func() error {
		ctx, cancel := WithTimeout(ctx, w.Config.ProbeTimeout)
		defer cancel()
		return Blame(ctx, b.cfg.Probe(ctx, w.ID))
	}, func(err error) Kind {
		kind = ClassifyOwn(err)
		return kind
	})
	if !ran {
		return max(w.breaker.Tick(), time.Millisecond)
	}
	return p.next(time.Now(), kind, w.breaker)
}

// pace decides when to probe next.
type pace struct {
	interval time.Duration
	patience uint32
	ended    time.Time // the last probe
	doubts   uint32    // probes in a row that did not succeed
}

// soon is the wait after client work met something suspicious. However much
// of that there is, probes keep their distance.
func (p *pace) soon(now time.Time) time.Duration {
	return max(0, p.ended.Add(p.interval/hurry).Sub(now))
}

// next is the wait after a probe of the given result. A database in doubt is
// looked at again soon, but not for ever: one that answers neither yes nor
// no (too many connections, say) falls back to the usual rhythm.
func (p *pace) next(now time.Time, kind Kind, breaker *Breaker) time.Duration {
	p.ended = now
	if kind == Success {
		p.doubts = 0
	} else {
		p.doubts++
	}
	switch state := breaker.State(); {
	case state == Open:
		return max(breaker.Tick(), time.Millisecond)
	case state == HalfOpen && kind == Success:
		return p.interval / hurry
	case p.doubts > 0 && p.doubts <= p.patience:
		return p.interval / hurry
	}
	return p.interval
}
