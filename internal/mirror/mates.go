package mirror

import (
	"context"
	"errors"
	"strconv"
	"strings"
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

// without leaves this distributor out of a list, under whatever name it is there.
func (s *Set) without(list []mate) []mate {
	var out []mate
	for _, m := range list {
		if idOf(m.ID) != s.id {
			out = append(out, m)
		}
	}
	return out
}

// listing is how this distributor stands on the members' lists: under which name, and for how long
// it lets them write down that it may read unconfirmed.
type listing struct {
	name  string
	lease time.Duration
	n     int       // which of its names that is, from 1
	since time.Time // when it took that
}

// idOf is the id of the distributor that has a name on the lists.
func idOf(name string) string {
	id, _, _ := strings.Cut(name, ".")
	return id
}

// rename takes the next name, by which nothing that is under way can be meant: neither that
// somebody strikes it off, nor that it is to be written down with a shorter lease. The first is the id itself.
func (s *Set) rename() *listing {
	next := &listing{name: s.id, lease: s.cfg.ViewLease, n: 1, since: time.Now()}
	if was := s.listed.Load(); was != nil {
		next.n = was.n + 1
		next.name += "." + strconv.Itoa(next.n)
	}
	if s.others.Load() == 0 {
		next.lease *= aloneLeases
	}
	s.listed.Store(next)
	return next
}

// everywhere runs f for all members at once, each over a connection of the moment,
// and tells which of them succeeded.
func (s *Set) everywhere(ctx context.Context, f func(ctx context.Context, v voter) error) ([]health.MemberID, error) {
	var mu sync.Mutex
	var did []health.MemberID
	var errs []error
	var wg sync.WaitGroup
	for id, m := range s.members.all() { // as they are now: the loop may remove one meanwhile
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
	s.rename()
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
				seen[idOf(m.ID)] = true
			}
		}
	}
	s.others.Store(int32(len(seen)))
}

// deregister takes it off again, when it has stopped.
func (s *Set) deregister() {
	if s.listed.Load() == nil || s.cur == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := s.everywhere(ctx, func(ctx context.Context, c voter) error { return c.dismiss(ctx, []string{s.listed.Load().name}, 1<<62) })
	if err != nil {
		s.log.Debug("not everybody could be told that this distributor has ended", "err", err)
	}
}
