package mirror

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pgdist/pgdist/health"
)

// The journal is bounded: entries that no member needs any more go with their
// slot; a member that holds back more than JournalMax bytes, or entries older
// than JournalMaxAge, loses its place. Well before that there are alarms, which
// say who it is.

// JournalStatus is how full the leader's journal is.
type JournalStatus struct {
	Bytes    int64 `json:"bytes"`
	MaxBytes int64 `json:"max_bytes"`
	// HeldSeconds is how long entries have waited for somebody who needs them.
	HeldSeconds    float64 `json:"held_seconds"`
	MaxHeldSeconds float64 `json:"max_held_seconds"`
	// Percent is how much of either bound is used, whichever is more. From 50 on
	// somebody should look after those in HeldBy.
	Percent int `json:"percent"`
	// HeldBy are the members, and the open transactions, that keep the journal
	// from being pruned.
	HeldBy []string `json:"held_by"`
}

// Alarms tells whether somebody should look after the journal.
func (j *JournalStatus) Alarms() bool { return j.Percent >= alarms[0] }

// alarms are the percentages at which the log hears of it.
var alarms = []int{50, 80, 100}

// calm is the percentage below which alarms begin anew.
const calm = 40

const pruneEvery = 5 * time.Second

// prune lets go of journal entries that no member needs any more.
func (s *Set) prune(ctx context.Context) {
	if time.Since(s.pruned) < min(pruneEvery, s.cfg.JournalAge) {
		return
	}
	s.pruned = time.Now()
	low, err := s.pruneTo(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("cannot tell how far the journal may be pruned", "err", err)
		}
		return
	}
	for _, id := range s.cur.InSync {
		m := s.members.get(id)
		did, broken, err := s.pruneOne(ctx, m, low)
		s.remakeSoon(ctx, m, broken)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Warn("cannot prune the journal", "member", m.host, "err", err)
		} else if did != "" {
			s.log.Debug("journal", "member", m.host, "did", did)
		}
	}
}

// pruneTo is the place up to which the journal may go: the oldest of any member,
// unless those that are away hold back more than they may.
func (s *Set) pruneTo(ctx context.Context) (Place, error) {
	leader := s.members.get(s.cur.Leader)
	ctx, cancel := context.WithTimeoutCause(ctx, leader.health.SyncTimeout, health.ErrTimeout)
	defer cancel()
	c, err := leader.connect(ctx)
	if err != nil {
		return Place{}, err
	}
	defer c.close()
	var away []string
	for _, id := range s.sortedIDs() {
		if m := s.members.get(id); !s.cur.Has(id) && !isWitness(s.cur, id) && !m.hopeless() {
			away = append(away, fmt.Sprintf("%s (%s)", m.host, m.note.Load().Text))
		}
	}
	j, err := s.cfg.journal(ctx, c, away)
	if err != nil {
		return Place{}, err
	}
	s.alarm(j)
	low, all := s.lowest(true)
	if all || j.Percent < 100 {
		return low, nil
	}
	for id, m := range s.members.all() {
		if !s.cur.Has(id) && !isWitness(s.cur, id) && !m.hopeless() {
			s.log.Warn("the journal is full: a member that is away loses its place", "member", m.host, "bytes", j.Bytes, "held_seconds", int(j.HeldSeconds))
			m.lost = true
			m.forsaken.Store(true)
		}
	}
	low, _ = s.lowest(true)
	return low, nil
}

// hopeless tells that the member gains nothing by a journal that is kept for it: it is
// to be copied, and who copies it keeps the journal. A copy that was broken off is gone on with
// by it.
func (m *member) hopeless() bool {
	n := m.note.Load()
	var half *halfCopied
	if errors.As(n.Err, &half) {
		return m.forsaken.Load()
	}
	return m.lost || n.Text == textLost || errors.Is(n.Err, ErrNotInstalled) || errors.Is(n.Err, ErrHalfCopied) || errors.Is(n.Err, errStranger)
}

// journal asks the leader how full its journal is. away are the members that
// hold it back.
func (c Config) journal(ctx context.Context, leader *conn, away []string) (*JournalStatus, error) {
	text, err := leader.one(ctx, `SELECT pgdist.journal_state()`)
	if err != nil {
		return nil, err
	}
	var state struct {
		Bytes int64    `json:"bytes"`
		Held  float64  `json:"held"`
		Open  []string `json:"open"`
	}
	if err := decode([]byte(text), &state); err != nil {
		return nil, fmt.Errorf("state of the journal: %w", err)
	}
	j := &JournalStatus{Bytes: state.Bytes, MaxBytes: c.JournalMax, HeldSeconds: state.Held, MaxHeldSeconds: c.JournalMaxAge.Seconds(), HeldBy: append(away, state.Open...)}
	j.Percent = int(100 * max(float64(j.Bytes)/float64(j.MaxBytes), j.HeldSeconds/j.MaxHeldSeconds))
	return j, nil
}

// alarm tells the log once about each of the alarms.
func (s *Set) alarm(j *JournalStatus) {
	s.journal.Store(j)
	level := 0
	for _, p := range alarms {
		if j.Percent >= p {
			level = p
		}
	}
	switch {
	case level > s.alarmed:
		s.log.Warn("the journal fills", "percent", j.Percent, "bytes", j.Bytes, "max_bytes", j.MaxBytes,
			"held_seconds", int(j.HeldSeconds), "max_held_seconds", int(j.MaxHeldSeconds), "held_by", j.HeldBy)
		s.alarmed = level
	case s.alarmed > 0 && j.Percent < calm:
		s.log.Info("the journal is small again", "percent", j.Percent, "bytes", j.Bytes)
		s.alarmed = 0
	}
}

func (s *Set) pruneOne(ctx context.Context, m *member, low Place) (did string, broken []string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.health.SyncTimeout, health.ErrTimeout)
	defer cancel()
	c, err := m.connect(ctx)
	if err != nil {
		return "", nil, err
	}
	defer c.close()
	did, err = c.one(ctx, `SELECT pgdist.prune($1::bigint, $2::pg_snapshot, $3::bigint, $4::interval, $5::interval)`,
		strconv.AppendInt(nil, low.Term, 10), nullable(low.Snapshot), strconv.AppendInt(nil, s.cfg.JournalBytes, 10),
		text(s.cfg.JournalAge.String()), text(s.cfg.JournalKeep.String()))
	if err != nil {
		return "", nil, err
	}
	broken, err = s.unmade(ctx, c, m, false)
	return did, broken, err
}

// lowest is the place behind which no member needs the journal any more. With
// away, members that are not in sync count too, unless they have lost their place;
// all tells that none of these holds anything back. One whose place is not known
// holds back everything.
func (s *Set) lowest(away bool) (low Place, all bool) {
	low, all = s.Acked(), true
	for id, m := range s.members.all() {
		in := s.cur.Has(id)
		if id == s.cur.Leader || isWitness(s.cur, id) || (!in && (!away || m.hopeless())) {
			continue
		}
		var at Place // of nowhere: before all
		if p := m.left.Load(); in {
			at = m.place
		} else if p != nil {
			at = *p
		}
		if !in {
			all = false
		}
		if ok, err := at.within(low); err == nil && ok {
			low = at
		}
	}
	return low, all
}
