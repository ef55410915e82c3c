package mirror

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgdist/pgdist/health"
)

// A member that is left out of the view must not be read any more once a write has
// been acknowledged without it. So a distributor reads only while a majority has
// lately confirmed the view it goes by, and whoever acknowledges under a view waits
// until no distributor can still go by one that came before: until all that are
// registered have had this one, or a newer one, confirmed, or until their leases
// have run out.
//
// The lease counts from before the confirmation was sent and is looked at after the
// client's request came. A reader that is stopped between the look and the read does
// no harm: what was acknowledged before its request came was acknowledged with the
// member that it reads, and that is all a read promises.

// grant is the right to read for a while.
type grant struct {
	from time.Time // has readings of both clocks
	wall int64
	d    time.Duration
}

func newGrant(from time.Time, d time.Duration) *grant { return &grant{from, from.UnixNano(), d} }

// holds tells whether the grant is still good. The monotonic clock stands still
// while a machine sleeps, the other may be set: whichever says more counts.
func (g *grant) holds() bool {
	if g == nil {
		return false
	}
	now := time.Now()
	return now.Sub(g.from) < g.d && now.UnixNano()-g.wall < int64(g.d)
}

// Current returns once the view that clients go by is known to be the present one:
// at once, unless no majority of the members has answered lately. It is asked for
// every statement. limit bounds the wait; 0 leaves that to ctx. The error wraps
// ErrUnconfirmed unless the set was closed.
func (s *Set) Current(ctx context.Context, limit time.Duration) error {
	if s.grant.Load().holds() {
		return nil
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return s.awaitGrant(ctx)
}

// Confirmed tells whether Current would return at once.
func (s *Set) Confirmed() bool { return s.grant.Load().holds() }

// Changes grows when followers have been brought DDL, of whatever program.
func (s *Set) Changes() int64 { return s.changes.Load() }

func (s *Set) awaitGrant(ctx context.Context) error {
	for {
		s.mu.Lock()
		news := s.granted
		s.mu.Unlock()
		if s.grant.Load().holds() {
			return nil
		}
		s.confirmSoon()
		select {
		case <-news:
		case <-s.life.Done():
			return ErrClosed
		case <-ctx.Done():
			return errors.Join(ErrUnconfirmed, context.Cause(ctx))
		}
	}
}

func (s *Set) confirmSoon() {
	select {
	case s.confirms <- struct{}{}:
	default:
	}
}

// confirmation is what one member answered.
type confirmation struct {
	id       health.MemberID
	Promised int64    `json:"promised"`
	Accepted int64    `json:"accepted"`
	Known    bool     `json:"known"`
	Others   []mate   `json:"others"`
	Alive    []string `json:"alive"`
	DDL      int64    `json:"ddl"`
	former   []string // names that this distributor had before
	err      error
}

const (
	// lookAtMates is how often it is found out which of the others are alive.
	lookAtMates = time.Second
	// drainStep is how often the others are asked after a change of view.
	drainStep = 10 * time.Millisecond
	// forgotten is for how long a distributor must not have been heard of to be
	// taken off the list.
	forgotten = 5 * time.Second
)

// confirm asks for confirmations again and again.
func (s *Set) confirm(ctx context.Context) {
	c := &confirmer{s: s, dead: map[string]time.Time{}, lives: map[string]bool{}, heard: newGrant(s.listed.Load().since, s.listed.Load().lease)}
	for ctx.Err() == nil {
		v := s.view.Load()
		c.round(ctx, v)
		wait := s.cfg.ViewLease / 3
		if s.drained.Load() < v.Epoch {
			wait = drainStep
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-s.confirms:
		}
		t.Stop()
	}
}

// aloneLeases is how many leases a distributor that is alone takes at a time: a program that is
// short of processor time need not wait then. If somebody comes it goes back to one, first by itself
// and then in what is written down. The other way it takes another name: under the old one a
// request of the shorter lease may be under way yet, and must not be written over the longer.
const aloneLeases = 4

// confirmer is the state of that, owned by its goroutine.
type confirmer struct {
	s      *Set
	looked time.Time
	lives  map[string]bool      // who of the others is alive, as far as was looked
	dead   map[string]time.Time // since when who is not
	seen   int64                // the epoch that is being drained …
	since  time.Time            // … since when
	heard  *grant               // until when the name on the lists is certain to have stayed there
}

// round asks all members and takes what the first majority of them says.
func (c *confirmer) round(ctx context.Context, v *health.View) {
	s := c.s
	look := time.Since(c.looked) > lookAtMates
	if c.seen != v.Epoch {
		c.seen, c.since = v.Epoch, time.Now()
	}
	began := time.Now()
	answers := make(chan confirmation, len(s.members.all()))
	asked := 0
	for _, m := range s.members.all() {
		if !m.confirming.CompareAndSwap(false, true) {
			continue // it has not answered the last time yet
		}
		asked++
		s.done.Go(func() {
			defer m.confirming.Store(false)
			ctx, cancel := context.WithTimeoutCause(ctx, m.health.ProbeTimeout, health.ErrTimeout)
			defer cancel()
			a := s.askConfirm(ctx, m, v.Epoch, look)
			a.id, a.err = m.id, causeOf(ctx, a.err)
			if a.err == nil && m.register == nil {
				m.heardDDL(a.DDL, &s.changes) // also if the round is decided without it
			}
			if m.id == v.Leader {
				s.heardLeader(a.err)
			}
			answers <- a
		})
	}
	limit := time.NewTimer(s.cfg.ViewLease)
	defer limit.Stop()
	var got []confirmation
	var yes []health.MemberID
	for range asked {
		var a confirmation
		select {
		case a = <-answers:
		case <-limit.C:
			c.conclude(v, got, began, look)
			return
		case <-ctx.Done():
			return
		}
		if a.err != nil {
			continue
		}
		got = append(got, a)
		if a.confirmation().Confirms(v) {
			yes = append(yes, a.id)
		}
		if v.Quorum(yes) {
			break
		}
	}
	c.conclude(v, got, began, look)
}

// confirmation is the answer as the arithmetic of leases sees it.
func (a *confirmation) confirmation() health.Confirmation {
	out := health.Confirmation{Member: a.id, Promised: a.Promised, Accepted: a.Accepted, Known: a.Known}
	for _, m := range a.Others {
		out.Others = append(out.Others, health.Mate{ID: m.ID, Epoch: m.Epoch, Lease: m.lease()})
	}
	return out
}

// heardDDL counts a change if the member has been brought DDL since it was last asked.
func (m *member) heardDDL(n int64, changes *atomic.Int64) {
	if was := m.ddl.Swap(n + 1); was != 0 && was != n+1 {
		changes.Add(1)
	}
}

// askConfirm asks one member.
func (s *Set) askConfirm(ctx context.Context, m *member, epoch int64, look bool) confirmation {
	var v voter = elsewhere{m}
	if m.register == nil {
		if m.lease == nil || m.lease.IsClosed() {
			c, err := m.connect(ctx)
			if err != nil {
				return confirmation{err: err}
			}
			m.lease = c
		}
		if err := m.recognise(ctx, m.lease); err != nil {
			m.lease.close()
			m.lease = nil
			return confirmation{err: err}
		}
		v = m.lease
	}
	a, err := v.confirm(ctx, s.as(epoch), look)
	if err == nil && !a.Known {
		err = v.enrol(ctx, s.as(epoch)) // it counts from the next time on
	}
	if err != nil {
		m.lease.close()
		m.lease = nil
	}
	for _, m := range a.Others {
		if idOf(m.ID) == s.id {
			a.former = append(a.former, m.ID)
		}
	}
	a.Others = s.without(a.Others)
	a.err = err
	return a
}

// conclude draws the conclusions of a round.
func (c *confirmer) conclude(v *health.View, got []confirmation, began time.Time, look bool) {
	s := c.s
	heard := make([]health.Confirmation, len(got))
	for i := range got {
		heard[i] = got[i].confirmation()
	}
	out := health.Conclude(v, heard, health.Reader{Lease: s.cfg.ViewLease, Asked: s.listed.Load().lease, Proposing: s.proposing.Load(), Entered: s.entered.Load(),
		Minority: s.cfg.MinorityReads && s.others.Load() == 0})
	switch {
	case out.Grant > 0 && !c.heard.holds():
		// Its lease had run out before the answers came: whoever has seen that may be striking it off, and
		// that may happen at any time, also at members that have just confirmed.
		c.rename()
		return
	case out == (health.Conclusion{}) && slices.ContainsFunc(heard, func(a health.Confirmation) bool { return !a.Known }): // they have put it on their lists now
		s.confirmSoon()
		return
	}
	// First this, then what others are told: a lease that is to be shorter from now on is
	// shorter here before any member writes that down.
	if out.Grant > 0 {
		c.heard = newGrant(began, out.Grant)
		s.allow(c.heard)
	}
	switch {
	case out.Confirmed:
		c.mates(got, look)
		c.drain(v, heard, began)
	case out.Newer:
		s.newer.Store(true)
		s.poke()
	case out.Unsupported:
		// The view was chosen by members some of which are gone now.
		if time.Since(c.since) > s.cfg.ViewLease && max(s.proposing.Load(), s.entered.Load()) <= v.Epoch {
			s.unsupported.Store(true)
			s.poke()
		}
	}
}

// rename has another name put on the lists, at once.
func (c *confirmer) rename() {
	l := c.s.rename()
	c.heard = newGrant(l.since, l.lease)
	c.s.confirmSoon()
}

// allow lets reads go on.
func (s *Set) allow(g *grant) {
	s.grant.Store(g)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.granted)
	s.granted = make(chan struct{})
}

