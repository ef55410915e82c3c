package engine

import (
	"context"
	"maps"
	"slices"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
)

// all are the members that the engine has connections for, not to be changed.
func (e *Engine) all() map[health.MemberID]*member { return *e.members.Load() }

// meetLocked makes pools for members that were added to the set since it was opened, like
// those of the first that is configured, and lets those go that were removed.
func (e *Engine) meetLocked(view *health.View) {
	next := maps.Clone(e.all())
	for _, vm := range view.Members {
		if vm.Witness || next[vm.ID] != nil {
			continue
		}
		m, err := e.addedMember(vm)
		if err != nil {
			e.log.Error("a member that was added cannot be used", "member", int(vm.ID), "host", vm.Host, "err", err)
			continue
		}
		next[vm.ID] = m
	}
	for id, m := range next {
		if _, listed := view.Member(id); !listed {
			delete(next, id)
			m.setState(excluded)
			e.leaving = append(e.leaving, m)
		}
	}
	e.members.Store(&next)
}

// addedMember makes a member from what a view says of it.
func (e *Engine) addedMember(vm health.Member) (*member, error) {
	mc := MemberConfig{Conn: e.config.Members[0].Conn.Copy(), Health: e.config.Members[0].Health}
	for _, known := range e.config.Members {
		if hostPort(known.Conn) == vm.Host {
			mc = known
		}
	}
	mc.Conn.Config = *mirror.At(&mc.Conn.Config, vm.Host)
	m, err := newMember(vm.ID, mc, e.config, func(ctx context.Context) error { return e.mirror.Vouch(ctx, vm.ID) })
	if err != nil {
		return nil, err
	}
	m.gate.set(e.limits)
	m.setState(excluded) // until a view has it in sync
	for _, t := range e.tenants {
		if err := t.meetLocked(m); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// dismiss closes the pools of members that were removed, once nobody uses them.
func (e *Engine) dismiss() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaving = slices.DeleteFunc(e.leaving, func(m *member) bool {
		if m.outstanding.Load() > 0 || m.poolStats(readOnly).InUse+m.poolStats(readWrite).InUse > 0 {
			for _, ps := range *m.all.Load() {
				for _, p := range ps {
					p.killStuck()
				}
			}
			return false
		}
		m.close()
		for _, t := range e.tenants {
			t.partLocked(m.id)
		}
		return true
	})
}
