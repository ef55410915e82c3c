package engine

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/health"
)

// pools are one user's connections to one member.
type pools [purposes]*pool

func newPools(m *member, conn *pgx.ConnConfig, config PoolConfig, dial DialFunc) (*pools, error) {
	ps := &pools{}
	for p := range purposes {
		var err error
		if ps[p], err = newPool(m, p, conn, config, dial); err != nil {
			return nil, fmt.Errorf("pgdist: pool of %s: %w", m.host, err)
		}
	}
	return ps, nil
}

func (ps *pools) close() {
	for _, p := range ps {
		p.close()
	}
}

// Tenant is a user of the set other than the Config's own: sessions of it have
// connections of their own, because a session's user cannot be changed without
// a way back to the one before.
type Tenant struct {
	e    *Engine
	user string
	own  atomic.Pointer[map[health.MemberID]*pools]

	config PoolConfig
	dial   DialFunc
}

// NewTenant makes pools for a user. dial connects as that user; it is given the
// member's settings with the user's name and no password.
func (e *Engine) NewTenant(user string, config PoolConfig, dial DialFunc) (*Tenant, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	t := &Tenant{e: e, user: user, config: config.withDefaults(), dial: dial}
	t.own.Store(&map[health.MemberID]*pools{})
	for _, m := range e.all() {
		if err := t.meetLocked(m); err != nil {
			for _, ps := range t.endLocked() {
				ps.close()
			}
			return nil, err
		}
	}
	e.tenants = append(e.tenants, t)
	return t, nil
}

// meetLocked makes the tenant's pools for a member.
func (t *Tenant) meetLocked(m *member) error {
	conn := m.config.Copy()
	conn.User, conn.Password = t.user, ""
	ps, err := newPools(m, conn, t.config, t.dial)
	if err != nil {
		return err
	}
	for _, pl := range ps {
		pl.user = t.user
		if m.state.Load() == excluded {
			pl.exclude()
		}
	}
	own := maps.Clone(*t.own.Load())
	own[m.id] = ps
	t.own.Store(&own)
	list := append(slices.Clone(*m.all.Load()), ps)
	m.all.Store(&list)
	return nil
}

// partLocked forgets the pools for a member, which are closed.
func (t *Tenant) partLocked(id health.MemberID) {
	own := maps.Clone(*t.own.Load())
	delete(own, id)
	t.own.Store(&own)
}

// User is the tenant's name.
func (t *Tenant) User() string { return t.user }

// Close ends the tenant's connections. No session of it may be open.
func (t *Tenant) Close() {
	t.e.mu.Lock()
	own := t.endLocked()
	t.e.mu.Unlock()
	for _, ps := range own {
		ps.close()
	}
}

// endLocked takes the tenant's pools out of use and returns them.
func (t *Tenant) endLocked() map[health.MemberID]*pools {
	own := *t.own.Load()
	for id, m := range t.e.all() {
		list := slices.DeleteFunc(slices.Clone(*m.all.Load()), func(ps *pools) bool { return ps == own[id] })
		m.all.Store(&list)
	}
	t.e.tenants = slices.DeleteFunc(t.e.tenants, func(o *Tenant) bool { return o == t })
	return own
}

// Stats are the tenant's connections to each member, for reads and for writes.
func (t *Tenant) Stats() map[health.MemberID][2]PoolStats {
	list := map[health.MemberID][2]PoolStats{}
	for id, ps := range *t.own.Load() {
		list[id] = [2]PoolStats{ps[readOnly].stats(), ps[readWrite].stats()}
	}
	return list
}

// poolsOf are the connections to m that serve a tenant, nil being the Config's user.
func (m *member) poolsOf(t *Tenant) *pools {
	if t == nil {
		return m.pools
	}
	return (*t.own.Load())[m.id]
}

// tenantOf is the session's user, nil for the engine itself.
func (s *Session) tenantOf() *Tenant {
	if s == nil {
		return nil
	}
	return s.tenant
}
