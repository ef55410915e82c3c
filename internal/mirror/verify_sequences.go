package mirror

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/pgdist/pgdist/health"
)

// compareSequences compares them where they stand still: sequences move without
// regard to snapshots. One is equal if it is once; it differs if it does while
// the leader's does not move. One that never stands still is set by each flush.
func (v *verification) compareSequences(ctx context.Context) error {
	conns := map[health.MemberID]*conn{}
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	open := map[health.MemberID]map[string]bool{} // not found equal yet; nil: all
	for range 10 {
		before, err := v.readSequences(ctx, conns, v.set.View().Leader)
		if err != nil {
			return err
		}
		if err := v.set.Flush(ctx); err != nil {
			return err
		}
		found := map[health.MemberID]map[string]string{}
		rest := 0
		for _, id := range v.set.View().Followers() {
			have, err := v.readSequences(ctx, conns, id)
			if err != nil {
				return err
			}
			found[id] = have
			open[id] = stillOpen(open[id], before, have)
			rest += len(open[id])
		}
		if rest == 0 {
			return nil
		}
		after, err := v.readSequences(ctx, conns, v.set.View().Leader)
		if err != nil {
			return err
		}
		v.settleSequences(open, found, before, after)
	}
	return nil
}

// stillOpen lists what differs now and was not found equal before.
func stillOpen(open map[string]bool, lead, have map[string]string) map[string]bool {
	out := map[string]bool{}
	for name, at := range lead {
		if h, ok := have[name]; ok && h != at && (open == nil || open[name]) {
			out[name] = true
		}
	}
	return out
}

// settleSequences reports those that differ though the leader's did not move.
func (v *verification) settleSequences(open map[health.MemberID]map[string]bool, found map[health.MemberID]map[string]string, before, after map[string]string) {
	for _, id := range v.set.View().Followers() {
		m := v.set.members.get(id)
		if m == nil {
			continue // removed just now
		}
		for _, name := range slices.Sorted(maps.Keys(open[id])) {
			if before[name] == after[name] {
				d := difference(m, "sequence "+name, sequenceDiff(name, before[name], found[id][name]))
				d.number = true
				v.numbers = append(v.numbers, d)
				delete(open[id], name)
			}
		}
	}
}

// readSequences reads a member's, again if one is dropped meanwhile.
func (v *verification) readSequences(ctx context.Context, conns map[health.MemberID]*conn, id health.MemberID) (map[string]string, error) {
	m := v.set.members.get(id)
	if m == nil {
		return nil, fmt.Errorf("member %d was removed from the set", id)
	}
	for try := 1; ; try++ {
		c := conns[id]
		if c == nil || c.IsClosed() {
			var err error
			if c, err = m.connect(ctx); err != nil {
				return nil, err
			}
			conns[id] = c
		}
		vals, err := sequenceValues(ctx, c)
		if err == nil || try == 5 || !isMoved(ctx, err) {
			return vals, m.fail("read sequences", err)
		}
	}
}
