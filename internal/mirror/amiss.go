package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
)

// A member that was found to differ from the leader is not read until it has been put
// right. What is to be put right stands on its own list (pgdist.amiss), is written down
// there before the member leaves the view, and is shipped by whoever catches it up, as if
// it had been journaled: read from the leader at the very snapshot that the member's
// position will be, and so neither older nor newer than all else the member holds. The
// list is emptied by the apply that brings it.

// wound is what of one table differs on a member.
type wound struct {
	tab, gen int
	table    string
	keys     [][]byte // as journaled; nil: the table is to be copied whole. tab 0: the member is
}

// leftForLater is why a table is on the list of a member that is away or was copied, and not
// because it held anything else than the leader: clients changed or dropped it while it was read.
const leftForLater = "it changed while it was read"

// errAmiss is why a member leaves the view that holds what the leader does not.
type errAmiss struct{ what string }

func (e *errAmiss) Error() string { return "it differs from the leader: " + e.what }

// task is work for the loop.
type task struct {
	do   func(loop context.Context) error
	done chan error
}

// inLoop runs f in the loop, which owns the view.
func (s *Set) inLoop(ctx context.Context, f func(loop context.Context) error) error {
	t := &task{do: f, done: make(chan error, 1)}
	select {
	case s.tasks <- t:
	case <-s.life.Done():
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-t.done:
		return err
	case <-s.life.Done():
		return ErrClosed
	}
}

// expel writes down what differs on a follower of view v, and then leaves the follower
// out, so that nobody reads it until that has been shipped anew. errSuperseded: the view
// is another by now; what was found was found by the old one, and counts no more.
func (s *Set) expel(ctx context.Context, v *health.View, id health.MemberID, wounds []wound, what string) error {
	return s.inLoop(ctx, func(loop context.Context) error {
		if s.cur.Epoch != v.Epoch || !s.cur.Has(id) || s.cur.Leader == id {
			return errSuperseded
		}
		m := s.members.get(id)
		if err := m.blame(loop, v.Epoch, wounds, what); err != nil {
			if sqlState(err) == codeFence {
				s.newer.Store(true)
				return errors.Join(errSuperseded, err)
			}
			return err
		}
		why := &errAmiss{what}
		m.say(textExcluded, why)
		if err := s.alter(loop, health.Intent{Exclude: []health.MemberID{id}}); err != nil {
			if s.cur.Has(id) {
				m.say(textInSync, nil) // what is written down is shipped whenever it leaves
			}
			return err
		}
		if err := s.round(loop, thorough); err != nil {
			return err
		}
		if !s.cur.Has(id) {
			m.say(textExcluded, why)
			m.retry.Store(0) // it is well, and to be put right at once
		}
		return nil
	})
}

// blameAtOnce is how many keys are written down in one entry.
const blameAtOnce = 1000

// blame writes down on the member what is to be shipped anew, in one transaction.
func (m *member) blame(ctx context.Context, epoch int64, wounds []wound, what string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.health.SyncTimeout, health.ErrTimeout)
	defer cancel()
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	note := func(w wound, keys []byte) error {
		_, err := c.call(ctx, blameSQL, strconv.AppendInt(nil, epoch, 10),
			strconv.AppendInt(nil, int64(w.tab), 10), strconv.AppendInt(nil, int64(w.gen), 10), keys, text(c.words(what)))
		return err
	}
	if err = c.exec(ctx, "BEGIN"); err != nil {
		return m.fail("write down what differs", causeOf(ctx, err))
	}
	for _, w := range wounds {
		if w.keys == nil {
			err = note(w, nil)
		}
		for some := range slices.Chunk(w.keys, blameAtOnce) {
			var lit []byte
			for _, k := range some {
				lit = appendElement(lit, k)
			}
			if err == nil {
				err = note(w, finish(lit))
			}
		}
	}
	if err == nil {
		err = c.exec(ctx, "COMMIT")
	}
	return m.fail("write down what differs", causeOf(ctx, err))
}

