package mirror

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/pgdist/pgdist/health"
)

// voter is whoever has a vote about views, as it is asked: a database of the set or a
// witness, by the functions of schema pgdist, or a register in a file or in etcd. A voter is
// closed by whoever it was given to, once.
type voter interface {
	// where tells what it has promised and accepted.
	where(ctx context.Context) (*here, error)
	// promise asks it to accept no view of an epoch before this one; hard has it end
	// whoever writes there.
	promise(ctx context.Context, epoch int64, hard bool) (promiseAnswer, error)
	// accept has it accept the view of an epoch that it promised; false if it has promised
	// a later one meanwhile.
	accept(ctx context.Context, epoch int64, view []byte) (bool, error)
	// confirm asks whether it knows of a newer view than the caller; look who else is alive.
	confirm(ctx context.Context, who caller, look bool) (confirmation, error)
	// enrol puts a distributor on its list, dismiss takes off those that go by views older
	// than epoch.
	enrol(ctx context.Context, who caller) error
	dismiss(ctx context.Context, ids []string, epoch int64) error
	close()
}

var (
	_ voter = (*conn)(nil)
	_ voter = elsewhere{}
)

// caller is a distributor as it tells voters of itself.
type caller struct {
	// id is its name on the lists ([listing]), name what its operator calls it.
	id, name string
	// epoch is of the view that it serves by, lease for how long it may do so unconfirmed.
	epoch int64
	lease time.Duration
	// reaches tells that the leader has answered it lately.
	reaches bool
}

// as is this distributor, serving by the view of that epoch.
func (s *Set) as(epoch int64) caller {
	l := s.listed.Load()
	return caller{id: l.name, name: s.cfg.Name, epoch: epoch, lease: l.lease, reaches: s.reachesLeader()}
}

// voter opens a way to a member's vote for a task of the moment.
func (m *member) voter(ctx context.Context) (voter, error) {
	if m.register != nil {
		return elsewhere{m}, nil
	}
	c, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

const promiseSQL = `SELECT pgdist.promise($1::bigint, $2::bool, $3::int)`

func (c *conn) promise(ctx context.Context, epoch int64, hard bool) (a promiseAnswer, err error) {
	s, err := c.one(ctx, promiseSQL, strconv.AppendInt(nil, epoch, 10), strconv.AppendBool(nil, hard), text("400"))
	if err == nil {
		err = json.Unmarshal([]byte(s), &a)
	}
	return a, err
}

func (c *conn) accept(ctx context.Context, epoch int64, view []byte) (bool, error) {
	ok, err := c.one(ctx, `SELECT pgdist.accept($1::bigint, $2::jsonb)`, strconv.AppendInt(nil, epoch, 10), view)
	return ok == "t", err
}

func (c *conn) confirm(ctx context.Context, who caller, look bool) (a confirmation, err error) {
	sql := confirmSQL
	if who.reaches {
		sql = confirmLeaderSQL
	}
	out, err := c.one(ctx, sql, text(who.id), strconv.AppendInt(nil, who.epoch, 10), strconv.AppendBool(nil, look), text(who.lease.String()))
	if err == nil {
		err = json.Unmarshal([]byte(out), &a)
	}
	return a, err
}

const enrolSQL = `SELECT pgdist.enrol($1, $2, $3::bigint, $4::interval)`

func (c *conn) enrol(ctx context.Context, who caller) error {
	_, err := c.call(ctx, enrolSQL, text(who.id), text(who.name), strconv.AppendInt(nil, who.epoch, 10), text(who.lease.String()))
	return err
}

func (c *conn) dismiss(ctx context.Context, ids []string, epoch int64) error {
	var list []byte
	for _, id := range ids {
		list = appendElement(list, text(id))
	}
	if list == nil {
		return nil
	}
	_, err := c.call(ctx, `SELECT pgdist.dismiss($1::text[], $2::bigint)`, finish(list), strconv.AppendInt(nil, epoch, 10))
	return err
}

// acceptBy has a view accepted by those that promised its epoch, and tells who did, whether
// somebody has promised a later one meanwhile, and the other errors. Who has a majority alone
// accepts first, and if it does not nobody else is asked: whatever anybody has accepted,
// a decisive voter has accepted before.
func acceptBy(ctx context.Context, next *health.View, body []byte, answers []answer) (accepted []health.MemberID, outbid bool, errs []error) {
	first := next.Decisive()
	rest := slices.Clone(answers)
	slices.SortStableFunc(rest, func(a, b answer) int {
		return cmp.Compare(btoi(!slices.Contains(first, a.m.id)), btoi(!slices.Contains(first, b.m.id)))
	})
	for _, a := range rest {
		if a.err != nil {
			continue
		}
		ok, err := a.c.accept(ctx, next.Epoch, body)
		if err == nil && ok {
			accepted = append(accepted, a.m.id)
			pointAccepted.Pass()
			continue
		}
		outbid = outbid || err == nil
		if err != nil {
			errs = append(errs, a.m.fail("accept the view", err))
		}
		if slices.Contains(first, a.m.id) {
			break
		}
	}
	return accepted, outbid, errs
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// connOf is the connection to a database that has accepted; nil if it has not.
func connOf(answers []answer, id health.MemberID, accepted []health.MemberID) *conn {
	for _, a := range answers {
		if c, ok := a.c.(*conn); ok && a.m.id == id && slices.Contains(accepted, id) {
			return c
		}
	}
	return nil
}

// close ends what an answer came by.
func (a answer) close() {
	if a.c != nil {
		a.c.close()
	}
}

func closeAll(answers []answer) {
	for _, a := range answers {
		a.close()
	}
}
