package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
)

// Open opens a set that `pgdist init` has made, and the engine over it. ctx
// bounds opening only.
func Open(ctx context.Context, config Config) (*Engine, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	set, err := mirror.Open(ctx, config.mirror())
	if err != nil {
		return nil, err
	}
	e, err := New(config, mirrorSet{set}, config.places(set.Hosts()), func() error {
		set.Close()
		return nil
	})
	if err != nil {
		set.Close()
		return nil, err
	}
	e.catalog.first(ctx)
	return e, nil
}

// mirror is the part of c that concerns mirroring.
func (c Config) mirror() mirror.Config {
	mc := mirror.Config{Health: c.Health, Logger: c.Logger, BlockedTimeout: c.DDLConflictTimeout, JournalMax: c.JournalMaxSize, JournalMaxAge: c.JournalMaxAge,
		ViewLease: c.ViewLease, MinorityReads: c.MinorityReads != MinorityNever,
		CheckRate: c.CheckRate, AutoResync: !c.NoAutoResync, Notice: c.Notice, Register: c.Register.Mirror()}
	if mc.CheckRate == 0 {
		mc.CheckRate = defaultCheckRate
	}
	mc.CheckRate = max(mc.CheckRate, 0)
	for _, m := range c.Members {
		mc.Members = append(mc.Members, mirror.MemberConfig{Conn: c.mirrorConn(m), Health: m.Health})
	}
	return mc
}

// mirrorConn is how mirroring connects: as its own role if there is one, and
// without the settings that are meant for the clients' sessions.
func (c Config) mirrorConn(m MemberConfig) *pgconn.Config {
	conn := m.Conn.Config.Copy()
	if c.MirrorUser != "" {
		conn.User, conn.Password = c.MirrorUser, c.MirrorPassword
	}
	name := conn.RuntimeParams["application_name"]
	conn.RuntimeParams = map[string]string{}
	if name != "" {
		conn.RuntimeParams["application_name"] = name
	}
	return conn
}

// places tells which of c.Members each member of the set is, given the address
// under which the mirror found it.
func (c Config) places(hosts map[health.MemberID]string) map[health.MemberID]int {
	byID := make(map[health.MemberID]int, len(hosts))
	for id, host := range hosts {
		i := slices.IndexFunc(c.Members, func(m MemberConfig) bool { return hostPort(m.Conn) == host })
		if i >= 0 { // else it was added since the configuration was written: see meetLocked
			byID[id] = i
		}
	}
	return byID
}

// mirrorSet makes the mirroring below satisfy Mirror.
type mirrorSet struct{ set *mirror.Set }

func (m mirrorSet) View() *health.View { return m.set.View() }

func (m mirrorSet) Usable(id health.MemberID) bool { return m.set.Usable(id) }

func (m mirrorSet) Alike(id health.MemberID) bool { return m.set.Alike(id) }

func (m mirrorSet) Evicted(id health.MemberID, pid uint32) bool { return m.set.Evicted(id, pid) }

func (m mirrorSet) Vouch(ctx context.Context, id health.MemberID) error { return m.set.Vouch(ctx, id) }

func (m mirrorSet) Current(ctx context.Context, limit time.Duration) error {
	return m.set.Current(ctx, limit)
}

func (m mirrorSet) Confirmed() bool { return m.set.Confirmed() }

func (m mirrorSet) Changes() int64 { return m.set.Changes() }

func (m mirrorSet) Ack(ctx context.Context, term int64, c Change) error {
	return outward(m.set.Ack(ctx, term, mirror.Change(c)))
}

func (m mirrorSet) Resolve(ctx context.Context, a Attempt) (Outcome, error) {
	committed, err := m.set.Resolve(ctx, mirror.Attempt{
		Conn: a.Conn, PID: a.PID, Started: a.Started, Leader: a.Leader, Term: a.Term, Since: mirror.Place(a.Since), Parts: a.Parts, Last: a.Last,
	})
	switch {
	case err != nil:
		return Unknown, outward(err)
	case committed:
		return Committed, nil
	}
	return RolledBack, nil
}

func (m mirrorSet) Acked() Point { return Point(m.set.Acked()) }

func (m mirrorSet) Report(id health.MemberID, d time.Duration, err error) { m.set.Report(id, d, err) }

func (m mirrorSet) WaitView(ctx context.Context, epoch int64) (*health.View, error) {
	return m.set.WaitView(ctx, epoch)
}

// outward translates the decisions that the engine branches on.
func outward(err error) error {
	switch {
	case errors.Is(err, mirror.ErrTermOver):
		return errors.Join(ErrTermOver, err)
	case errors.Is(err, mirror.ErrInPart):
		return errors.Join(ErrInPart, err)
	case errors.Is(err, mirror.ErrOutcomeUnknown):
		return errors.Join(ErrOutcomeUnknown, err)
	}
	return err
}
