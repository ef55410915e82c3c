package mirror

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pgdist/pgdist/health"
)

// A program that cannot reach the leader does not depose it while another one can: the
// link between these two is broken, not the leader, and the next leader would be one that
// somebody else cannot reach. (Raft has "pre-vote" and "check quorum" against the same:
// Ongaro's thesis, section 9.6.) Programs do not talk to each other; each says with its
// confirmations, in their very text, whether the leader answers it, and the others find
// that at any member: it costs no write.

// errCutOff: the leader works, and is not reached from here.
var errCutOff = errors.New("this program is cut off from the leader, which works")

const (
	confirmSQL       = `SELECT pgdist.confirm($1, $2::bigint, $3::bool, $4::interval)`
	confirmLeaderSQL = confirmSQL + ` /* the leader answers */`
)

// reachesLeader tells whether the leader has answered within a lease.
func (s *Set) reachesLeader() bool {
	at := s.leaderHeard.Load()
	return at != 0 && monotonic()-at < int64(s.cfg.ViewLease)
}

func (s *Set) heardLeader(err error) {
	at := int64(0)
	if err == nil {
		at = monotonic()
	}
	s.leaderHeard.Store(at)
}

// leaderReached names a program that reaches the leader, "" if there is none. Word of a
// leader that has just died is as old as a third of a lease, at most: it is asked for again
// for somewhat longer than that.
func (s *Set) leaderReached(ctx context.Context) (who string) {
	lately := s.cfg.ViewLease/3 + s.cfg.ViewLease/10
	for began := time.Now(); s.others.Load() > 0 && ctx.Err() == nil; {
		who = s.askLeaderReached(ctx, lately)
		if who == "" || time.Since(began) > lately+lately/4 || !sleep(ctx, lately/8) {
			return who
		}
	}
	return who
}

func (s *Set) askLeaderReached(ctx context.Context, lately time.Duration) string {
	heard := make(chan string, len(s.members.all()))
	asked := 0
	for id, m := range s.members.all() {
		if id == s.cur.Leader || m.register != nil {
			continue
		}
		asked++
		s.done.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, m.health.ProbeTimeout/3, health.ErrTimeout)
			defer cancel()
			c, err := m.connect(ctx)
			who := ""
			if err == nil {
				who, err = c.one(ctx, `SELECT coalesce(pgdist.leader_seen($1, $2::bigint, $3::interval), '')`,
					text(s.id), strconv.AppendInt(nil, s.entered.Load(), 10), text(lately.String()))
				c.close()
			}
			if err != nil {
				s.log.Debug("who reaches the leader could not be asked", "member", m.host, "err", err)
			}
			heard <- who
		})
	}
	for range asked {
		if who := <-heard; who != "" {
			return who
		}
	}
	return ""
}

// cutOff is the error of a program that leaves the leader in office though it cannot reach it.
func (s *Set) cutOff(who string, cause error) error {
	return &Error{Op: "write", Member: s.cur.Leader, Host: s.hostOf(s.cur.Leader), Err: fmt.Errorf("%w: %s reaches it; here: %w", errCutOff, who, cause),
		Hint: "mend the link between this program and the leader, or make another member the leader: pgdist switchover DSN"}
}
