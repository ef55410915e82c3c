package mirror

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/pgdist/pgdist/health"
)

// A flush reads what is committed, whatever became of the one before: not in the snapshot of
// a transaction that was left open when its context ended before it could be ended itself.
// Writes would be acknowledged that no follower has, and followers brought back to where
// they had been, and what they had been given since a second time.
func TestFlushAfterOneThatWasCalledOff(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE k (id int PRIMARY KEY); CREATE TABLE l (what text)`)
	r.do(r.client(), `INSERT INTO k VALUES (1)`, `INSERT INTO l VALUES ('one')`)
	for what, leave := range map[string]func(ctx context.Context) error{
		"in pieces": func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			st := &streamer{read: tabSet{}, c: r.set.leaderC, from: Place{Term: r.set.cur.Term}, chunk: 10, extra: &extras{whole: map[int]bool{1: true}}, emit: func(op) error {
				cancel()
				return errors.New("called off")
			}}
			if _, err := st.run(ctx, 0, thorough); err == nil {
				return errors.New("it was not called off")
			}
			return nil
		},
		"of members at different places": func(ctx context.Context) error {
			if err := r.set.leaderC.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"); err != nil {
				return err
			}
			if _, err := r.set.leaderC.one(ctx, "SELECT pg_current_snapshot()"); err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return errors.Join(r.set.leaderC.exec(ctx, "ROLLBACK"), nil)
		},
	} {
		err := r.set.inLoop(r.ctx(), func(ctx context.Context) error {
			if err := r.set.connectLeader(ctx); err != nil {
				return err
			}
			return leave(ctx)
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", what, err)
		}
		for _, id := range r.set.View().Followers() {
			before := r.count(id)
			r.do(r.client(), `INSERT INTO l VALUES ('two')`)
			if n := r.count(id); n != before+1 {
				t.Errorf("%s: an acknowledged row is not at member %d, which has %d, and had %d", what, id, n, before)
			}
		}
		r.same()
	}
	// A follower's, too: what is left open there would be committed with what comes next, or never.
	err := r.set.inLoop(r.ctx(), func(ctx context.Context) error {
		for _, m := range r.set.followers() {
			c, err := m.applier(ctx)
			if err == nil {
				err = c.exec(ctx, "BEGIN; INSERT INTO l VALUES ('half')")
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.do(r.client(), `INSERT INTO l VALUES ('three')`)
	r.same()
}

// A flush to members at different places leaves a transaction open that was so before: an
// alignment's, whose snapshot is compared afterwards, or a switchover's, which holds the fence.
func TestFlushWithinATransaction(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE l (what text)`)
	write := func() {
		t.Helper()
		if _, err := r.client().Exec(r.ctx(), `INSERT INTO l VALUES ('one')`); err != nil { // acknowledged by nobody yet
			t.Fatal(err)
		}
	}
	err := r.set.inLoop(r.ctx(), func(ctx context.Context) error {
		s := r.set
		write()
		err := s.connectLeader(ctx)
		if err == nil {
			_, err = s.flush(ctx, s.cur.Epoch, s.followers()[:1], thorough)
		}
		if err != nil {
			return err
		}
		write()
		a := &alignment{conns: map[health.MemberID]*conn{}}
		defer a.close()
		lead, err := s.snapshot(ctx, s.cur.Leader, a)
		if err != nil {
			return err
		}
		failed, err := s.flushOver(ctx, lead)
		if lead.TxStatus() != 'T' {
			t.Errorf("the transaction is over: %c", lead.TxStatus())
		}
		if f := s.followers(); f[0].place != f[1].place {
			t.Errorf("one is at %v, the other at %v", f[0].place, f[1].place)
		}
		return errors.Join(err, failed[2], failed[3])
	})
	if err != nil {
		t.Fatal(err)
	}
	r.ack()
	r.same()
}

// A batch is not read in a snapshot from before the place that it begins at.
func TestSnapshotBeforeThePlace(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE l (what text)`)
	old := r.client()
	if _, err := old.Exec(r.ctx(), `BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT pg_current_snapshot()`); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"", codeRewritten} {
		at := r.set.Acked()
		_, err := old.Exec(r.ctx(), `SAVEPOINT s; SELECT * FROM pgdist.batch(`+fmt.Sprintf(`%d, '%s'`, at.Term, at.Snapshot)+`, '3', 1000, 0, ''); RELEASE s`)
		if sqlState(err) != state {
			t.Errorf("%q where %q was to be: %v", sqlState(err), state, err)
		}
		r.do(r.client(), `INSERT INTO l VALUES ('later')`)
	}
}

// count counts the rows of l at a member.
func (r *rig) count(id health.MemberID) (n int) {
	r.t.Helper()
	c := r.clientOf(id)
	if err := errors.Join(c.QueryRow(r.ctx(), `SELECT count(*) FROM l`).Scan(&n), c.Close(r.ctx())); err != nil {
		r.t.Fatal(err)
	}
	return n
}
