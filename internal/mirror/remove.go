package mirror

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pgdist/pgdist/health"
)

// RemoveOptions say which member leaves a set, and how.
type RemoveOptions struct {
	// Host is the member's address, as status has it.
	Host string
	// Wait is how long open transactions are waited for, if it is the leader; 0 ends them.
	Wait time.Duration
	// Keep leaves schema pgdist in its database.
	Keep bool
	// Report hears what is being done, for people; nil is silent.
	Report func(format string, args ...any)
}

// Remove takes a member off the set's list, while programs use the set: another one leads
// first, if it is the leader. Its data stays where it is; schema pgdist is removed from it
// if it can be reached. A number is never used again: if the same database is to be a member
// once more, it is added anew. It returns the view in the end.
func Remove(ctx context.Context, cfg Config, o RemoveOptions) (*health.View, error) {
	if o.Report == nil {
		o.Report = func(string, ...any) {}
	}
	cfg.Brief = true
	set, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	refuse := func(err error, hint string) (*health.View, error) {
		return nil, &Error{Op: "remove", Host: o.Host, Err: err, Hint: hint}
	}
	find := func(v *health.View) (health.Member, bool) {
		i := slices.IndexFunc(v.Members, func(m health.Member) bool {
			k := set.members.get(m.ID)
			return m.Host == o.Host || k != nil && k.host == o.Host
		})
		if i < 0 {
			return health.Member{}, false
		}
		return v.Members[i], true
	}
	v := set.View()
	me, listed := find(v)
	if !listed {
		return refuse(errors.New("no member has this address"), "the members are "+hostList(v))
	}
	mc := set.cfg.at(me.Host)
	if k := set.members.get(me.ID); k != nil {
		mc = k.configured()
	}
	if r, decides := v.Register(); decides && r.ID == me.ID {
		return refuse(errors.New("it has all votes"), "give them back, which removes it: pgdist register DSN --members")
	}
	if slices.Equal(v.InSync, []health.MemberID{me.ID}) {
		return refuse(health.ErrLastMember, "bring another member in sync first; to end the set, run: pgdist uninstall DSN")
	}
	if v.Leader == me.ID {
		o.Report("%s leads; another member is to lead first", o.Host)
		if v, err = set.Switchover(ctx, "", o.Wait); err != nil {
			return nil, err
		}
	}
	err = set.relist(ctx, MemberConfig{}, func(v *health.View) (health.Intent, bool, error) {
		m, listed := find(v)
		if !listed {
			return health.Intent{}, true, nil
		}
		if m.ID == v.Leader {
			return health.Intent{}, false, &Error{Op: "remove", Host: o.Host, Err: errors.New("it has come to lead again"), Hint: "run it again"}
		}
		rest := slices.DeleteFunc(slices.Clone(v.Members), func(x health.Member) bool { return x.ID == m.ID })
		return health.Intent{Remove: m.ID, Votes: votesWithout(v.Members, rest)}, false, nil
	})
	if err != nil {
		return nil, err
	}
	o.Report("%s is no member any more", o.Host)
	if !o.Keep {
		if err := set.cfg.uninstall(ctx, []MemberConfig{mc}, o.Report); err != nil {
			o.Report("schema pgdist could not be removed from it: %v", err)
		}
	}
	return set.View(), nil
}

// votesWithout are the votes of those that stay: the usual ones, if those before had
// these, else each keeps his.
func votesWithout(before, rest []health.Member) map[health.MemberID]int {
	voting := func(list []health.Member) []health.Member {
		return slices.DeleteFunc(slices.Clone(list), func(m health.Member) bool { return m.Weight == 0 })
	}
	before, rest = voting(before), voting(rest)
	usual := health.StandardVotes(before)
	for _, m := range before {
		if m.Weight != usual[m.ID] {
			return nil
		}
	}
	return health.StandardVotes(rest)
}
