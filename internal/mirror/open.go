package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pgdist/pgdist/health"
)

// openTimeout bounds how long Open waits for a member that does not answer.
const openTimeout = 3 * time.Second

// Open joins the distributors of an initialised set and starts mirroring. It
// returns once a view is in force and its in-sync followers hold everything.
// ctx bounds opening only.
func Open(ctx context.Context, cfg Config) (*Set, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Set{
		cfg: cfg, log: cfg.Logger,
		waiting:   []*waiter{},
		news:      make(chan struct{}),
		down:      map[health.MemberID]error{},
		crashed:   map[health.MemberID]error{},
		newcomers: map[health.MemberID]bool{},
		wake:      make(chan struct{}, 1),
		joins:     make(chan *joiner),
		granted:   make(chan struct{}), drains: make(chan struct{}), confirms: make(chan struct{}, 1),
		aligns:   make(chan *alignment),
		switches: make(chan *switchJob),
		tasks:    make(chan *task),
		lists:    make(chan *relistJob),
	}
	if !cfg.anyVersion {
		s.id = uuid.NewString()
	}
	s.acked.Store(&Place{})
	s.life, s.stop = context.WithCancel(context.Background())
	found, err := s.meetMembers(ctx)
	if err != nil {
		s.stop()
		return nil, err
	}
	if err := s.firstView(ctx, found); err != nil {
		s.stop()
		s.done.Wait()
		s.closeConns()
		return nil, err
	}
	if err := s.start(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Set) closeConns() {
	for _, m := range s.members.all() {
		m.apply.close()
		m.probe.close()
		m.witness.close()
		m.lease.close()
		s.closeRegister(m)
	}
	s.leaderC.close()
	s.gateC.close()
}

// answerOf is what a configured database said when the set was opened.
type answerOf struct {
	cfg   MemberConfig
	here  *here
	major int // of its server; 0: not known
	err   error
}

// askAll asks every database of the set who it is: those that are configured, and
// those that these name.
func askAll(ctx context.Context, cfg Config) []answerOf {
	out, conns := askOpen(ctx, cfg)
	for _, c := range conns {
		c.close()
	}
	return out
}

// askOpen is askAll, and leaves the connections open; nil where there is none.
func askOpen(ctx context.Context, cfg Config) ([]answerOf, []*conn) {
	out, conns := cfg.ask(ctx, cfg.Members)
	if v := newestView(out); v != nil {
		more, also := cfg.ask(ctx, cfg.unnamed(v, out))
		out, conns = append(out, more...), append(conns, also...)
		for i, a := range out {
			if a.here != nil && a.cfg.Register == "" && a.here.Set == v.Set && !has(v.Members, health.MemberID(a.here.Member)) && seat(v, a.cfg.Host()) != 0 {
				out[i].here, out[i].err = nil, ErrWasRemoved
			}
		}
	}
	return out, conns
}

// seat is the number of the member with this address; 0 is none.
func seat(v *health.View, host string) health.MemberID {
	for _, m := range v.Members {
		if m.Host == host {
			return m.ID
		}
	}
	return 0
}

func (c Config) ask(ctx context.Context, members []MemberConfig) ([]answerOf, []*conn) {
	out, conns := make([]answerOf, len(members)), make([]*conn, len(members))
	var wg sync.WaitGroup
	for i, mc := range members {
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
			defer cancel()
			out[i] = answerOf{cfg: mc}
			if mc.Register != "" {
				out[i].here, out[i].err = c.lookAt(ctx, mc.Register)
				return
			}
			for range 5 {
				k, err := dial(ctx, mc.Conn, nil)
				if err == nil {
					out[i].major = k.major()
					conns[i] = k
					out[i].here, err = k.where(ctx)
				}
				out[i].err = causeOf(ctx, err)
				if sqlState(err) != "57P01" {
					return
				}
				k.close() // a program asked for a promise, which ends the sessions that look at the office
			}
		})
	}
	wg.Wait()
	return out, conns
}

