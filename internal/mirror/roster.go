package mirror

import (
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/register"
)

// roster is the members of a set as this process knows them. It is read by everybody and
// changed by whoever opens the set, and then by the loop alone.
type roster struct {
	p atomic.Pointer[map[health.MemberID]*member]
}

// all are the members at this moment, not to be changed.
func (r *roster) all() map[health.MemberID]*member {
	if m := r.p.Load(); m != nil {
		return *m
	}
	return nil
}

// get is the member of that number, or nil.
func (r *roster) get(id health.MemberID) *member { return r.all()[id] }

func (r *roster) put(m *member) {
	next := maps.Clone(r.all())
	if next == nil {
		next = map[health.MemberID]*member{}
	}
	next[m.id] = m
	r.p.Store(&next)
}

func (r *roster) drop(id health.MemberID) {
	next := maps.Clone(r.all())
	delete(next, id)
	r.p.Store(&next)
}

// sortedIDs lists the members in order.
func (s *Set) sortedIDs() []health.MemberID { return slices.Sorted(maps.Keys(s.members.all())) }

// At leads cfg's connections to another server: all else, credentials among it, stays.
// addr is "host:port", or a host whose port stays, too.
func At(cfg *pgconn.Config, addr string) *pgconn.Config {
	c := cfg.Copy()
	host, port := addr, c.Port
	if h, p, err := net.SplitHostPort(addr); err == nil {
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			host, port = h, uint16(n)
		}
	}
	if t := c.TLSConfig; t != nil && t.ServerName == cfg.Host {
		t.ServerName = host
	}
	for _, f := range c.Fallbacks {
		if t := f.TLSConfig; t != nil && t.ServerName == cfg.Host {
			t.ServerName = host
		}
		f.Host, f.Port = host, port
	}
	c.Host, c.Port = host, port
	return c
}

// at is how the set's member under this address is connected to: as the configuration
// says, or, where it does not name the member (added since it was written), like the
// first that it names.
func (c Config) at(host string) MemberConfig {
	for _, m := range c.Members {
		if m.Host() == host {
			return m
		}
	}
	if register.Is(host) {
		return MemberConfig{Register: host}
	}
	return MemberConfig{Conn: At(c.Members[0].Conn, host)}
}

// Naming is c with all members that a status shows, also those that c does not name.
func (c Config) Naming(seen *Status) Config {
	var all []MemberConfig
	for _, m := range seen.Members {
		all = append(all, c.at(m.Host))
	}
	c.Members = all
	return c
}

func (s *Set) newMember(id health.MemberID, mc MemberConfig) *member {
	m := &member{id: id, host: mc.Host(), app: s.app(), cfg: mc.Conn, health: mc.Health.Over(s.cfg.Health), vouching: make(chan struct{}, 1)}
	if mc.Register != "" {
		m.register = s.cfg.open(mc.Register)
		if s.id != "" && !s.cfg.Brief {
			m.claims = s.cfg.Name
		}
	}
	return m
}

// meet makes the members known that a view names and this process has not heard of, and
// tells whether there were any.
func (s *Set) meet(v *health.View) (met bool) {
	for _, list := range [][]health.Member{v.Members, v.Former} {
		for _, m := range list {
			if s.members.get(m.ID) == nil {
				s.log.Info("a member was added to the set", "member", m.Host, "number", int(m.ID), "votes", m.Weight, "witness", m.Witness)
				s.know(s.newMember(m.ID, s.cfg.at(m.Host)))
				met = true
			}
		}
	}
	return met
}

func (s *Set) know(m *member) {
	m.say(textExcluded, nil)
	s.members.put(m)
	if s.board != nil {
		if err := s.board.Add(health.MemberConfig{ID: m.id, Host: m.host, Config: m.health}); err != nil {
			s.log.Error("a member cannot be watched", "member", m.host, "err", err)
		}
	}
}

// part forgets the members that a view does not name any more.
func (s *Set) part(v *health.View) {
	for id, m := range s.members.all() {
		if has(v.Members, id) || has(v.Former, id) {
			continue
		}
		s.log.Info("a member was removed from the set", "member", m.host, "number", int(id))
		s.lose(m)
	}
}

func (s *Set) lose(m *member) {
	s.members.drop(m.id)
	if s.board != nil {
		s.board.Remove(m.id)
	}
	s.mu.Lock()
	delete(s.down, m.id)
	s.mu.Unlock()
	m.forget()
	s.done.Go(func() {
		m.retire(s.life)
		s.closeRegister(m)
	})
}

// retire closes what others than the loop may be using at the moment.
func (m *member) retire(ctx context.Context) {
	for !m.confirming.CompareAndSwap(false, true) { // never given back
		if !sleep(ctx, tick) {
			break
		}
	}
	if m.confirming.Load() {
		m.lease.close()
		m.lease = nil
	}
	select {
	case m.vouching <- struct{}{}: // nor this
		m.witness.close()
	case <-ctx.Done():
	}
	m.probing.Lock()
	defer m.probing.Unlock()
	m.gone = true
	m.probe.close()
}

func has(list []health.Member, id health.MemberID) bool {
	return slices.ContainsFunc(list, func(m health.Member) bool { return m.ID == id })
}

// isWitness tells of a member that has a vote and no data, or is on its way in or out: not on
// the list, and perhaps on the one before.
func isWitness(v *health.View, id health.MemberID) bool {
	m, listed := v.Member(id)
	return m.Witness || !listed
}
