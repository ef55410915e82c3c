package mirror

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/pgdist/pgdist/health"
)

// A program that opens a set ships all sequences and shared objects, for it does not know what
// followers hold. So a comparison finds them equal, and nobody would hear that they were not.

const (
	// beforeLooks is how often what differs must be found, as it was, to be told: programs
	// that use the set ship what has changed meanwhile.
	beforeLooks = 5
	beforePause = 250 * time.Millisecond
)

// Beforehand tells, before a set is opened to be compared, what opening it will put right without a
// word: where sequences stand, roles and what else no event trigger tells of. It changes nothing,
// and tells nothing where it cannot look.
func Beforehand(ctx context.Context, cfg Config) []Difference {
	cfg = cfg.withDefaults()
	if cfg.Validate() != nil {
		return nil // who opens the set hears why
	}
	found, conns := askOpen(ctx, cfg)
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	v := newestView(found)
	if v == nil {
		return nil
	}
	at := map[health.MemberID]int{}
	for i, a := range found {
		if a.here != nil && a.here.Set == v.Set && conns[i] != nil && v.Has(health.MemberID(a.here.Member)) {
			at[health.MemberID(a.here.Member)] = i
		}
	}
	lead, ok := at[v.Leader]
	if !ok || !found[lead].here.Leads {
		return nil // another one will lead
	}
	var before map[string]Difference
	for look := range beforeLooks {
		if look > 0 && !sleep(ctx, beforePause) {
			return nil
		}
		now := map[string]Difference{}
		for _, id := range v.Followers() {
			i, ok := at[id]
			if !ok {
				continue
			}
			m := &member{id: id, host: found[i].cfg.Host()}
			list, err := unlikeLeader(ctx, conns[lead], conns[i], m)
			if err != nil {
				return nil
			}
			for _, d := range list {
				if _, seen := before[d.Host+d.What]; seen || look == 0 {
					now[d.Host+d.What] = d
				}
			}
		}
		if before = now; len(now) == 0 {
			return nil
		}
	}
	behind := map[health.MemberID]bool{}
	for _, id := range v.Followers() {
		if i, ok := at[id]; ok {
			behind[id] = waits(ctx, conns[lead], conns[i], found[i].here)
		}
	}
	var out []Difference
	for _, what := range slices.Sorted(maps.Keys(before)) {
		if d := before[what]; !behind[d.Member] {
			out = append(out, d)
		}
	}
	return out
}

// waits tells whether a follower lacks transactions that nobody ships: then it is as it should be, and
// what else it lacks comes with them.
func waits(ctx context.Context, lead, other *conn, was *here) bool {
	is, err := other.where(ctx)
	if err != nil || is.place() != was.place() || is.Tick != was.Tick {
		return err != nil
	}
	n, err := lead.one(ctx, `SELECT count(*) FROM (SELECT FROM pgdist.fresh($1::text::bigint, $2::pg_snapshot) LIMIT 1) x`, strconv.AppendInt(nil, is.place().Term, 10), nullable(is.place().Snapshot))
	return err != nil || n != "0"
}

// unlikeLeader lists in what a follower is not as the leader of what each flush makes so.
func unlikeLeader(ctx context.Context, lead, other *conn, m *member) ([]Difference, error) {
	want, err := sequenceValues(ctx, lead)
	if err != nil {
		return nil, err
	}
	have, err := sequenceValues(ctx, other)
	if err != nil {
		return nil, err
	}
	still, err := sequenceValues(ctx, lead)
	if err != nil {
		return nil, err
	}
	shared, err := diffShared(ctx, lead, other, floorOf([]int{lead.major(), other.major()}))
	if err != nil {
		return nil, err
	}
	var out []Difference
	for _, d := range shared {
		out = append(out, difference(m, d.name, d.String()))
	}
	for name, is := range have {
		if was, ok := want[name]; ok && was == still[name] && was != is {
			out = append(out, difference(m, "sequence "+name, sequenceDiff(name, was, is)))
		}
	}
	return out, nil
}