// unnamed are the members of a view that the configuration does not name: they were
// added after it was written. A member may be configured under another address than
// the view has; one that does not answer is then taken for one of the first.
func (c Config) unnamed(v *health.View, found []answerOf) []MemberConfig {
	var missing []health.Member
	var out []MemberConfig
	for _, m := range v.Members {
		if m.Register() { // no configuration names it
			out = append(out, c.at(m.Host))
			continue
		}
		if !slices.ContainsFunc(found, func(a answerOf) bool {
			return a.cfg.Host() == m.Host || a.here != nil && a.here.Set == v.Set && a.here.Member == int(m.ID)
		}) {
			missing = append(missing, m)
		}
	}
	strange := 0
	for _, a := range found {
		if a.here == nil && !a.removed(v) && seat(v, a.cfg.Host()) == 0 {
			strange++
		}
	}
	for _, m := range missing[min(strange, len(missing)):] {
		out = append(out, c.at(m.Host))
	}
	return out
}

// removed tells of a database that is configured, but no member any more.
func (a answerOf) removed(v *health.View) bool {
	if v == nil || seat(v, a.cfg.Host()) != 0 {
		return false
	}
	if a.here != nil {
		return a.here.Set == v.Set && !has(v.Members, health.MemberID(a.here.Member)) && !has(v.Former, health.MemberID(a.here.Member))
	}
	return slices.Contains(v.Removed, a.cfg.Host())
}

// vacant tells that a database's place in the set is to be filled by a copy: it is
// new, gone, or was left in the middle of one.
func (a answerOf) vacant(v *health.View) bool {
	return (errors.Is(a.err, ErrNotInstalled) || errors.Is(a.err, ErrHalfCopied) || errors.Is(a.err, ErrWasRemoved) || noDatabase(a.err)) &&
		v != nil && seat(v, a.cfg.Host()) != 0
}

