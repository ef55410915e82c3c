package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/register"
)

// A register in a file or in etcd is a member of the set that has a vote and no database: a
// witness that is asked otherwise. It is known by its address, which is no "host:port".

// elsewhere is the vote of such a member.
type elsewhere struct{ m *member }

// close does nothing: the member's register stays open as long as the member is known.
func (e elsewhere) close() {}

// ours is the register, once this program has it for itself where that is needed.
func (e elsewhere) ours(ctx context.Context) (*register.Register, error) {
	if e.m.claims != "" {
		if err := e.m.register.Hold(ctx, e.m.claims); err != nil {
			return nil, err
		}
	}
	return e.m.register, nil
}

func (e elsewhere) where(ctx context.Context) (*here, error) {
	s, err := e.m.register.Look(ctx)
	if err != nil {
		return nil, err
	}
	return hereOf(s)
}

// hereOf says of a register what a witness says of itself.
func hereOf(s *register.State) (*here, error) {
	h := &here{Version: Version, Set: s.Set, Member: s.Member, System: s.ID, Cluster: s.ID, Epoch: s.Promised, Promised: s.Promised, Accepted: s.Accepted}
	if s.View != nil {
		if err := json.Unmarshal(s.View, &h.View); err != nil {
			return nil, fmt.Errorf("the view that the register has accepted: %w", err)
		}
	}
	for _, p := range s.Programs {
		h.Mates = append(h.Mates, mate{ID: p.ID, Name: p.Name, Epoch: p.Epoch, Lease: p.Lease.Seconds(), Since: p.Since})
	}
	return h, nil
}

func (e elsewhere) promise(ctx context.Context, epoch int64, _ bool) (a promiseAnswer, err error) {
	r, err := e.ours(ctx)
	if err != nil {
		return a, err
	}
	given, s, err := r.Promise(ctx, epoch)
	if err != nil {
		return a, err
	}
	h, err := hereOf(s)
	if err != nil {
		return a, err
	}
	return promiseAnswer{Given: given, Fenced: true, here: *h}, nil // nobody writes there anyway
}

func (e elsewhere) accept(ctx context.Context, epoch int64, view []byte) (bool, error) {
	r, err := e.ours(ctx)
	if err != nil {
		return false, err
	}
	return r.Accept(ctx, epoch, view)
}

func (e elsewhere) confirm(ctx context.Context, who caller, look bool) (a confirmation, err error) {
	r, err := e.ours(ctx)
	if err != nil {
		return a, err
	}
	s, known, alive, err := r.Confirm(ctx, who.program(), look)
	if err != nil {
		return a, err
	}
	a = confirmation{Promised: s.Promised, Accepted: s.Accepted, Known: known, Alive: alive}
	for _, p := range s.Programs {
		if p.ID != who.id {
			a.Others = append(a.Others, mate{ID: p.ID, Name: p.Name, Epoch: p.Epoch, Lease: p.Lease.Seconds(), Since: p.Since})
		}
	}
	return a, nil
}

func (w caller) program() register.Program {
	return register.Program{ID: w.id, Name: w.name, Epoch: w.epoch, Lease: w.lease}
}

func (e elsewhere) enrol(ctx context.Context, who caller) error {
	r, err := e.ours(ctx)
	if err != nil {
		return err
	}
	return r.Enrol(ctx, who.program())
}

func (e elsewhere) dismiss(ctx context.Context, ids []string, epoch int64) error {
	return e.m.register.Dismiss(ctx, ids, epoch)
}

// open prepares the register at this address, or where the configuration says that it is by
// now. An address that cannot be used is told of whenever the register is asked.
func (c Config) open(address string) *register.Register {
	if !register.IsFile(address) && c.Register.Address != "" {
		address = c.Register.Address
	}
	r, err := register.Open(address, c.Register.Config)
	if err != nil {
		return register.Broken(address, err)
	}
	return r
}

// claim refuses to open a set whose register decides alone and cannot be used here: it is of
// another machine, was put back from a backup, or another program has it.
func (s *Set) claim(ctx context.Context, v *health.View) error {
	r, decides := v.Register()
	if !decides {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	e := elsewhere{s.members.get(r.ID)}
	_, err := e.ours(ctx)
	var h *here
	if err == nil {
		h, err = e.where(ctx)
	}
	if err != nil {
		return &Error{Op: "open the set", Err: causeOf(ctx, err)}
	}
	if h.Set != v.Set || h.Member != int(r.ID) || h.Cluster != r.System {
		return &Error{Op: "open the set", Host: r.Host, Err: fmt.Errorf("it is the register %d of set %s (%s), not %d of set %s (%s)", h.Member, h.Set, h.Cluster, r.ID, v.Set, r.System),
			Hint: "put the set's own register back; if it is lost, run: pgdist force DSN"}
	}
	return nil
}

// lookAt asks a register once.
func (c Config) lookAt(ctx context.Context, address string) (*here, error) {
	r := c.open(address)
	s, err := r.Look(ctx)
	err = errors.Join(causeOf(ctx, err), r.Close())
	if err != nil {
		return nil, err
	}
	return hereOf(s)
}

// closeRegister gives up what is held of a member's register.
func (s *Set) closeRegister(m *member) {
	if m.register == nil {
		return
	}
	if err := m.register.Close(); err != nil {
		s.log.Warn("a register could not be given up in order", "register", m.host, "err", err)
	}
}

// closeRegisters is that for a set that was never opened.
func (s *Set) closeRegisters() {
	for _, m := range s.members.all() {
		s.closeRegister(m)
	}
}

// configured is how the member is connected to.
func (m *member) configured() MemberConfig {
	if m.register != nil {
		return MemberConfig{Register: m.host}
	}
	return MemberConfig{Conn: m.cfg}
}

// isRegister tells of a voter that is no database.
func isRegister(m MemberConfig) bool { return m.Register != "" }
