package mirror

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// Several distributors may use a set at once: programs with the driver, gateways.
// They do not talk to each other. What they must know of each other stands in a
// small table of every member.

// mate is a distributor on that list, other than this one.
type mate struct {
	ID    string    `json:"id"`
	Name  string    `json:"name"`
	Epoch int64     `json:"epoch"` // of the view that it serves by
	Lease float64   `json:"lease"` // in seconds: how long it may do so unconfirmed
	Since time.Time `json:"since"`
}

func (m mate) lease() time.Duration { return time.Duration(m.Lease * float64(time.Second)) }

// app is the application_name of this distributor's own connections.
func (s *Set) app() string {
	if s.id == "" {
		return ""
	}
	return "pgdist " + s.id
}

// without leaves this distributor out of a list.
func (s *Set) without(list []mate) []mate {
	var out []mate
	for _, m := range list {
		if m.ID != s.id {
			out = append(out, m)
		}
	}
	return out
}

// everywhere runs f for all members at once, each over a connection of the moment,
// and tells which of them succeeded.
func (s *Set) everywhere(ctx context.Context, f func(ctx context.Context, v voter) error) ([]health.MemberID, error) {
	var mu sync.Mutex
	var did []health.MemberID
	var errs []error
	var wg sync.WaitGroup
	for _, id := range s.sortedIDs() {
		m := s.members.get(id)
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, m.health.ProbeTimeout, health.ErrTimeout)
			defer cancel()
			c, err := m.voter(ctx)
			if err == nil {
				err = m.fail("ask", causeOf(ctx, f(ctx, c)))
				c.close()
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				did = append(did, id)
			}
		})
	}
	wg.Wait()
	return did, errors.Join(errs...)
}

// register puts this distributor on the list of a majority: whoever changes the view
// from then on knows of it.
func (s *Set) register(ctx context.Context, v *health.View) error {
	if s.id == "" {
		s.drained.Store(1 << 62)
		return nil
	}
	did, err := s.everywhere(ctx, func(ctx context.Context, c voter) error { return c.enrol(ctx, s.as(v.Epoch)) })
	if !v.Quorum(did) {
		return &Error{Op: "open the set", Err: errors.Join(ErrNoMajority, err), Hint: "bring the members that do not answer back"}
	}
	return nil
}

// meetMates notes whom the members know of when the set is opened.
func (s *Set) meetMates(found []answerOf) {
	seen := map[string]bool{}
	for _, a := range found {
		if a.here != nil {
			for _, m := range s.without(a.here.Mates) {
				seen[m.ID] = true
			}
		}
	}
	s.others.Store(int32(len(seen)))
}

// deregister takes it off again, when it has stopped.
func (s *Set) deregister() {
	if s.id == "" || s.cur == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := s.everywhere(ctx, func(ctx context.Context, c voter) error { return c.dismiss(ctx, []string{s.id}, 1<<62) })
	if err != nil {
		s.log.Debug("not everybody could be told that this distributor has ended", "err", err)
	}
}
