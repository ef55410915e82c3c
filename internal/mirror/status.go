package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pgdist/pgdist/health"
)

// MemberStatus is what can be said of one member.
type MemberStatus struct {
	ID     health.MemberID `json:"id"`
	Host   string          `json:"host"`
	Role   string          `json:"role"` // leader, follower, witness
	Votes  int             `json:"votes"`
	InSync bool            `json:"in_sync"`
	// State is what the member is doing: see [State]. Asked from outside, only that it is
	// being copied can be told.
	State string `json:"state,omitempty"`
	Epoch int64  `json:"epoch"`
	Place string `json:"position"`
	// LagTransactions counts journaled transactions of the leader that the
	// member lacks; -1 if it cannot be told.
	LagTransactions int64 `json:"lag_transactions"`
	// LagSeconds is how long ago the member was last brought up to date, if it
	// lacks anything; 0 if not.
	LagSeconds float64 `json:"lag_seconds"`
	// Breaker is closed, half-open or open.
	Breaker string `json:"breaker,omitempty"`
	// Error is the last thing that went wrong; "" if nothing did.
	Error string `json:"error,omitempty"`
}

// Status is the set as a whole.
type Status struct {
	View    *health.View   `json:"view"`
	Members []MemberStatus `json:"members"`
	// Programs are those that use the set, as the members know of them. One that ended
	// without saying so stays for some seconds, or until another one looks.
	Programs []Program `json:"programs"`
	// Journal is nil if it is not known.
	Journal *JournalStatus `json:"journal"`
	// Check is how the comparison in the background goes; nil if it is not known.
	Check *CheckStatus `json:"check,omitempty"`
}

// Program is a distributor: a Go program with the driver, a gateway.
type Program struct {
	Name  string    `json:"name"`
	Epoch int64     `json:"epoch"` // of the view that it goes by
	Since time.Time `json:"since"`
}

// programs joins what the members know.
func programs(found []answerOf) []Program {
	seen := map[string]mate{}
	for _, a := range found {
		if a.here == nil {
			continue
		}
		for _, m := range a.here.Mates {
			id := idOf(m.ID) // it may have two names for a moment
			if had, ok := seen[id]; ok {
				since := had.Since
				if m.Since.Before(since) {
					since = m.Since
				}
				if m.Epoch < had.Epoch {
					m = had
				}
				m.Since = since
			}
			seen[id] = m
		}
	}
	out := make([]Program, 0, len(seen))
	for _, m := range seen {
		out = append(out, Program{m.Name, m.Epoch, m.Since})
	}
	slices.SortFunc(out, func(a, b Program) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name)) })
	return out
}

// Inspect looks at the databases of a set from outside, changing nothing: it
// takes part in no view and feeds no breaker.
func Inspect(ctx context.Context, cfg Config) (*Status, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	found, conns := askOpen(ctx, cfg)
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	v := newestView(found)
	if v == nil {
		var errs []error
		for _, a := range found {
			e := &Error{Op: "look at the set", Host: a.cfg.Host(), Err: a.err}
			if errors.Is(a.err, ErrNotInstalled) {
				e.Hint = initHint(found)
			} else {
				e.Hint = connectHint(a.err, a.cfg)
			}
			errs = append(errs, e)
		}
		return nil, errors.Join(errs...)
	}
	s := &Set{cfg: cfg, log: cfg.Logger}
	defer s.closeRegisters()
	if err := s.assign(found, v); err != nil {
		return nil, err
	}
	return describe(ctx, s, v, found, conns), nil
}

func describe(ctx context.Context, s *Set, v *health.View, found []answerOf, conns []*conn) *Status {
	out := &Status{View: v, Programs: programs(found)}
	var lead *conn
	for i, a := range found {
		if a.here != nil && health.MemberID(a.here.Member) == v.Leader {
			lead = conns[i]
		}
	}
	for _, id := range s.sortedIDs() {
		m := s.members.get(id)
		ms := MemberStatus{ID: id, Host: m.host, Role: "follower", InSync: v.Has(id), LagTransactions: -1, Votes: votesOf(v, id)}
		switch {
		case id == v.Leader:
			ms.Role = "leader"
		case isWitness(v, id):
			ms.Role = "witness"
		}
		for _, a := range found {
			if a.cfg.Host() != m.host {
				continue
			}
			if a.err != nil {
				ms.Error = a.err.Error()
				if a.vacant(v) {
					if ms.State = m.copying(ctx); ms.State == "" {
						ms.Error += " (" + resyncHint(m.host) + ")"
						if why := keptOut(ctx, lead, id); why != "" {
							ms.Error += ": " + why
						}
					} else {
						ms.Error += " (" + ms.State + ")"
					}
				}
				continue
			}
			ms.Epoch, ms.Place = a.here.Epoch, a.here.place().String()
			if err := wrongVersion("look at the set", m.host, a.here.Version); err != nil {
				ms.Error = err.Error()
			}
			if isWitness(v, id) {
				ms.Place, ms.LagTransactions = "", 0
				continue
			}
			ms.lag(ctx, lead, a.here, v)
			if !ms.InSync && ms.Error == "" {
				if err := strayed(ctx, lead, a.here, v); err != nil {
					ms.Error = err.Error() + " (" + resyncHint(m.host) + ")"
				}
			}
			if !ms.InSync && ms.Error == "" {
				ms.Error = keptOut(ctx, lead, id)
			}
			switch {
			case a.here.Amiss == "" || ms.Error != "":
			case a.here.Amiss == leftForLater:
				ms.Error = "tables that changed while they were read are still to come"
			default:
				ms.Error = "it differs from the leader, and is to be put right: " + a.here.Amiss
			}
			if a.here.Unfilled != "" && ms.Error == "" {
				ms.Error = "materialized views without data: " + a.here.Unfilled
			}
		}
		out.Members = append(out.Members, ms)
	}
	out.Journal = s.journalFrom(ctx, lead, v)
	out.Check = checkFrom(ctx, lead)
	return out
}

