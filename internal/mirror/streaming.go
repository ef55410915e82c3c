package mirror

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// streamJob is one batch on its way, in pieces, to members at one place.
type streamJob struct {
	leader      *conn
	epoch, term int64
	at          Place // where the members are; zero: from
	from        Place // what is read is newer than this
	group       []*member
	floor       uint64
	how         depth
	extra       *extras
	known       *sequenceState // what the members hold of sequences; nil: not known
	leave       bool           // tables in others' hands
	chunk       int
	terms       []byte
	gate        func(context.Context, *batch) func() error
	mind        func(context.Context, *member, *conn, time.Duration) (context.Context, func())
	progress    func(bytes int)
}

// queued is how many pieces may wait for a member: enough to keep it busy while
// the next is read, few enough to bound memory.
const queued = 2

// runner applies pieces on one member.
type runner struct {
	m       *member
	in      chan op
	err     error
	step    stepwise
	renamed bool // an enum's label may have another name now
}

// stream reads a batch in pieces and applies it to all members of the group at
// once. A member that fails is left out; an error is the leader's.
func stream(ctx context.Context, j streamJob) (*batch, map[health.MemberID]error, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	runners := make([]*runner, len(j.group))
	for i, m := range j.group {
		r := &runner{m: m, in: make(chan op, queued)}
		runners[i] = r
		wg.Go(func() { r.apply(ctx, j) })
	}
	st := &streamer{read: tabSet{}, c: j.leader, from: j.from, epoch: j.epoch, chunk: j.chunk, extra: j.extra, known: j.known, leave: j.leave, emit: func(o op) error {
		if j.progress != nil {
			j.progress(len(o.v))
		}
		for _, r := range runners {
			select {
			case r.in <- o:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	}}
	b, err := st.run(ctx, j.floor, j.how)
	if err == nil {
		if e := b.trusted(j.epoch, j.term); e != nil {
			err = e
		}
	}
	for _, r := range runners {
		close(r.in)
	}
	wg.Wait()
	if err != nil {
		for _, r := range runners {
			r.abandon(ctx)
		}
		return nil, nil, &leaderError{err}
	}
	gate := j.gate(ctx, b)
	for _, r := range runners {
		wg.Go(func() { r.commit(ctx, b, gate, j.terms) })
	}
	wg.Wait()
	failed := map[health.MemberID]error{}
	for _, r := range runners {
		if r.err != nil {
			failed[r.m.id] = r.m.fail(opApply, r.err)
		}
	}
	if gate != nil {
		if err := gate(); err != nil {
			return nil, failed, &leaderError{err}
		}
	}
	return b, failed, nil
}

// apply takes pieces until there are no more; after a failure it only drains.
func (r *runner) apply(ctx context.Context, j streamJob) {
	r.err = r.begin(ctx, j)
	for o := range r.in {
		r.renamed = r.renamed || o.renames()
		if r.err == nil && !r.renamed {
			r.err = r.m.labels(ctx, o)
		}
		if r.err == nil {
			r.err = r.step.apply(ctx, o)
		}
	}
}

func (r *runner) begin(ctx context.Context, j streamJob) error {
	c, err := r.m.applier(ctx)
	if err != nil {
		return err
	}
	r.step = stepwise{c: c, before: r.m.tick == tickless, mind: func(ctx context.Context) (context.Context, func()) {
		return j.mind(ctx, r.m, c, r.m.health.SyncTimeout)
	}}
	at := j.at
	if at == (Place{}) {
		at = j.from
	}
	return r.step.begin(ctx, j.epoch, at, r.m.tick, j.extra != nil && j.extra.mend)
}

func (r *runner) commit(ctx context.Context, b *batch, gate func() error, terms []byte) {
	if r.err == nil && gate != nil {
		r.err = gate()
	}
	if r.err == nil {
		pointPieces.Pass()
		r.err = r.step.end(ctx, b.to(), terms)
	}
	if r.err != nil {
		r.abandon(ctx)
	}
}

// abandon rolls back what was applied so far.
func (r *runner) abandon(ctx context.Context) {
	if r.step.c == nil || r.step.c.IsClosed() || r.step.c.TxStatus() == 'I' {
		return
	}
	r.err = errors.Join(r.err, r.step.c.conclude(ctx, "ROLLBACK"))
}

// refusesDDL tells whether a member failed because its rows, as they are, do not
// bear the DDL of a batch that rows of the same transaction made possible (class
// 23: constraints; 22: data; 42: what an earlier statement would have made), or
// because a row does not meet a CHECK that the leader's need not: one that is
// NOT VALID, or that was met when the leader looked at the clock.
func refusesDDL(b *batch, err error) bool {
	if b == nil || err == nil {
		return false
	}
	state := sqlState(err)
	if state == "23514" {
		return true
	}
	return b.head.DDL && len(state) == 5 && (state[:2] == "23" || state[:2] == "22" || state[:2] == "42")
}

// concerned makes a batch copy whole, and empty beforehand, all tables that its
// DDL and rows are about.
func concerned(ctx context.Context, leader *conn, from Place, x *extras) (*extras, error) {
	rows, err := leader.call(ctx, `SELECT id FROM pgdist.concerned($1::bigint, $2::pg_snapshot)`, strconv.AppendInt(nil, from.Term, 10), nullable(from.Snapshot))
	if err != nil {
		return nil, &leaderError{err}
	}
	out := extras{whole: map[int]bool{}, first: true}
	if x != nil {
		out = *x
		out.first = true
		if out.whole == nil {
			out.whole = map[int]bool{}
		}
	}
	for _, r := range rows {
		out.whole[number(r[0])] = true
	}
	return &out, nil
}
