package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
)

// joiner is a member that has nearly caught up and asks the loop for the last step.
type joiner struct {
	m    *member
	done chan error
}

const (
	// closeEnough is how few keys may be left for the last step of a join,
	// during which writers wait.
	closeEnough = 2000
	// rounds bounds catching up under a load that is faster than the member.
	catchUpRounds = 50
)

// inviteBack starts catching up for members that answer again.
func (s *Set) inviteBack(ctx context.Context) {
	for id, m := range s.members.all() {
		if s.cur.Has(id) || isWitness(s.cur, id) || s.downErr(id) != nil || m.joining.Load() || monotonic() < m.retry.Load() {
			continue
		}
		m.joining.Store(true)
		view := s.cur
		s.done.Go(func() {
			defer m.joining.Store(false)
			if n := m.note.Load(); n != nil && n.Text == textLost && !errors.Is(n.Err, errUnrepeatable) && !m.copied(ctx) {
				m.retry.Store(later(lostPause))
				return
			}
			err := s.rejoin(ctx, m, view)
			state := sqlState(err)
			if errors.Is(err, errClaimed) || errors.Is(err, errSuperseded) || state == codeFence || state == "57P01" && s.downErr(m.id) == nil {
				// Nor is it the member's fault if whoever has changed the view has ended the session.
				m.retry.Store(later(claimedPause))
				return
			}
			err = m.despair(err)
			if err != nil && ctx.Err() == nil {
				s.postpone(m, err)
				s.log.Warn("a member could not be taken back", "member", m.host, "err", err)
				if !seenByAll(err) {
					s.tellWhy(ctx, m, remedy("could not be taken back", m.host, err), 2*time.Minute)
				}
			}
		})
	}
}

// errUnrepeatable: the member's server refuses what the leader's did.
var errUnrepeatable = errors.New("its server refuses what the leader's did")

// maxRefusals is how often in a row that is, for the member to have lost its place. It is
// still tried again while it has not been copied: people may have mended it.
const maxRefusals = 4

// despair counts the attempts to take a member back that failed because its server refuses a
// statement or a row for what it is, not for a want that may pass (of space, rights,
// or files of an extension), or has no room for the locks of all DDL that it missed. Such a
// member would stay out for ever.
func (m *member) despair(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Member != m.id || e.Op != opApply || !refusing(sqlState(err)) && !lockless(err) {
		m.refused.Store(0)
		return err
	}
	if m.refused.Add(1) < maxRefusals && sqlState(err) != codeUnlike { // which no further attempt changes
		return err
	}
	return fmt.Errorf("%w: %w: %w", ErrPlaceLost, errUnrepeatable, err)
}

// seenByAll tells an error that whoever asks the member hears from itself.
func seenByAll(err error) bool {
	var version *versionError
	return errors.Is(err, errStranger) || errors.Is(err, ErrNotInstalled) || errors.Is(err, ErrHalfCopied) || errors.As(err, &version)
}

// tellWhy writes down at the leader what keeps a member out, for pgdist status, as news for so long.
func (s *Set) tellWhy(ctx context.Context, m *member, why string, lasts time.Duration) {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	lead := s.members.get(s.View().Leader)
	if lead == nil {
		return
	}
	c, err := lead.connect(ctx)
	if err == nil {
		defer c.close()
		_, err = c.one(ctx, `SELECT pgdist.keep_out($1::text::int, $2, $3::text::interval)`, strconv.AppendInt(nil, int64(m.id), 10), text(c.words(why)), text(fmt.Sprintf("%d seconds", int(lasts.Seconds()))))
	}
	if err != nil {
		s.log.Debug("why a member could not be taken back was not written down", "member", m.host, "err", err)
	}
}

// remedy is an error that keeps a member out, with what is to be done about it.
func remedy(what, host string, why error) string {
	var pg *pgconn.PgError
	s := what + ": " + why.Error()
	switch {
	case errors.Is(why, ErrPlaceLost):
		return s + " (" + resyncHint(host) + ")"
	case !errors.As(why, &pg):
		return s
	}
	for _, more := range []string{pg.Detail, pg.Hint} {
		if more != "" {
			s += "; " + more
		}
	}
	var e *Error
	switch hinted := errors.As(why, &e) && e.Hint != ""; {
	case pg.Code == "42501":
		s += " (grant it on all members, at the leader, and the member comes back by itself)"
	case pg.Code == "0A000" && !hinted:
		s += " (it is tried again: mend that on its server, or " + resyncHint(host) + ")"
	}
	return s
}

