package mirror

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// With several distributors one flushes at a time, and carries what all of them have
// committed; the others wait for their turn, find the followers further on than they
// left them, and have little left to do. That is for speed alone: a flush that comes in
// between finds a follower elsewhere than its batch begins, and is made again.

// turnWait is how long, in milliseconds, one attempt waits for the turn; after it the
// session of a distributor that is no longer alive is ended.
const turnWait = 300

// turnMost is how long a flush waits for its turn in all. After it this distributor does
// without turns for turnless: whoever has it and is alive flushes something large, or has
// forgotten that he has it.
const (
	turnMost = 10 * time.Second
	turnless = 30 * time.Second
)

// takeTurn waits for the turn, if there is anybody to share it with, and asks the
// followers where the others have brought them. The returned function ends the turn.
func (s *Set) takeTurn(ctx context.Context, followers []*member) (func(), error) {
	if s.others.Load() == 0 {
		return func() {}, nil
	}
	got, err := s.awaitTurn(ctx)
	if err != nil {
		return nil, err
	}
	if !got {
		return func() {}, s.relocate(ctx, followers)
	}
	c := s.leaderC
	over := sync.OnceFunc(func() {
		if !c.IsClosed() && c.TxStatus() == 'I' {
			if _, err := c.call(ctx, `SELECT pgdist.turn_over()`); err != nil {
				c.close() // which ends it, too
			}
		} else {
			c.close()
		}
	})
	if err := s.relocate(ctx, followers); err != nil {
		over()
		return nil, err
	}
	pointTurn.Pass()
	return over, nil
}

// awaitTurn waits for the turn, and tells whether it has come.
func (s *Set) awaitTurn(ctx context.Context) (bool, error) {
	for began := time.Now(); began.After(s.noTurns); {
		// The server keeps the time, by a clock that may be set back.
		limited, stop := context.WithTimeout(ctx, turnMost)
		got, err := s.leaderC.one(limited, `SELECT pgdist.turn($1::int)`, strconv.AppendInt(nil, turnWait, 10))
		late := limited.Err() != nil && ctx.Err() == nil
		stop()
		switch {
		case late && err != nil:
			s.leaderC.close()
			if err := s.connectLeader(ctx); err != nil {
				return false, err
			}
		case err != nil:
			return false, &leaderError{causeOf(ctx, err)}
		case got == "t":
			return true, nil
		case s.newer.Load():
			return false, &leaderError{errNewerEpoch}
		}
		if time.Since(began) > turnMost {
			s.log.Warn("another program does not end its turn: going on without", "for", turnless)
			s.noTurns = time.Now().Add(turnless)
		}
	}
	return false, nil
}

// breathSQL has a program counted among those alive that confirms no view yet; pgdist.alive()
// looks for the name.
const breathSQL = `SELECT 1 /* opens the set, and will call pgdist.confirm() */`

// breathe shows that this program is alive while it opens the set, until the returned function
// is called. Whoever waits for the turn ends the session of one that is dead and has it; when several
// programs opened a set at once, and had more to flush than a moment's work, each did so to the
// others, again and again.
func (s *Set) breathe(ctx context.Context) func() {
	if s.id == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, m := range s.members.all() {
		if m.register != nil {
			continue
		}
		wg.Go(func() {
			var c *conn
			defer func() { c.close() }()
			for first := true; first || sleep(ctx, turnWait*time.Millisecond/2); first = false {
				limited, stop := context.WithTimeoutCause(ctx, m.health.ProbeTimeout, health.ErrTimeout)
				var err error
				if !c.idle() {
					c.close()
					c, err = m.connect(limited)
				}
				if err == nil {
					_, err = c.one(limited, breathSQL)
				}
				if err != nil {
					c.close()
					c = nil
				}
				stop()
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// relocate asks followers whether another distributor has applied anything.
func (s *Set) relocate(ctx context.Context, followers []*member) error {
	errs := make([]error, len(followers))
	var wg sync.WaitGroup
	for i, m := range followers {
		wg.Go(func() { errs[i] = m.relocate(ctx) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return &memberError{followers[i].id, causeOf(ctx, err)}
		}
	}
	return nil
}

func (m *member) relocate(ctx context.Context) error {
	c, err := m.applier(ctx)
	if err != nil {
		return err
	}
	p, tick, err := m.spot(ctx, c)
	if err == nil {
		m.at(p, tick)
	}
	return err
}

// spot asks over c where the follower is, and how many applies it has seen.
func (m *member) spot(ctx context.Context, c *conn) (Place, int64, error) {
	if m.app == "" {
		return m.place, tickless, nil
	}
	spot, err := c.one(ctx, `SELECT pgdist.spot()`)
	if err != nil {
		return Place{}, 0, m.fail("ask for its position", err)
	}
	parts := strings.SplitN(spot, " ", 3)
	if len(parts) != 3 {
		return Place{}, 0, m.fail("ask for its position", fmt.Errorf("it says %q", spot))
	}
	term, err1 := strconv.ParseInt(parts[0], 10, 64)
	tick, err2 := strconv.ParseInt(parts[1], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return Place{}, 0, m.fail("ask for its position", err)
	}
	return Place{Term: term, Snapshot: parts[2]}, tick, nil
}

// at notes where a follower says it is. If others brought it there, what it was known to
// hold beside rows is not known any more.
func (m *member) at(p Place, tick int64) {
	if m.app == "" {
		tick = tickless
	}
	if !m.known || m.tick != tick || m.place != p {
		m.sequences, m.shared = nil, ""
	}
	m.place, m.tick, m.known = p, tick, true
	m.leaveAt(p)
}

// unsure drops what is known of where a follower is, for others may have moved it.
func (m *member) unsure() {
	m.known, m.sequences, m.shared = false, nil, ""
}