// resyncHint says how a member comes back that cannot by itself.
func resyncHint(host string) string { return "run: pgdist resync DSN --member " + host }

// strayed tells why a member cannot come back row by row; nil if it can, or if that
// cannot be told. (DDL of its own that is to be undone only the program finds.)
func strayed(ctx context.Context, lead *conn, h *here, v *health.View) error {
	if want, ok := v.Member(health.MemberID(h.Member)); ok && want.System != h.Cluster {
		return fmt.Errorf("%w: system %s instead of %s", errStranger, h.Cluster, want.System)
	}
	if lead == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	l, err := lead.where(ctx)
	if err != nil {
		return nil //nolint:nilerr // the leader's own line tells
	}
	met, err := meet(h, l)
	if err == nil {
		err = complete("the leader's", l.floor(), met.mine)
	}
	if err == nil && h.Term != l.Term {
		err = complete("its own", h.floor(), met.lead)
	}
	return err
}

// keptOut tells what a program found that tried to take a member back; "" if nobody has, lately.
func keptOut(ctx context.Context, lead *conn, id health.MemberID) string {
	if lead == nil {
		return ""
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	why, err := lead.one(ctx, `SELECT pgdist.keeping_out($1::text::int)`, strconv.AppendInt(nil, int64(id), 10))
	if err != nil {
		return "" // a schema of another version, which the members' errors tell
	}
	return why
}

// journalFrom asks the leader about its journal; nil if it does not tell.
func (s *Set) journalFrom(ctx context.Context, lead *conn, v *health.View) *JournalStatus {
	if lead == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	var away []string
	for _, id := range s.sortedIDs() {
		if !v.Has(id) && !isWitness(v, id) {
			away = append(away, s.hostOf(id)+" (not in sync)")
		}
	}
	j, err := s.cfg.journal(ctx, lead, away)
	if err != nil {
		return nil // a schema of another version, which the members' errors tell
	}
	return j
}

// checkFrom asks the leader how the comparison goes; nil if it does not tell.
func checkFrom(ctx context.Context, lead *conn) *CheckStatus {
	if lead == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	c, err := lead.checked(ctx)
	if err != nil {
		return nil // as above
	}
	return c
}

// lag asks the leader how much a member at h lacks.
func (ms *MemberStatus) lag(ctx context.Context, lead *conn, h *here, v *health.View) {
	if ms.ID == v.Leader {
		ms.LagTransactions = 0
		return
	}
	if lead == nil {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	n, err := lead.one(ctx, `SELECT count(DISTINCT (j.term, j.xid)) FROM pgdist.fresh($1::bigint, $2::pg_snapshot) j`,
		strconv.AppendInt(nil, h.Term, 10), nullable(h.Snap))
	if err == nil {
		ms.LagTransactions, err = strconv.ParseInt(n, 10, 64)
	}
	if err != nil {
		ms.Error = err.Error()
	}
	if ms.LagTransactions > 0 {
		ms.LagSeconds = h.At
	}
}

// Status tells what this process knows, without asking the databases.
func (s *Set) Status() *Status {
	v, board := s.View(), s.Health()
	out := &Status{View: v, Journal: s.journal.Load()}
	for _, id := range s.sortedIDs() {
		m := s.members.get(id)
		ms := MemberStatus{ID: id, Host: m.host, Role: "follower", InSync: v.Has(id), Epoch: v.Epoch, Votes: votesOf(v, id)}
		switch {
		case id == v.Leader:
			ms.Role = "leader"
		case isWitness(v, id):
			ms.Role = "witness"
		}
		if n := m.note.Load(); n != nil {
			ms.State = n.String()
			if n.Err != nil {
				ms.Error = n.Err.Error()
			}
			if !ms.InSync {
				ms.LagSeconds = time.Since(n.At).Seconds()
			}
		}
		if b, ok := board.Member(id); ok {
			ms.Breaker = b.State.String()
			if ms.Error == "" && b.LastError != nil {
				ms.Error = b.LastError.Error()
			}
		}
		out.Members = append(out.Members, ms)
	}
	return out
}

func votesOf(v *health.View, id health.MemberID) int {
	m, _ := v.Member(id)
	return m.Weight
}