// refusing tells of SQLSTATEs with which a server refuses what is asked of it, and will again
// (PostgreSQL docs, appendix A), and pgdist's own functions there.
func refusing(state string) bool {
	switch state {
	case "42501", "42704": // a right, or a role or tablespace, that is missing: somebody's to give
		return false
		// Nor 0A000: mostly a server lacks an extension, or what it could have been built with, and a
		// copy would end there, too, with the database dropped before.
	case "2BP01", "3F000", codeUnlike:
		return true
	}
	return len(state) == 5 && (state[:2] == "42" || state[:2] == "22" || state[:2] == "23")
}

// errClaimed: another distributor brings the member up to date already.
var errClaimed = errors.New("another distributor brings it up to date")

// claimedPause is how long the member is left to that one.
const claimedPause = 300 * time.Millisecond

// lostPause is how often a member that lost its place is looked at.
const lostPause = time.Second

// copied tells whether a member that lost its place is somewhere else now.
func (m *member) copied(ctx context.Context) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	c, err := m.connect(ctx)
	if err != nil {
		return false
	}
	defer c.close()
	h, err := c.where(ctx)
	at := m.seen.Load()
	return err == nil && (at == nil || h.place() != at.place || h.Tick != at.tick)
}

// postpone makes the next attempt to take a member back wait, longer each time.
func (s *Set) postpone(m *member, err error) {
	if at := m.joined.Swap(0); at != 0 && monotonic()-at > int64(steady) {
		m.tries.Store(0)
		m.copyTries.Store(0)
	}
	n := m.tries.Add(1)
	wait := min(250*time.Millisecond<<min(n-1, 8), 30*time.Second)
	m.retry.Store(later(wait))
	switch {
	case errors.Is(err, ErrPlaceLost):
		m.say(textLost, err)
	case seenByAll(err):
		m.say(textRefused, err)
	default:
		m.say(textExcluded, err)
	}
}

// steady is how long a member must have stayed in sync for what was before to be
// forgotten: one whose link comes and goes stays out for longer each time.
const steady = 20 * time.Second

// errStranger: what answers under a member's address is not that member.
var errStranger = errors.New("another database answers under this address")