// mates finds out who else there is.
func (c *confirmer) mates(got []confirmation, look bool) {
	s := c.s
	if look {
		c.looked = time.Now()
		clear(c.lives)
		for _, a := range got {
			for _, id := range a.Alive {
				c.lives[id] = true
			}
		}
	}
	living := map[string]bool{}
	var gone []string
	for _, a := range got {
		for _, m := range a.Others {
			alive := c.lives[idOf(m.ID)]
			if _, is := c.dead[m.ID]; !alive && !is && !look {
				alive = true // it is new
			}
			if alive {
				living[idOf(m.ID)] = true
				delete(c.dead, m.ID)
			} else if look {
				if _, ok := c.dead[m.ID]; !ok {
					c.dead[m.ID] = time.Now()
				} else if time.Since(c.dead[m.ID]) > forgotten+m.lease() {
					gone = append(gone, m.ID)
				}
			}
		}
	}
	if was := s.others.Swap(int32(len(living))); was != int32(len(living)) {
		s.log.Debug("distributors beside this one", "alive", len(living))
	}
	switch l := s.listed.Load(); {
	case len(living) > 0 && l.lease > s.cfg.ViewLease:
		short := *l
		short.lease = s.cfg.ViewLease
		s.listed.Store(&short)
	case len(living) == 0 && l.lease < aloneLeases*s.cfg.ViewLease:
		c.rename()
	}
	for _, a := range got { // they are of no more use: its grant is by the present one
		gone = append(gone, a.former...)
	}
	if len(gone) > 0 {
		for _, id := range gone {
			delete(c.dead, id)
		}
		c.send(gone, 1<<62)
	}
}

