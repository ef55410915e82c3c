package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// ForceOptions say how a set that cannot choose a leader gets one.
type ForceOptions struct {
	// Leader is "host:port" of the member that is to lead; "" takes the one that has the
	// most of what was acknowledged.
	Leader string
	// Accept tells that the operator accepts the loss of data. Without it Force only
	// says what it would do, as an error.
	Accept bool
	// Who is the operator, for the record.
	Who string
	// Report hears what is being done, for people; nil is silent.
	Report func(format string, args ...any)
}

// ErrNotForced: a set was not forced, because that was not asked for, or is not needed.
var ErrNotForced = errors.New("nothing was forced")

// forcedAhead is by how much a forced epoch lies above those that are known: members that
// do not answer may have promised some more.
const forcedAhead = 1 << 20

// Force gives a set a leader against the rules, when the members that the rules ask for
// are lost: what was acknowledged and is on none of the others is gone. Those that do not
// answer are taken off the list, and must be added anew should they come back. It is
// recorded in the view who did it, when and why. Writers that can still reach the lost
// members must be stopped first: no rule keeps them from going on there.
func Force(ctx context.Context, cfg Config, o ForceOptions) (*health.View, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if o.Report == nil {
		o.Report = func(string, ...any) {}
	}
	for try := 1; ; try++ {
		v, err := forceOnce(ctx, cfg, o)
		if !errors.Is(err, errOutbid) || try == forceTries || !sleep(ctx, forcePause) {
			return v, err
		}
		o.Report("%v; once more", err)
	}
}

// Programs that use the set go on proposing views, which may be in the way of one that is forced.
const (
	forceTries = 10
	forcePause = 200 * time.Millisecond
)

// forceOnce is one attempt; its error is errOutbid if somebody else's proposal came in between.
func forceOnce(ctx context.Context, cfg Config, o ForceOptions) (*health.View, error) {
	f := &forcing{cfg: cfg, o: o, found: askAll(ctx, cfg)}
	f.base = newestView(f.found)
	if f.base == nil {
		return nil, &Error{Op: "force", Err: health.ErrNoView, Hint: "no database of the set answers"}
	}
	f.s = &Set{cfg: cfg, log: cfg.Logger, cur: f.base}
	defer f.s.closeRegisters()
	if err := f.s.assign(f.found, f.base); err != nil {
		return nil, err
	}
	if err := f.choose(); err != nil {
		return nil, err
	}
	if !o.Accept {
		return nil, &Error{Op: "force", Err: fmt.Errorf("%w: %s", ErrNotForced, f.plan()), Hint: "if that is what you want, and nobody can reach the others, give --accept-data-loss"}
	}
	return f.run(ctx)
}

// forcing is one such act.
type forcing struct {
	cfg    Config
	o      ForceOptions
	s      *Set
	found  []answerOf
	base   *health.View
	leader *member
	why    string
}

// answering are the members that answered as who they are.
func (f *forcing) answering() map[health.MemberID]*here {
	out := map[health.MemberID]*here{}
	accepted := map[health.MemberID]int64{}
	for _, a := range f.found {
		if a.here != nil && a.here.Set == f.base.Set {
			accepted[health.MemberID(a.here.Member)] = a.here.Accepted
		}
	}
	forgetful := f.base.Forgetful(accepted)
	for _, a := range f.found {
		if a.here == nil || a.here.Set != f.base.Set || slices.Contains(forgetful, health.MemberID(a.here.Member)) {
			continue
		}
		if m, listed := f.base.Member(health.MemberID(a.here.Member)); listed && (m.System == "" || m.System == a.here.Cluster) {
			out[m.ID] = a.here
		}
	}
	return out
}

// choose finds out whether there is need, and who is to lead.
func (f *forcing) choose() error {
	up := f.answering()
	var ids, whole, silent []health.MemberID
	for _, m := range f.base.Members {
		switch {
		case up[m.ID] == nil:
			silent = append(silent, m.ID)
		default:
			ids = append(ids, m.ID)
			if f.base.Has(m.ID) {
				whole = append(whole, m.ID)
			}
		}
	}
	if f.base.Quorum(ids) && len(whole) > 0 {
		return &Error{Op: "force", Err: fmt.Errorf("%w: a majority answers, and %s holds all that was acknowledged", ErrNotForced, f.s.hostOf(whole[0])),
			Hint: "the programs that use the set choose a leader by themselves; see pgdist status"}
	}
	var why []string
	if !f.base.Quorum(ids) {
		why = append(why, fmt.Sprintf("no majority of the votes answered: %s would help", strings.Join(f.hosts(silent), " or ")))
	}
	if len(whole) == 0 {
		why = append(why, fmt.Sprintf("nobody answered who holds all that was acknowledged: %s would help", strings.Join(f.hosts(f.base.InSync), " or ")))
	}
	f.why = strings.Join(why, "; ")
	candidates := whole
	if len(candidates) == 0 {
		candidates = slices.DeleteFunc(slices.Clone(ids), func(id health.MemberID) bool { return isWitness(f.base, id) || up[id].Term == 0 })
	}
	if f.o.Leader != "" {
		candidates = slices.DeleteFunc(slices.Clone(ids), func(id health.MemberID) bool { return f.s.hostOf(id) != f.o.Leader || isWitness(f.base, id) })
	}
	if len(candidates) == 0 {
		return &Error{Op: "force", Host: f.o.Leader, Err: fmt.Errorf("%w: no member that answers can lead", ErrNotForced), Hint: f.why}
	}
	var ranks []health.PositionRank
	for _, id := range candidates {
		r, err := up[id].rank()
		if err != nil {
			return f.s.members.get(id).fail("read its position", err)
		}
		ranks = append(ranks, r)
	}
	best := 0
	for i, r := range ranks {
		if r.Compare(ranks[best]) > 0 {
			best = i
		}
	}
	f.leader = f.s.members.get(candidates[best])
	return nil
}

