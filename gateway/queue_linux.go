package gateway

import (
	"slices"
	"time"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// When all connections to servers are in use, statements wait in the loop's queue. Most of
// those connections are used by the loop itself, which serves the queue as soon as it has
// given one back; those that goroutines give back it finds by looking now and then.

const (
	// queueLook is how often the queue is looked at while nothing happens.
	queueLook = 5 * time.Millisecond
	// queuePatience is how long a statement waits here while others wait elsewhere, who get
	// whatever is given back; queueLimit how long at most. Then a goroutine waits for it.
	queuePatience = 5 * time.Millisecond
	queueLimit    = time.Second
)

// enqueue has a flight wait for a connection.
func (l *loop) enqueue(f *flight) {
	c := f.c
	if f.call.Verdict.Hint != classify.NoHint { // it may want another one than those behind it
		c.handOver(nil, f.walk)
		return
	}
	c.mu.Lock()
	c.waiting, c.waitingSince = true, c.asked
	c.mu.Unlock()
	f.queued = true
	l.queue = append(l.queue, f)
}

// serveQueue has those depart that find a connection now, the first of each user first.
func (l *loop) serveQueue() {
	now := engine.Now()
	keep := l.queue[:0]
	l.full = l.full[:0]
	for _, f := range l.queue {
		c := f.c
		waited := time.Duration(now - c.asked)
		if c.closing.Load() || waited > queueLimit || c.ctx.Err() != nil {
			f.leaveQueue()
			continue
		}
		if slices.Contains(l.full, crew{c.source, c.user}) {
			keep = append(keep, f)
			continue
		}
		f.queued = false
		switch tried := l.departs(f); {
		case tried == engine.NowLeased:
		case tried == engine.NotNow, tried == engine.NowCrowded && waited > queuePatience:
			f.leaveQueue()
		default:
			f.queued = true
			l.full = append(l.full, crew{c.source, c.user})
			keep = append(keep, f)
		}
	}
	clear(l.queue[len(keep):])
	l.queue = keep
}

// crew is who shares connections: a user's clients of one set.
type crew struct {
	source *source
	user   string
}

// departs is depart; a panic in it has ended the client, which waits for nothing then.
func (l *loop) departs(f *flight) (now engine.Instant) {
	now = engine.NowLeased
	l.tell(f, func(l *loop) { now = f.depart(l) })
	return now
}

// leaveQueue has a goroutine wait instead.
func (f *flight) leaveQueue() {
	f.queued = false
	f.c.handOver(nil, f.walk)
}