// drain finds out whether anybody may still go by an older view.
func (c *confirmer) drain(v *health.View, got []health.Confirmation, began time.Time) {
	s := c.s
	if s.drained.Load() >= v.Epoch {
		return
	}
	lag, over := health.Drained(v, got, began.Sub(c.since))
	if !over {
		return
	}
	if len(lag) > 0 {
		s.log.Info("distributors that have not heard of a view are left behind", "epoch", v.Epoch, "number", len(lag))
		if !v.Quorum(c.send(lag, v.Epoch)) {
			return
		}
		pointStruckOff.Pass()
	}
	s.drainedTo(v.Epoch)
}

// drainedTo notes that nobody reads by a view older than that of epoch.
func (s *Set) drainedTo(epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drained.Load() >= epoch {
		return
	}
	s.drained.Store(epoch)
	close(s.drains)
	s.drains = make(chan struct{})
}

// send has distributors taken off the list of as many members as can be reached.
func (c *confirmer) send(ids []string, epoch int64) []health.MemberID {
	did, err := c.s.everywhere(c.s.life, func(ctx context.Context, v voter) error { return v.dismiss(ctx, ids, epoch) })
	if err != nil {
		c.s.log.Debug("not everybody took a distributor off the list", "err", err)
	}
	return did
}

// awaitDrain waits, in the loop, until what is acknowledged under the present view
// can no longer be missed by a read anywhere.
func (s *Set) awaitDrain(ctx context.Context) error {
	epoch := s.cur.Epoch
	limit := time.NewTimer(s.cfg.AckTimeout)
	defer limit.Stop()
	for {
		s.mu.Lock()
		news := s.drains
		s.mu.Unlock()
		if s.drained.Load() >= epoch {
			return nil
		}
		s.confirmSoon()
		select {
		case <-news:
		case <-time.After(5 * drainStep): // the view may be superseded
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			return errors.Join(ErrNoMajority, errors.New("whether others still read by an older view could not be found out"))
		}
		if s.newer.Load() {
			return errNewerEpoch
		}
	}
}

// settled notes, once a view was chosen, that nobody reads by an older one: if there
// is nobody else, or if it leaves nobody out that was read under the one before,
// of which this was known.
func (s *Set) settled(old, next *health.View, answers []answer) {
	alone, base := true, int64(0)
	for _, a := range answers {
		if a.err != nil || !a.p.Given {
			continue
		}
		alone = alone && len(s.without(a.p.Mates)) == 0
		if a.p.View != nil {
			base = max(base, a.p.View.Epoch)
		}
	}
	if health.Settled(old, next, alone, old != nil && s.drained.Load() >= old.Epoch, base) {
		s.drainedTo(next.Epoch)
	}
}

// hesitate waits for a random time, so that distributors that want the same do not get
// into each other's way for ever.
func hesitate(ctx context.Context, most time.Duration) bool {
	return sleep(ctx, most/4+time.Duration(rand.Int64N(int64(most))))
}