func (f *forcing) hosts(ids []health.MemberID) []string {
	var out []string
	for _, id := range ids {
		m, _ := f.base.Member(id)
		out = append(out, m.Host)
	}
	return out
}

// plan says what would be done.
func (f *forcing) plan() string {
	up := f.answering()
	var lost []string
	for _, m := range f.base.Members {
		if up[m.ID] == nil {
			lost = append(lost, m.Host)
		}
	}
	loss := "it holds all that was acknowledged under the newest view that is known, but a newer one may exist"
	if !f.base.Has(f.leader.id) {
		loss = fmt.Sprintf("it was not in sync: what was acknowledged after its position, %v, will be lost", up[f.leader.id].place())
	}
	out := fmt.Sprintf("%s. %s would lead; %s", f.why, f.leader.host, loss)
	if len(lost) > 0 {
		out += "; taken off the list: " + strings.Join(lost, ", ")
	}
	return out
}

func (f *forcing) run(ctx context.Context) (*health.View, error) {
	epoch := f.base.Epoch
	for _, h := range f.answering() {
		epoch = max(epoch, h.Epoch, h.Promised)
	}
	epoch += forcedAhead
	f.o.Report("%s", f.plan())
	given := f.promises(ctx, epoch)
	defer closeAll(given)
	next, err := f.view(epoch, given)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(next)
	if err != nil {
		return nil, err
	}
	accepted, outbid, errs := acceptBy(ctx, next, body, given)
	if outbid {
		errs = append(errs, errOutbid)
	}
	for _, a := range given {
		if !slices.Contains(accepted, a.m.id) {
			return nil, &Error{Op: "force", Member: a.m.id, Host: a.m.host, Err: errors.Join(append(errs, errors.New("it did not accept the view"))...), Hint: "run it again"}
		}
	}
	leader := connOf(given, f.leader.id, accepted)
	if _, err := leader.one(ctx, `SELECT pgdist.activate($1::bigint)`, strconv.AppendInt(nil, epoch, 10)); err != nil {
		return nil, f.leader.fail("take office", err)
	}
	f.o.Report("%s leads, in epoch %d; the others that are left catch up", f.leader.host, epoch)
	return next, nil
}

// promises ends what is open on all that answer.
func (f *forcing) promises(ctx context.Context, epoch int64) []answer {
	var mu sync.Mutex
	var given []answer
	var wg sync.WaitGroup
	for id := range f.answering() {
		m := f.s.members.get(id)
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
			defer cancel()
			a := m.promise(ctx, epoch, true)
			if a.err != nil || !a.p.Given {
				a.close()
				f.o.Report("%s gives no promise: %v", m.host, a.err)
				return
			}
			mu.Lock()
			given = append(given, a)
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.SortFunc(given, func(a, b answer) int { return int(a.m.id - b.m.id) })
	return given
}

// view is the one that is forced.
func (f *forcing) view(epoch int64, given []answer) (*health.View, error) {
	next := *f.base
	next.Epoch, next.Term, next.Leader, next.InSync = epoch, epoch, f.leader.id, []health.MemberID{f.leader.id}
	next.LastID, next.Former, next.Members = f.base.NextID()-1, nil, nil
	next.Removed = slices.Clone(f.base.Removed)
	forced := &health.Forced{Epoch: epoch, At: time.Now().UTC().Truncate(time.Second), Who: f.o.Who, Why: f.why, Lost: []string{}}
	for _, m := range f.base.Members {
		if slices.ContainsFunc(given, func(a answer) bool { return a.m.id == m.ID }) {
			next.Members = append(next.Members, m)
			continue
		}
		if m.ID == f.leader.id {
			return nil, &Error{Op: "force", Member: m.ID, Host: f.leader.host, Err: errors.New("it gave no promise"), Hint: "run it again"}
		}
		forced.Lost = append(forced.Lost, m.Host)
		next.Removed = append(next.Removed, m.Host)
	}
	next.Removed = next.Removed[max(0, len(next.Removed)-health.MaxRemoved):]
	next.Forced = forced
	if _, kept := next.Register(); kept {
		return &next, next.Validate() // all votes are where they were
	}
	usual := health.StandardVotes(next.Members)
	for i, m := range next.Members {
		next.Members[i].Weight = usual[m.ID]
	}
	return &next, next.Validate()
}
