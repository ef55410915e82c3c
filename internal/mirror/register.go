package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/register"
)

// RegisterOptions say where a set's register is to be.
type RegisterOptions struct {
	// Address is file:///path or etcd://host:port,host:port/prefix; "" is in the members.
	// Of an etcd the prefix may be missing: it is then the set's own.
	Address string
	// Report hears what is being done, for people; nil is silent.
	Report func(format string, args ...any)
}

// MoveRegister changes where the votes about a set's views are, while programs use it: in a
// file, for the only program of a machine, in etcd, or in the members. The new voter gets all
// votes, or the members get them back, by views that need majorities of both; who voted elsewhere
// than in a database, or for its vote alone, leaves the set then. What was interrupted is gone on with by the
// same call. It returns the view in the end.
func MoveRegister(ctx context.Context, cfg Config, o RegisterOptions) (*health.View, error) {
	if o.Report == nil {
		o.Report = func(string, ...any) {}
	}
	cfg.Brief = true
	s, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	m := &move{s: s, o: o}
	if o.Address == "" {
		err = m.toMembers(ctx)
	} else {
		err = m.elsewhere(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := m.clear(ctx); err != nil {
		return nil, err
	}
	return s.View(), nil
}

// move is one such change.
type move struct {
	s *Set
	o RegisterOptions
}

func (m *move) refuse(hint, format string, args ...any) error {
	return &Error{Op: "register", Host: m.o.Address, Err: fmt.Errorf(format, args...), Hint: hint}
}

// elsewhere gives all votes to the register at the address.
func (m *move) elsewhere(ctx context.Context) error {
	v := m.s.View()
	address := prefixed(m.o.Address, v.Set)
	if r, there := v.Register(); there && r.Host == address {
		return nil
	}
	if register.IsFile(address) {
		if err := m.alone(ctx); err != nil {
			return err
		}
	}
	if me := seat(v, address); me != 0 { // it has some of the votes
		return m.s.relist(ctx, MemberConfig{Register: address}, func(v *health.View) (health.Intent, bool, error) {
			return health.Intent{Votes: allFor(v, me)}, false, nil
		})
	}
	me, err := m.s.newRegister(ctx, address)
	if err != nil {
		return err
	}
	m.o.Report("the votes move to %s", address)
	return m.s.relist(ctx, MemberConfig{Register: address}, func(v *health.View) (health.Intent, bool, error) {
		if seat(v, address) != 0 {
			return health.Intent{}, true, nil
		}
		if v.NextID() != me.ID {
			return health.Intent{}, false, m.refuse("run it again", "another member was added meanwhile")
		}
		return health.Intent{Add: &me, Votes: allFor(v, me.ID)}, false, nil
	})
}

// allFor are votes of which one member has all.
func allFor(v *health.View, id health.MemberID) map[health.MemberID]int {
	out := map[health.MemberID]int{id: 1}
	for _, m := range v.Members {
		if m.ID != id {
			out[m.ID] = 0
		}
	}
	return out
}

// toMembers gives the votes back to the databases, as is usual among these.
func (m *move) toMembers(ctx context.Context) error {
	v := m.s.View()
	if !slices.ContainsFunc(v.Members, health.Member.Register) {
		return nil
	}
	m.o.Report("the votes move to the databases")
	return m.s.relist(ctx, MemberConfig{}, func(v *health.View) (health.Intent, bool, error) {
		i := slices.IndexFunc(v.Members, health.Member.Register)
		if i < 0 {
			return health.Intent{}, true, nil
		}
		rest := slices.DeleteFunc(slices.Clone(v.Members), health.Member.Register)
		in := health.Intent{Remove: v.Members[i].ID, Votes: health.StandardVotes(rest)}
		for _, other := range v.Members[i+1:] {
			if other.Register() {
				in.Votes[other.ID] = 0
			}
		}
		return in, false, nil
	})
}

// clear takes voters off the list that have no vote any more and hold no data, and ends
// what they keep.
func (m *move) clear(ctx context.Context) error {
	before := m.s.View()
	for {
		useless := func(v *health.View) (health.Member, bool) {
			i := slices.IndexFunc(v.Members, func(k health.Member) bool { return k.Witness && k.Weight == 0 })
			if i < 0 {
				return health.Member{}, false
			}
			return v.Members[i], true
		}
		gone, there := useless(m.s.View())
		if !there {
			break
		}
		m.o.Report("%s has no vote any more and leaves the set", gone.Host)
		err := m.s.relist(ctx, MemberConfig{}, func(v *health.View) (health.Intent, bool, error) {
			k, there := useless(v)
			return health.Intent{Remove: k.ID}, !there, nil
		})
		if err != nil {
			return err
		}
	}
	return m.erase(ctx, before)
}

// erase ends the registers that are on no list any more: that before, or the removed ones'.
func (m *move) erase(ctx context.Context, before *health.View) error {
	v := m.s.View()
	for _, host := range append(slices.Clone(v.Removed), hostsOf(before.Members)...) {
		if !register.Is(host) || seat(v, host) != 0 {
			continue
		}
		r := m.s.cfg.open(host)
		err := endRegister(ctx, r, v.Set)
		if e := r.Close(); err == nil {
			err = e
		}
		if err != nil {
			m.o.Report("%s, which is the set's register no more, could not be removed: %v", host, err)
		}
	}
	return nil
}

func hostsOf(members []health.Member) []string {
	var out []string
	for _, m := range members {
		out = append(out, m.Host)
	}
	return out
}

// endRegister removes a register, if it is of this set.
func endRegister(ctx context.Context, r *register.Register, set string) error {
	st, err := r.Look(ctx)
	if errors.Is(err, register.ErrMissing) || err == nil && st.Set != set {
		return nil
	}
	if err != nil {
		return err
	}
	return r.Remove(ctx)
}

// alone refuses a file while the set is used by more than one program, or from elsewhere.
func (m *move) alone(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	var others, away []string
	seen := map[string]bool{}
	for _, a := range askAll(ctx, m.s.cfg) {
		if a.here == nil {
			continue
		}
		for _, p := range m.s.without(a.here.Mates) {
			if seen[idOf(p.ID)] { // it may be on the lists under two names, for a moment
				continue
			}
			seen[idOf(p.ID)] = true
			others = append(others, p.Name)
			if !strings.Contains(p.Name, " at "+host+", process ") {
				away = append(away, p.Name)
			}
		}
	}
	const hint = "a file serves one program, on the machine where the file is: end the others, or keep the register in etcd"
	if len(away) > 0 {
		return m.refuse(hint, "the set is used from other machines: %s", strings.Join(away, "; "))
	}
	if len(others) > 1 {
		return m.refuse(hint, "the set is used by several programs: %s", strings.Join(others, "; "))
	}
	return nil
}

// prefixed gives an etcd's address the set's own prefix, if it has none.
func prefixed(address, set string) string {
	if rest, is := strings.CutPrefix(address, "etcd://"); is && !strings.Contains(strings.TrimSuffix(rest, "/"), "/") {
		return strings.TrimSuffix(address, "/") + "/pgdist/" + set
	}
	return address
}

// newRegister makes a register that has promised nothing, or takes the one that an attempt
// before has made, and returns it as the member that it is to be.
func (s *Set) newRegister(ctx context.Context, address string) (health.Member, error) {
	v := s.View()
	st := register.State{Set: v.Set, Member: int(v.NextID()), ID: uuid.NewString()}
	r := s.cfg.open(address)
	err := r.Create(ctx, st)
	if errors.Is(err, register.ErrExists) {
		var had *register.State
		had, err = r.Look(ctx)
		switch {
		case err != nil:
		case had.Set != st.Set:
			err = fmt.Errorf("it is the register of another set, %s", had.Set)
		case had.Member != st.Member:
			err = fmt.Errorf("it was the set's register before, as its member %d, and what it has promised then counts no more: remove it by hand, or name another place", had.Member)
		default:
			st = *had
		}
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return health.Member{}, &Error{Op: "register", Host: address, Err: err}
	}
	return health.Member{ID: health.MemberID(st.Member), Host: address, System: st.ID, Witness: true}, nil
}
