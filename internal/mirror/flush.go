package mirror

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// leaderError marks what went wrong at the leader while a batch was read.
type leaderError struct{ err error }

func (e *leaderError) Error() string { return "leader: " + e.err.Error() }
func (e *leaderError) Unwrap() error { return e.err }

var (
	errLeaderLost = errors.New("the leader crashed or was deposed")
	errNewerEpoch = errors.New("the leader promised a newer epoch")
)

// flush brings the members given, followers under the fence of epoch, to the
// leader's present. It returns the failures of single members apart from an
// error that stopped it as a whole.
func (s *Set) flush(ctx context.Context, epoch int64, targets []*member, how depth) (map[health.MemberID]error, error) {
	groups, floor, err := s.groups(ctx, targets)
	if err != nil {
		return nil, err
	}
	if len(groups) <= 1 {
		from := s.Acked()
		var group []*member
		for p, g := range groups {
			from, group = p, g
		}
		failed, err := s.flushGroup(ctx, epoch, from, group, floor, how)
		// Where others have brought all followers, everything acknowledged lies before.
		if ok, e := s.Acked().within(from); err == nil && len(failed) == 0 && e == nil && ok && len(group) > 0 {
			s.advance(from)
		}
		return failed, err
	}
	// Members at different places get the same snapshot, to be one group again. A transaction
	// that is open is its owner's: a switchover holds the fence by it, an alignment its snapshot.
	within := !s.leaderC.idle()
	if !within {
		if err := s.leaderC.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"); err != nil {
			return nil, &leaderError{err}
		}
	}
	failed := map[health.MemberID]error{}
	for from, group := range groups {
		f, err := s.flushGroup(ctx, epoch, from, group, floor, how)
		for id, e := range f {
			failed[id] = e
		}
		if err != nil && within {
			return failed, err
		}
		if err != nil {
			return failed, errors.Join(err, s.leaderC.conclude(ctx, "ROLLBACK"))
		}
	}
	if within {
		return failed, nil
	}
	if err := s.leaderC.conclude(ctx, "COMMIT"); err != nil {
		return failed, &leaderError{err}
	}
	return failed, nil
}

// flushOver flushes to all followers what c sees, in the transaction that is open there.
func (s *Set) flushOver(ctx context.Context, c *conn) (map[health.MemberID]error, error) {
	kept := s.leaderC
	s.leaderC = c
	defer func() { s.leaderC = kept }()
	return s.flush(ctx, s.cur.Epoch, s.followers(), thorough)
}

// groups sorts members by the place they are at.
func (s *Set) groups(ctx context.Context, targets []*member) (map[Place][]*member, uint64, error) {
	out := make(map[Place][]*member, 1)
	floor, err := s.Acked().xmax()
	if err != nil {
		return nil, 0, err
	}
	if s.Acked().Term != s.cur.Term {
		floor = 0
	}
	for _, m := range targets {
		if !m.known {
			if err := s.locate(ctx, m); err != nil {
				return nil, 0, &memberError{m.id, err}
			}
		}
		if m.place.Term == s.cur.Term {
			x, err := m.place.xmax()
			if err != nil {
				return nil, 0, &memberError{m.id, err}
			}
			floor = max(floor, x)
		}
		out[m.place] = append(out[m.place], m)
	}
	return out, floor, nil
}

// moved notes that this distributor's apply has brought the follower to a place.
func (m *member) moved(to Place) {
	m.place = to
	if m.tick != tickless {
		m.tick++
	}
}

// locate asks a follower where it is.
func (s *Set) locate(ctx context.Context, m *member) error {
	c, err := m.applier(ctx)
	if err != nil {
		return err
	}
	h, err := c.where(ctx)
	if err == nil {
		err = recognise(s.cur, m.id, m.host, h)
	}
	if err != nil {
		return m.fail("ask for its position", err)
	}
	m.at(h.place(), h.Tick)
	return nil
}