// rejoin brings a member up to date while writes go on, then asks the loop to
// take it into the view.
func (s *Set) rejoin(ctx context.Context, m *member, view *health.View) error {
	m.say(textCatchUp, nil)
	c := &catchUp{s: s, m: m, twin: m.twin(), view: view}
	defer c.close()
	for range catchUpRounds {
		left, err := c.round(ctx)
		if err != nil {
			return err
		}
		if left <= closeEnough {
			pointCaughtUp.Pass()
			j := &joiner{m: m, done: make(chan error, 1)}
			select {
			case s.joins <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case err = <-j.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			return err
		}
	}
	return fmt.Errorf("it does not catch up: after %d rounds there is still too much to apply", catchUpRounds)
}

// catchUp is one member's way back.
type catchUp struct {
	s       *Set
	m       *member
	twin    *member // m, with the catch-up's own connections
	view    *health.View
	mine    *conn // at the member, for questions
	leader  *conn
	epoch   int64
	claimed bool // no other distributor does the same
	defined bool // DDL was run ahead of rows
	singly  bool // rows are too wide to be read together
}

func (c *catchUp) chunk() int {
	if c.singly {
		return 1
	}
	return c.s.cfg.BatchKeys
}

func (c *catchUp) close() {
	c.mine.close()
	c.leader.close()
	c.twin.forget()
}

// round applies once what the member lacks and tells how much that was.
func (c *catchUp) round(ctx context.Context) (int64, error) {
	c.view = c.s.View()
	if c.view.Has(c.m.id) {
		return 0, errors.New("it is in sync already")
	}
	h, err := c.prepare(ctx)
	if err != nil {
		return 0, err
	}
	lead, err := c.leader.where(ctx)
	if err == nil {
		err = recognise(c.view, c.view.Leader, c.s.hostOf(c.view.Leader), lead)
	}
	if err != nil {
		return 0, err
	}
	from, x, err := c.route(ctx, h, lead)
	if err == nil {
		err = c.indexes(ctx)
	}
	if err == nil && h.Crashed {
		x, err = c.mend(ctx, x)
	}
	if err == nil && h.Amiss != "" {
		x, err = c.amend(ctx, x)
	}
	if err != nil {
		return 0, err
	}
	c.twin.at(h.place(), h.Tick)
	return c.ship(ctx, h.place(), from, x, lead)
}

// prepare connects, checks that the member is who it should be, and fences it
// under the present epoch.
func (c *catchUp) prepare(ctx context.Context) (*here, error) {
	var err error
	if !c.mine.idle() {
		c.mine.close()
		if c.mine, err = c.m.connect(ctx); err != nil {
			return nil, err
		}
		c.claimed = false
	}
	if !c.claimed {
		got, err := c.mine.one(ctx, `SELECT pgdist.claim()`)
		switch {
		case sqlState(err) != "" || err == nil && got == "": // not installed, or half copied: it says so below
		case err != nil:
			return nil, c.m.fail("ask for its state", err)
		case got != "t":
			return nil, errClaimed
		}
		c.claimed = true
	}
	if !c.leader.idle() {
		c.leader.close()
		lead := c.s.members.get(c.view.Leader)
		if lead == nil {
			return nil, errSuperseded
		}
		if c.leader, err = dial(ctx, lead.cfg, c.m.named(map[string]string{"default_transaction_read_only": "on"})); err != nil {
			return nil, &leaderError{err}
		}
	}
	h, err := c.mine.where(ctx)
	var half *halfCopied
	if errors.As(err, &half) {
		c.m.leaveAt(half.place)
	}
	if err != nil {
		return nil, c.m.fail("ask for its state", err)
	}
	if err := c.recognise(h); err != nil {
		return nil, err
	}
	c.m.leaveAt(h.place())
	c.m.seen.Store(&spotted{h.place(), h.Tick})
	if h.Epoch > c.view.Epoch || h.Promised > c.view.Epoch {
		// Its proposer may be dead, and those that are in sync know nothing of it.
		c.s.newer.Store(true)
		c.s.poke()
		return nil, fmt.Errorf("it has promised epoch %d, the set is at %d", max(h.Epoch, h.Promised), c.view.Epoch)
	}
	if h.Epoch < c.view.Epoch || h.Leads {
		body, err := json.Marshal(c.view)
		if err != nil {
			return nil, err
		}
		if _, err := c.mine.one(ctx, `SELECT pgdist.adopt($1::bigint, $2::jsonb, 2000)`, strconv.AppendInt(nil, c.view.Epoch, 10), body); err != nil {
			return nil, c.m.fail("give it the present view", err)
		}
	}
	c.epoch = c.view.Epoch
	return h, nil
}

func (c *catchUp) recognise(h *here) error {
	if err := recognise(c.view, c.m.id, c.m.host, h); err != nil {
		return err
	}
	if err := wrongVersion("recognise the member", c.m.host, h.Version); err != nil && !c.s.cfg.anyVersion {
		return err
	}
	return nil
}

// ship applies what lies between from and the leader's present.
func (c *catchUp) ship(ctx context.Context, at, from Place, x *extras, lead *here) (int64, error) {
	terms, err := json.Marshal(lead.Terms)
	if err != nil {
		return 0, err
	}
	floor := uint64(0)
	if at.Term == c.view.Term {
		if floor, err = at.xmax(); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	var bytes int
	b, failed, err := stream(ctx, streamJob{leader: c.leader, epoch: c.epoch, term: c.view.Term, at: at, from: from, group: []*member{c.twin}, floor: floor,
		how: thorough, extra: x, leave: c.twin.tick != tickless, chunk: c.chunk(), terms: terms, gate: c.gate, mind: c.s.mind, progress: func(n int) { bytes += n }})
	if outdated(err) || busy(err) {
		sleep(ctx, outdatedPause)
		return closeEnough + 1, nil // again
	}
	if tooWide(err) && !c.singly {
		c.singly = true
		return closeEnough + 1, nil
	}
	if err != nil {
		return 0, err
	}
	if err := failed[c.m.id]; err != nil {
		if unidentified(err) && !x.withholds() {
			return c.ship(ctx, at, from, x.withholding(), lead)
		}
		if refusesDDL(b, err) && (x == nil || !x.first) {
			if x, err = concerned(ctx, c.leader, from, x); err != nil {
				return 0, err
			}
			return c.ship(ctx, at, from, x, lead)
		}
		if tab := c.contradicts(ctx, err); tab != 0 && (x == nil || !x.whole[tab]) {
			return c.ship(ctx, at, from, c.replaced(x, tab, err), lead)
		}
		if sqlState(err) == codeUnsafeLabel && !c.defined {
			if x, err = c.define(ctx, at, from, x); err != nil {
				return 0, err
			}
			return c.ship(ctx, at, from, x, lead)
		}
		return 0, c.s.tooOld(c.view, c.twin, err)
	}
	c.s.log.Info("catching up", "member", c.m.host, "entries", b.head.Entries, "keys", b.head.Keys, "bytes", bytes, "took", time.Since(began).Round(time.Millisecond))
	if b.left > 0 {
		c.s.log.Info("tables that others have in hand are left for the next round", "member", c.m.host, "tables", b.left)
		return closeEnough + 1, nil
	}
	c.s.log.Debug("caught up", "member", c.m.host, "at", at, "from", from, "to", b.to(), "epoch", c.epoch)
	return b.head.Keys, nil
}

// codeUnsafeLabel: rows use an enum's label that was added in their transaction.
const codeUnsafeLabel = "55P04"

// define runs a batch's DDL in a transaction ahead of its rows, which use labels
// that it adds to enums it creates. The member stays where it is; its replay()
// knows what was run, should the rows have to wait for another attempt.
func (c *catchUp) define(ctx context.Context, at, from Place, x *extras) (*extras, error) {
	c.defined = true
	x, err := concerned(ctx, c.leader, from, x)
	if err != nil {
		return nil, err
	}
	b, err := readBatch(ctx, c.leader, from, 3, -1, thorough, "")
	if err != nil {
		return nil, &leaderError{err}
	}
	ops := append([]op{{kind: 'g', a: b.shared}}, x.vacates()...)
	for _, o := range b.ops {
		if o.kind == 'd' {
			ops = append(ops, o)
		}
	}
	steps := []step{mendStep(false), enterStep(c.epoch, at, c.twin.tick)}
	for _, o := range ops {
		s, err := o.step(true)
		if err != nil {
			return nil, err
		}
		steps = append(steps, s)
	}
	a, err := c.twin.applier(ctx)
	if err != nil {
		return nil, err
	}
	minded, stop := c.s.mind(ctx, c.twin, a, c.m.health.SyncTimeout)
	err = causeOf(minded, a.run(minded, append(steps, step{sql: replayedSQL}), nil))
	stop()
	if unidentified(err) && !x.withhold {
		return c.define(ctx, at, from, x.withholding())
	}
	return x, c.m.fail("run DDL ahead of rows", err)
}

// gate waits for the leader's WAL on a connection of the catch-up's own.
func (c *catchUp) gate(ctx context.Context, b *batch) func() error {
	return func() error {
		lead := c.s.members.get(c.view.Leader)
		if lead == nil {
			return errSuperseded
		}
		g, err := lead.connect(ctx)
		if err != nil {
			return err
		}
		defer g.close()
		_, err = g.one(ctx, `SELECT pgdist.gate($1::pg_lsn)`, text(b.head.Insert))
		return err
	}
}

// caughtUp makes sure that a joiner follows the present leader already. If another leads
// by now than the one it was brought up to, it may have been given what that one
// committed and this one lacks: a tail, which catching up undoes and a flush does not.
func (s *Set) caughtUp(ctx context.Context, m *member) error {
	if err := s.locate(ctx, m); err != nil {
		return err
	}
	if m.place.Term != s.cur.Term {
		return fmt.Errorf("it is at %v, and the leader is in term %d by now: it catches up anew", m.place, s.cur.Term)
	}
	return nil
}

// join is the last step, in the loop: the fence, the last delta, the new view.
func (s *Set) join(ctx context.Context, j *joiner) error {
	m := j.m
	if s.cur.Has(m.id) {
		return nil
	}
	m.forget()
	if err := s.caughtUp(ctx, m); err != nil {
		return err
	}
	with := func(epoch int64) error {
		ctx, done := s.engage(ctx, append([]health.MemberID{m.id}, s.cur.InSync...))
		defer done()
		if err := s.connectLeader(ctx); err != nil {
			return err
		}
		h, err := s.leaderC.where(ctx)
		if err != nil {
			return &leaderError{err}
		}
		if s.terms, err = json.Marshal(h.Terms); err != nil {
			return err
		}
		// Nobody else applies anything under this epoch, but somebody may have until now.
		for _, f := range s.followers() {
			f.unsure()
		}
		m.unsure()
		if err := s.caughtUp(ctx, m); err != nil {
			return err
		}
		failed, err := s.flush(ctx, epoch, append(s.followers(), m), thorough)
		if err != nil {
			return err
		}
		for _, err := range failed {
			return err
		}
		pointJoining.Pass()
		return nil
	}
	err := s.change(ctx, health.Intent{Join: m.id}, with)
	if err != nil {
		s.log.Debug("the last step of taking a member back failed", "member", m.host, "err", err)
		m.forget()
		// The epoch was promised by others already: have a view chosen under it.
		again := s.reload(ctx)
		if again == nil {
			again = s.round(ctx, thorough) // and let everybody know of it
		}
		return errors.Join(err, again)
	}
	m.lost = false
	s.log.Info("a member is in sync again", "member", m.host, "epoch", s.cur.Epoch)
	return s.round(ctx, thorough)
}
