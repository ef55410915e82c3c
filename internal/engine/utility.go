package engine

import (
	"context"
	"strings"

	"github.com/pgdist/pgdist/classify"
)

// execUtility runs maintenance on the leader and then on the followers, each
// for itself.
func (s *Session) execUtility(ctx context.Context, st *classify.Statement, text string) (string, error) {
	if definesIndex(st, text) {
		return "", errRefused(st.Tag+" CONCURRENTLY is not supported through pgdist yet", "Use the form without CONCURRENTLY.")
	}
	one := *st
	one.Class = classify.Unknown // runs without a transaction around it
	if s.tx.state != txNone {
		one.Class = classify.Write
	}
	sub := classify.Verdict{Class: one.Class, Statements: []classify.Statement{one}}
	for {
		lease, err := s.Acquire(ctx, Call{SQL: text, Verdict: &sub})
		if err != nil {
			return "", err
		}
		tag, err := lease.c.exec(ctx, text)
		leader := lease.c.member
		again, err := lease.Done(ctx, err)
		if again {
			continue
		}
		if err == nil && s.tx.state == txNone {
			s.onFollowers(ctx, leader, text)
		}
		return tag, err
	}
}

// definesIndex tells the utilities that make or drop something, which must not
// happen on one member alone.
func definesIndex(st *classify.Statement, text string) bool {
	return strings.Contains(strings.ToUpper(text), "CONCURRENTLY") && st.Tag != "VACUUM" && st.Tag != "ANALYZE"
}

// onFollowers repeats maintenance on the other members in sync. It changes no
// data, so one that cannot do it now is only told in the log.
func (s *Session) onFollowers(ctx context.Context, leader *member, text string) {
	for _, m := range s.e.route().readers {
		if m == leader {
			continue
		}
		if err := s.onMember(ctx, m, text); err != nil {
			s.e.log.Warn("maintenance on a follower", "member", m.id, "host", m.host, "error", err)
		}
	}
}

func (s *Session) onMember(ctx context.Context, m *member, text string) error {
	pl := m.pools[readWrite]
	c, err := pl.acquire(ctx, nil)
	if err != nil {
		return err
	}
	defer hold{c: c}.give()
	if err := c.apply(ctx, s.settings); err != nil {
		return err
	}
	_, err = c.exec(ctx, text)
	return err
}