// meetMembers asks who is there, and refuses what cannot be a set.
func (s *Set) meetMembers(ctx context.Context) ([]answerOf, error) {
	out := askAll(ctx, s.cfg)
	var errs []error
	alive := 0
	view := newestView(out)
	for _, a := range out {
		switch {
		case a.removed(view):
			s.log.Warn("a database that is configured is no member of the set any more: take it out of the configuration", "host", a.cfg.Host())
		case a.vacant(view):
			s.log.Warn("a member is to be copied afresh", "member", a.cfg.Host(), "err", a.err, "run", "pgdist resync DSN --member "+a.cfg.Host())
		case errors.Is(a.err, ErrNotInstalled):
			errs = append(errs, &Error{Op: "open the set", Host: a.cfg.Host(), Err: a.err, Hint: initHint(out)})
		case a.err != nil && health.Classify(a.err) != health.Failure && sqlState(a.err) != "":
			errs = append(errs, &Error{Op: "open the set", Host: a.cfg.Host(), Err: a.err})
		case a.err == nil:
			alive++
			if err := wrongVersion("open the set", a.cfg.Host(), a.here.Version); err != nil && !s.cfg.anyVersion {
				errs = append(errs, err)
			}
		}
	}
	if alive == 0 && len(errs) == 0 {
		for _, a := range out {
			errs = append(errs, &Error{Op: "open the set", Host: a.cfg.Host(), Err: a.err})
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// initHint says what to do about a database that is no member where no member answers:
// while others are silent, it may be one that was emptied.
func initHint(found []answerOf) string {
	var silent []string
	for _, a := range found {
		if a.err != nil && !errors.Is(a.err, ErrNotInstalled) {
			silent = append(silent, a.cfg.Host())
		}
	}
	if len(silent) == 0 {
		return "run: pgdist init DSN"
	}
	return "bring back " + strings.Join(silent, ", ") + ", which may know of a set; if there is none yet, run: pgdist init DSN"
}

// firstView finds the view in force, or has one chosen, and flushes under it.
func (s *Set) firstView(ctx context.Context, found []answerOf) error {
	newest := newestView(found)
	if newest == nil {
		return &Error{Op: "open the set", Err: health.ErrNoView, Hint: "run: pgdist init DSN"}
	}
	if err := s.assign(found, newest); err != nil {
		return err
	}
	if err := s.claim(ctx, newest); err != nil {
		return err
	}
	s.cur = newest
	for _, m := range s.members.all() {
		m.seat.Store(newest)
	}
	s.entered.Store(newest.Epoch)
	for id, m := range s.members.all() {
		if newest.Has(id) {
			m.say(textInSync, nil)
		} else {
			m.say(textExcluded, nil)
		}
	}
	if err := s.register(ctx, newest); err != nil {
		return err
	}
	s.meetMates(found)
	defer s.breathe(ctx)()
	fit := s.inForce(found, newest)
	for tries := 0; !fit && s.others.Load() > 0 && tries < 3; tries++ {
		// Another program is about to change the view, most likely.
		if !hesitate(ctx, proposalTime) {
			return context.Cause(ctx)
		}
		if _, _, err := s.adopt(ctx); err != nil {
			return err
		}
		found = s.whereabouts(ctx)
		newest = s.cur
		fit = s.inForce(found, newest)
	}
	if !fit {
		in := health.Intent{DropLeader: !s.leaderFit(found, newest)}
		if err := s.alter(ctx, in); err != nil {
			return err
		}
	}
	s.fillAgain(ctx)
	return s.round(ctx, thorough)
}

func newestView(found []answerOf) *health.View {
	var newest *health.View
	for _, a := range found {
		if a.here != nil && a.here.View != nil && (newest == nil || a.here.View.Epoch > newest.Epoch) {
			newest = a.here.View
		}
	}
	return newest
}

func hostList(v *health.View) string {
	var hosts []string
	for _, m := range v.Members {
		hosts = append(hosts, m.Host)
	}
	return strings.Join(hosts, ", ")
}

// assign finds out which configured database is which member: by what it says,
// or, if it does not answer, by the address it had at init, or as the one left.
func (s *Set) assign(found []answerOf, v *health.View) error {
	taken := map[health.MemberID]bool{}
	put := func(a answerOf, id health.MemberID) error {
		if taken[id] {
			return &Error{Op: "open the set", Member: id, Host: a.cfg.Host(), Err: fmt.Errorf("two of the addresses lead to member %d", id), Hint: "name each database once"}
		}
		taken[id] = true
		m := s.newMember(id, a.cfg)
		m.major.Store(int32(a.major))
		s.members.put(m)
		return nil
	}
	var silent []answerOf
	for _, a := range found {
		if a.removed(v) {
			continue
		}
		if a.here == nil {
			silent = append(silent, a)
			continue
		}
		if a.here.Set != v.Set {
			return &Error{Op: "open the set", Host: a.cfg.Host(), Err: fmt.Errorf("it belongs to set %s, the others to %s", a.here.Set, v.Set), Hint: "name the databases of one set"}
		}
		if err := put(a, health.MemberID(a.here.Member)); err != nil {
			return err
		}
	}
	for _, a := range silent {
		i := slices.IndexFunc(v.Members, func(m health.Member) bool { return m.Host == a.cfg.Host() && !taken[m.ID] })
		if i < 0 {
			i = slices.IndexFunc(v.Members, func(m health.Member) bool { return !taken[m.ID] && !m.Register() })
		}
		if i < 0 {
			return &Error{Op: "open the set", Host: a.cfg.Host(), Err: errors.New("the set has no such member"), Hint: "its members are " + hostList(v)}
		}
		if err := put(a, v.Members[i].ID); err != nil {
			return err
		}
	}
	return nil
}

// Hosts maps each member to its address as the configuration names it.
func (s *Set) Hosts() map[health.MemberID]string {
	out := make(map[health.MemberID]string, len(s.members.all()))
	for id, m := range s.members.all() {
		out[id] = m.host
	}
	return out
}

// inForce tells whether a view is chosen and every member it needs acts by it.
func (s *Set) inForce(found []answerOf, v *health.View) bool { return v.InForce(voters(found)) }

func (s *Set) leaderFit(found []answerOf, v *health.View) bool { return v.InOffice(voters(found)) }

// probe asks a member whether it is well.
func (s *Set) probe(ctx context.Context, id health.MemberID) error {
	m := s.members.get(id)
	if m == nil {
		return context.Canceled // removed in this moment
	}
	return m.check(ctx, func() {
		s.suspect.Store(true)
		s.poke()
		_ = s.Vouch(ctx, id) // the loop hears of it
	})
}

// start sets the probes and the loop going.
func (s *Set) start() error {
	ctx := s.life
	bc := health.BoardConfig{Logger: s.log, Probe: s.probe}
	for _, id := range s.sortedIDs() {
		m := s.members.get(id)
		bc.Members = append(bc.Members, health.MemberConfig{ID: id, Host: m.host, Config: m.health})
	}
	s.board = health.NewBoard(bc)
	s.done.Go(func() { s.watch(ctx) })
	if s.id != "" {
		s.done.Go(func() { s.confirm(ctx) })
	}
	s.done.Go(func() { s.loop(ctx) })
	if s.cfg.CheckRate > 0 && s.id != "" {
		s.done.Go(func() { s.patrol(ctx) })
	}
	return s.board.Start(ctx)
}