func (s *Set) flushGroup(ctx context.Context, epoch int64, from Place, group []*member, floor uint64, how depth) (map[health.MemberID]error, error) {
	b, err := s.read(ctx, from, floor, s.cfg.BatchKeys, how)
	if tooWide(err) {
		return s.flushStream(ctx, epoch, from, group, floor, how, nil)
	}
	if err != nil {
		return nil, &leaderError{err}
	}
	if err := b.trusted(epoch, s.cur.Term); err != nil {
		return nil, &leaderError{err}
	}
	s.unseen = s.unseen || b.unseen()
	shown := b.newSequences(sequencesOf(group))
	b.newShared(group)
	move := from.Term != b.head.Term || s.terms != nil
	switch {
	case b.empty() && !move:
		s.hasShared(b, group)
		return nil, nil
	case b.head.Big || slices.ContainsFunc(b.ops, func(o op) bool { return o.kind == 'c' }):
		return s.flushStream(ctx, epoch, from, group, floor, how, nil)
	}
	tick := int64(tickless)
	if len(group) > 0 {
		tick = group[0].tick
	}
	steps, err := b.plan(epoch, tick, s.terms)
	if err != nil {
		return nil, err
	}
	pointRead.Pass()
	gate := s.gate(ctx, b)
	failed := s.each(group, func(m *member) error {
		c, err := m.applier(ctx)
		if err != nil {
			return err
		}
		ctx, stop := s.mind(ctx, m, c, m.health.SyncTimeout)
		defer stop()
		for _, o := range b.ops {
			if o.renames() {
				break
			}
			if err := m.labels(ctx, o); err != nil {
				return m.fail("add labels of an enum", causeOf(ctx, err))
			}
		}
		if err := c.run(ctx, at(steps, m.tick), gate); err != nil {
			return m.fail(opApply, causeOf(ctx, err))
		}
		pointAppliedOne.Pass()
		m.moved(b.to())
		m.sequences = shown
		if b.shared != nil {
			m.shared = string(b.shared)
		}
		return nil
	})
	if gate != nil {
		if err := gate(); err != nil {
			return failed, &leaderError{err}
		}
	}
	pointAppliedAll.Pass()
	s.told(epoch, from, b, group, failed)
	s.advance(b.to())
	if len(failed) == 0 {
		s.hasShared(b, group)
	}
	return s.again(ctx, epoch, b, group, failed, floor, how, nil)
}

// told has the log hear of a flush, if anybody listens to that.
func (s *Set) told(epoch int64, from Place, b *batch, group []*member, failed map[health.MemberID]error) {
	if len(group) == 0 || !s.log.Enabled(s.life, slog.LevelDebug) {
		return
	}
	ids := make([]health.MemberID, len(group))
	for i, m := range group {
		ids[i] = m.id
	}
	s.log.Debug("flushed", "epoch", epoch, "from", from, "to", b.to(), "entries", b.head.Entries, "members", ids, "failed", failed)
}

// again gives a batch once more to members that refuse it as it is, and as x has changed it:
// whose rows do not bear its DDL gets the tables concerned as a whole; where users' publications
// forbid it, these are withheld. One batch may need both, one after the other.
func (s *Set) again(ctx context.Context, epoch int64, b *batch, group []*member, failed map[health.MemberID]error, floor uint64, how depth, x *extras) (map[health.MemberID]error, error) {
	var whole, withheld []*member
	for _, m := range group {
		switch err := failed[m.id]; {
		case err == nil:
		case unidentified(err) && !x.withholds():
			s.log.Debug("withholding publications from what is applied", "member", m.host, "because", err)
			withheld = append(withheld, m)
		case refusesDDL(b, err) && (x == nil || !x.first):
			s.log.Info("copying the tables that a schema change is about", "member", m.host, "because", err)
			whole = append(whole, m)
		default:
			failed[m.id] = s.tooOld(s.cur, m, err)
		}
	}
	for _, m := range slices.Concat(withheld, whole) {
		delete(failed, m.id)
	}
	if len(withheld) > 0 {
		if err := s.flushAgain(ctx, epoch, b.from, withheld, failed, floor, how, x.withholding()); err != nil {
			return failed, err
		}
	}
	if len(whole) == 0 {
		return failed, nil
	}
	x, err := concerned(ctx, s.leaderC, b.from, x)
	if err != nil {
		return failed, err
	}
	return failed, s.flushAgain(ctx, epoch, b.from, whole, failed, floor, how, x)
}

