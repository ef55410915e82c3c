package engine

import (
	"fmt"
	"slices"

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
	own  map[health.MemberID]*pools // never changed
}

// NewTenant makes pools for a user. dial connects as that user; it is given the
// member's settings with the user's name and no password.
func (e *Engine) NewTenant(user string, config PoolConfig, dial DialFunc) (*Tenant, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	t := &Tenant{e: e, user: user, own: map[health.MemberID]*pools{}}
	for id, m := range e.members {
		conn := m.config.Copy()
		conn.User, conn.Password = user, ""
		ps, err := newPools(m, conn, config.withDefaults(), dial)
		if err != nil {
			return nil, err
		}
		for _, pl := range ps {
			pl.user = user
		}
		t.own[id] = ps
	}
	for id, m := range e.members {
		list := append(slices.Clone(*m.all.Load()), t.own[id])
		m.all.Store(&list)
	}
	return t, nil
}

// User is the tenant's name.
func (t *Tenant) User() string { return t.user }

// Close ends the tenant's connections. No session of it may be open.
func (t *Tenant) Close() {
	t.e.mu.Lock()
	for id, m := range t.e.members {
		list := slices.DeleteFunc(slices.Clone(*m.all.Load()), func(ps *pools) bool { return ps == t.own[id] })
		m.all.Store(&list)
	}
	t.e.mu.Unlock()
	for _, ps := range t.own {
		ps.close()
	}
}

// Stats are the tenant's connections to each member, for reads and for writes.
func (t *Tenant) Stats() map[health.MemberID][2]PoolStats {
	list := map[health.MemberID][2]PoolStats{}
	for id, ps := range t.own {
		list[id] = [2]PoolStats{ps[readOnly].stats(), ps[readWrite].stats()}
	}
	return list
}

// poolsOf are the connections to m that serve a tenant, nil being the Config's user.
func (m *member) poolsOf(t *Tenant) *pools {
	if t == nil {
		return m.pools
	}
	return t.own[m.id]
}
