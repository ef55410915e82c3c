package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// renew has a view chosen without the target's promise. Whatever the target promised
// or accepted before, a majority that it is no part of knows of it or has passed it:
// the view chosen here is what its new register begins with.
func (r *resync) renew(ctx context.Context, in health.Intent) (*health.View, error) {
	epoch := r.view.Epoch + 1
	var last error
	for try := range 30 {
		next, higher, err := r.propose(ctx, epoch, in, try < 10)
		if err == nil {
			r.view, r.s.cur = next, next
			return next, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		last = err
		epoch = max(epoch, higher) + 1
		select { // the program that uses the set has one chosen at the same time
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Duration(20+37*try%200) * time.Millisecond):
		}
	}
	return nil, &Error{Op: "have a view chosen", Err: last, Hint: "a majority of the other members must answer"}
}

// errUnsettled: the members that answered would choose another leader, or leave one out.
var errUnsettled = errors.New("the set is changing")

func (r *resync) propose(ctx context.Context, epoch int64, in health.Intent, gently bool) (*health.View, int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, changeTimeout, health.ErrTimeout)
	defer cancel()
	answers := r.promises(ctx, epoch)
	defer closeAll(answers)
	var given []health.Promise
	higher := epoch
	var errs []error
	for i, a := range answers {
		if a.err == nil && !a.p.Given {
			higher = max(higher, a.p.refusedAt())
			if a.p.View != nil && a.p.View.Epoch > r.view.Epoch { // who leads now, for the next try
				r.view, r.s.cur = a.p.View, a.p.View
			}
			continue
		}
		p, err := health.Promise{}, a.err
		if err == nil {
			p, err = a.promise(epoch, r.view)
		}
		if answers[i].err = err; err != nil {
			errs = append(errs, err)
		} else {
			given = append(given, p)
		}
	}
	if higher > epoch {
		return nil, higher, errUnsettled
	}
	next, err := health.Next(epoch, given, in)
	if err != nil {
		return nil, higher, errors.Join(append(errs, err)...)
	}
	if next.Term == epoch || next.Leader == r.target.id {
		return nil, higher, errUnsettled // an election is the program's to hold
	}
	if missing := len(r.view.InSync) - len(next.InSync); gently && missing > len(in.Exclude) {
		return nil, higher, errUnsettled
	}
	for i := range next.Members {
		if next.Members[i].ID == r.target.id && r.system != "" {
			next.Members[i].System = r.system
		}
	}
	body, err := json.Marshal(next)
	if err != nil {
		return nil, higher, err
	}
	if accepted, _, _ := acceptBy(ctx, next, body, answers); !next.Quorum(accepted) || !next.Borne(accepted) {
		return nil, higher, errUnsettled
	}
	return next, higher, nil
}

// promises asks all but the target, at once: the program that uses the set answers a
// promise that it hears of with an epoch of its own, and must find this one's view.
func (r *resync) promises(ctx context.Context, epoch int64) []answer {
	out := make([]answer, 0, len(r.s.members.all()))
	for _, id := range r.s.sortedIDs() {
		if id != r.target.id {
			out = append(out, answer{m: r.s.members.get(id)})
		}
	}
	var wg sync.WaitGroup
	for i, a := range out {
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, a.m.health.ProbeTimeout, health.ErrTimeout)
			defer cancel()
			out[i] = a.m.promise(ctx, epoch, a.m.id != r.view.Leader)
		})
	}
	wg.Wait()
	return out
}