// flushAgain is flushStream that adds to what has failed.
func (s *Set) flushAgain(ctx context.Context, epoch int64, from Place, group []*member, failed map[health.MemberID]error, floor uint64, how depth, x *extras) error {
	more, err := s.flushStream(ctx, epoch, from, group, floor, how, x)
	maps.Copy(failed, more)
	return err
}

// read asks the leader for a batch, again if a table was rewritten meanwhile.
func (s *Set) read(ctx context.Context, from Place, floor uint64, limit int, how depth) (*batch, error) {
	ctx, stop := s.mind(ctx, s.members.get(s.cur.Leader), s.leaderC, 0)
	defer stop()
	for tries := 1; ; tries++ {
		b, err := readBatch(ctx, s.leaderC, from, floor, limit, how, s.marker)
		if !outdated(err) || s.leaderC.TxStatus() != 'I' || tries == outdatedMost {
			return b, causeOf(ctx, err)
		}
		if !sleep(ctx, outdatedPause) {
			return nil, context.Cause(ctx)
		}
	}
}

// trusted tells whether what the leader sent may count.
func (b *batch) trusted(epoch, term int64) error {
	switch {
	case b.head.Epoch > epoch:
		return errNewerEpoch
	case !b.head.Leads || !b.head.Booted || b.head.Term != term || b.head.Epoch < epoch:
		return errLeaderLost
	}
	return nil
}

// advance notes how far acknowledgements have come. Only the loop calls it.
func (s *Set) advance(to Place) {
	s.acked.Store(&to)
}

// gate makes the wait for the leader's WAL: nil if its disk holds all the batch
// has read. Whoever calls the result first runs it; it begins at once.
func (s *Set) gate(ctx context.Context, b *batch) func() error {
	if b.gated() {
		return nil
	}
	wait := sync.OnceValue(func() error {
		if s.gateC == nil || s.gateC.IsClosed() {
			c, err := s.members.get(s.cur.Leader).connect(ctx)
			if err != nil {
				return err
			}
			s.gateC = c
		}
		_, err := s.gateC.one(ctx, `SELECT pgdist.gate($1::pg_lsn)`, text(b.head.Insert))
		return err
	})
	go wait() //nolint:errcheck // every caller of gate calls the result too and gets the error
	return wait
}

// each runs f for all members at once and collects the failures.
func (s *Set) each(group []*member, f func(*member) error) map[health.MemberID]error {
	if len(group) == 0 {
		return nil
	}
	errs := make([]error, len(group))
	var wg sync.WaitGroup
	for i, m := range group[1:] {
		wg.Go(func() { errs[i+1] = f(m) })
	}
	errs[0] = f(group[0])
	wg.Wait()
	var failed map[health.MemberID]error
	for i, err := range errs {
		if err != nil {
			if failed == nil {
				failed = map[health.MemberID]error{}
			}
			failed[group[i].id] = err
		}
	}
	return failed
}

// flushStream is flushGroup for what does not fit in one message.
func (s *Set) flushStream(ctx context.Context, epoch int64, from Place, group []*member, floor uint64, how depth, x *extras) (map[health.MemberID]error, error) {
	c := s.leaderC
	ctx, stop := s.mind(ctx, s.members.get(s.cur.Leader), c, 0)
	defer stop()
	chunk := s.cfg.BatchKeys
	var known *sequenceState
	if x == nil {
		known = sequencesOf(group)
	}
	for tries := 1; ; tries++ {
		b, failed, err := stream(ctx, streamJob{leader: c, epoch: epoch, term: s.cur.Term, from: from, group: group, floor: floor,
			how: how, extra: x, known: known, chunk: chunk, terms: s.terms, gate: s.gate, mind: s.mind})
		if outdated(err) && c.TxStatus() == 'I' && tries < outdatedMost && sleep(ctx, outdatedPause) {
			continue
		}
		if tooWide(err) && chunk > 1 {
			chunk = 1
			continue
		}
		if err != nil {
			return failed, err
		}
		s.told(epoch, from, b, group, failed)
		for _, m := range group {
			if failed[m.id] == nil {
				m.moved(b.to())
				m.sequences, m.shared = b.shown, ""
			}
		}
		s.advance(b.to())
		return s.again(ctx, epoch, b, group, failed, floor, how, x)
	}
}

// sleep waits for d and tells whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// causeOf prefers the reason a context ended over the error it made.
func causeOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