// amend adds to what a member lacks what it was found to have wrong.
func (c *catchUp) amend(ctx context.Context, x *extras) (*extras, error) {
	rows, err := c.mine.call(ctx, `SELECT id, tab, gen, keys, what FROM pgdist.blamed()`)
	if err != nil {
		return nil, c.m.fail("read what of it differs", err)
	}
	out := extras{}
	if x != nil {
		out = *x
	}
	if out.keys == nil {
		out.keys = map[int][]byte{}
	}
	if out.whole == nil {
		out.whole = map[int]bool{}
	}
	if out.gens == nil {
		out.gens = map[int]int{}
	}
	for _, r := range rows {
		tab, gen := number(r[1]), number(r[2])
		if out.upto, err = strconv.ParseInt(string(r[0]), 10, 64); err != nil {
			return nil, err
		}
		if tab == 0 {
			return nil, fmt.Errorf("%w: it differs from the leader, and repairing that did not help: %s", ErrPlaceLost, r[4])
		}
		if had, ok := out.gens[tab]; ok && had != gen || r[3] == nil {
			out.whole[tab] = true
		}
		out.gens[tab] = gen
		if u := union(out.keys[tab], r[3]); u != nil {
			out.keys[tab] = u
		}
	}
	switch differs := func(r [][]byte) bool { return string(r[4]) != leftForLater }; {
	case len(rows) == 0:
	case !slices.ContainsFunc(rows, differs):
		c.s.log.Info("bringing tables that changed while they were read", "member", c.m.host, "whole", len(out.whole))
	default:
		c.s.log.Info("putting right what differs on a member", "member", c.m.host, "tables", len(out.keys), "whole", len(out.whole))
	}
	return &out, nil
}

// union joins two array literals of the server's own making, each element once: a row
// cannot be put in place twice by one statement.
func union(a, b []byte) []byte {
	var lit []byte
	seen := map[string]bool{}
	for _, of := range [][]byte{a, b} {
		for _, e := range elements(of) {
			if !seen[string(e)] {
				seen[string(e)] = true
				lit = appendRaw(lit, e)
			}
		}
	}
	return finish(lit)
}

// backTries is how often a member's server may refuse what is to be put right before nobody waits for it.
const backTries = 4

// awaitBack waits until a member is in sync again, and returns why it cannot be. Attempts to take it
// back go on after that.
func (s *Set) awaitBack(ctx context.Context, id health.MemberID) error {
	m := s.members.get(id)
	if m == nil {
		return fmt.Errorf("member %d was removed from the set", id)
	}
	before := m.tries.Load()
	for v := s.View(); !v.Has(id); {
		before = min(before, m.tries.Load()) // it may begin to count anew
		limited, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		next, err := s.WaitView(limited, v.Epoch)
		cancel()
		switch n := m.note.Load(); {
		case err == nil:
			v = next
		case ctx.Err() != nil:
			if n != nil && n.Err != nil {
				return &Error{Op: "put right what differs", Member: id, Host: m.host, Err: errors.Join(context.Cause(ctx), n.Err), Hint: "it stays excluded until it has caught up; see: pgdist status"}
			}
			return context.Cause(ctx)
		case n != nil && sqlState(n.Err) != "" && m.tries.Load() >= before+backTries:
			return &Error{Op: "put right what differs", Member: id, Host: m.host, Err: n.Err, Hint: "it stays excluded until it has caught up; see: pgdist status"}
		case n != nil && (n.Text == textLost || n.Text == textRefused):
			return &Error{Op: "put right what differs", Member: id, Host: m.host, Err: n.Err, Hint: resyncHint(m.host)}
		}
	}
	return nil
}

// notice tells people of something they should know of: the log, and whoever asked.
func (s *Set) notice(host, what string) {
	if s.cfg.Notice != nil {
		s.cfg.Notice(strings.TrimSpace(host + " " + what))
	}
}

// contradicts tells of which table a member's rows cannot be what it was thought to hold:
// rows that must be there are not, or others are in the way of the leader's. 0: none.
func (c *catchUp) contradicts(ctx context.Context, err error) int {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.TableName == "" {
		return 0
	}
	name := pg.TableName
	switch pg.Code {
	case codeDiverged: // whose raiser names it in full
	case "23505", "23P01":
		name = quoteIdent(pg.SchemaName) + "." + quoteIdent(pg.TableName)
	default:
		return 0
	}
	rows, e := c.leader.call(ctx, `SELECT id FROM pgdist.identified(to_regclass($1::text)::oid)`, text(name))
	if e != nil || len(rows) == 0 {
		return 0 // what the member said is the error to tell of
	}
	return number(rows[0][0])
}

// replaced adds such a table to what is copied whole.
func (c *catchUp) replaced(x *extras, tab int, why error) *extras {
	c.s.checks.found(c.m.id)
	c.s.log.Error("a member held other rows than the leader: copying the table", "member", c.m.host, "err", why)
	c.s.notice(c.m.host, "held other rows than the leader, and was read until it was excluded: "+why.Error())
	out := extras{}
	if x != nil {
		out = *x
	}
	out.whole = maps.Clone(out.whole)
	if out.whole == nil {
		out.whole = map[int]bool{}
	}
	out.whole[tab] = true
	return &out
}
