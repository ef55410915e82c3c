package mirror

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// A little of everything is compared all the time, by one of the programs that use the
// set, at a rate that nobody notices. Nothing is held up for it, and no two members need
// be at one state: the follower is read first, with its position in the same snapshot, and
// the leader afterwards. What differs between the two was touched since that position,
// and stands in the leader's journal, or it is wrong.

// CheckStats is what this program knows of that comparison.
type CheckStats struct {
	// Rows counts rows that this program has read from each member, all members together.
	Rows uint64
	// Differences counts what was found to differ by this program, by member: tables,
	// pieces of tables, sequences, definitions.
	Differences map[health.MemberID]uint64
	// Through is when a round was last through, whichever program made it; zero: never,
	// as far as this one knows.
	Through time.Time
}

// checks counts.
type checks struct {
	mu   sync.Mutex // guards what follows
	rows uint64
	bad  map[health.MemberID]uint64
	last time.Time
}

// found counts a difference.
func (c *checks) found(id health.MemberID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad == nil {
		c.bad = map[health.MemberID]uint64{}
	}
	c.bad[id]++
}

func (c *checks) read(rows int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows += uint64(rows)
}

func (c *checks) through(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = at
}

// Checks tells how the comparison in the background goes.
func (s *Set) Checks() CheckStats {
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	return CheckStats{Rows: s.checks.rows, Differences: maps.Clone(s.checks.bad), Through: s.checks.last}
}

// CheckStatus is how far the comparison has come, as the leader knows it.
type CheckStatus struct {
	Began  *time.Time `json:"began"` // the present round, or the last
	Ended  *time.Time `json:"ended"` // the last round that went through; nil: none has
	Quiet  *float64   `json:"-"`     // how many seconds ago that was
	Tab    *int       `json:"-"`
	After  string     `json:"-"`
	Table  string     `json:"table,omitempty"` // the one that it is in; "" between rounds
	Rows   int64      `json:"rows"`            // of the leader, compared in this round
	Differ int64      `json:"differences"`     // found since the leader was made
}

func (c *conn) checked(ctx context.Context) (*CheckStatus, error) {
	raw, err := c.one(ctx, `SELECT pgdist.checked()`)
	if err != nil {
		return nil, err
	}
	var out struct {
		CheckStatus
		Quiet *float64 `json:"quiet"`
		Tab   *int     `json:"tab"`
		After string   `json:"after"`
	}
	if err := decode([]byte(raw), &out); err != nil {
		return nil, err
	}
	out.CheckStatus.Quiet, out.CheckStatus.Tab, out.CheckStatus.After = out.Quiet, out.Tab, out.After
	return &out.CheckStatus, nil
}

// Times of the comparison; tests shorten them.
type checkTimes struct {
	first time.Duration // after the set was opened
	pause time.Duration // between the end of a round and the next
	again time.Duration // after a failure, or when another program does it
	still time.Duration // between two looks at what differs
}

var checkPauses = checkTimes{first: time.Minute, pause: 10 * time.Minute, again: 20 * time.Second, still: 300 * time.Millisecond}

// patrol compares for as long as the set is open.
func (s *Set) patrol(ctx context.Context) {
	times := s.cfg.checkTimes
	wait := times.first
	told := map[string]bool{}
	for sleep(ctx, wait) {
		p := &patroller{s: s, times: times, told: told, pace: map[health.MemberID]*pace{}, who: map[health.MemberID]*member{}, twice: map[repaired]bool{}, count: map[repaired]int{}}
		var err error
		wait, err = p.round(ctx)
		p.close()
		if err != nil && ctx.Err() == nil {
			s.log.Debug("the comparison in the background was cut off", "err", err)
			wait = times.again
		}
	}
}

// patroller is one round under way.
type patroller struct {
	s     *Set
	times checkTimes
	told  map[string]bool // what the log has heard of already
	pace  map[health.MemberID]*pace
	view  *health.View
	hold  *conn // at the leader: the claim
	conns map[health.MemberID]*conn
	who   map[health.MemberID]*member
	rows  int64 // of the leader, not noted yet
	bad   int64
	noted time.Time
	twice map[repaired]bool // what was put right in this round already
	count map[repaired]int  // how many pieces of a table were
}

// repaired is something that was put right.
type repaired struct {
	id  health.MemberID
	tab int
	key string
}

func (p *patroller) close() {
	p.hold.close()
	for _, c := range p.conns {
		c.close()
	}
}

// member is one of the view's, which may have been removed from the set by now.
func (p *patroller) member(id health.MemberID) (*member, error) {
	if p.who[id] == nil {
		m := p.s.members.get(id)
		if m == nil {
			return nil, errUnsure
		}
		p.who[id], p.pace[id] = m, &pace{rate: p.s.cfg.CheckRate}
	}
	return p.who[id], nil
}

// round compares everything once, from where the last one was broken off, and tells how
// long to wait for the next.
func (p *patroller) round(ctx context.Context) (time.Duration, error) {
	p.view, p.conns = p.s.View(), map[health.MemberID]*conn{}
	if len(p.view.Followers()) == 0 {
		return p.times.again, nil
	}
	lead, err := p.member(p.view.Leader)
	if err != nil {
		return 0, err
	}
	if p.hold, err = lead.connect(ctx); err != nil {
		return 0, err
	}
	at, err := p.hold.checked(ctx)
	if err != nil {
		return 0, lead.fail("ask how far the comparison has come", err)
	}
	if at.Ended != nil {
		p.s.checks.through(*at.Ended)
	}
	if at.Tab == nil && at.Quiet != nil {
		if rest := p.times.pause - time.Duration(*at.Quiet*float64(time.Second)); rest > 0 {
			return rest, nil
		}
	}
	if got, err := p.hold.one(ctx, `SELECT pgdist.claim_of('check')`); err != nil || got != "t" {
		return p.times.again, err
	}
	// Whoever had the claim before may have gone on since.
	if at, err = p.hold.checked(ctx); err != nil {
		return 0, err
	}
	if at.Tab == nil {
		if err := p.note(ctx, 0, nil); err != nil {
			return 0, err
		}
		at.Tab, at.After = new(int), ""
	}
	if err := p.tables(ctx, *at.Tab, at.After); err != nil {
		return 0, err
	}
	if err := p.rest(ctx); err != nil {
		return 0, err
	}
	if _, err := p.hold.one(ctx, `SELECT pgdist.check_through()`); err != nil {
		return 0, err
	}
	p.s.checks.through(time.Now())
	return p.times.pause, nil
}

// note writes down where it is.
func (p *patroller) note(ctx context.Context, tab int, after []byte) error {
	_, err := p.hold.call(ctx, `SELECT pgdist.check_at($1::int, $2, $3::bigint, $4::bigint)`, strconv.AppendInt(nil, int64(tab), 10), after,
		strconv.AppendInt(nil, p.rows, 10), strconv.AppendInt(nil, p.bad, 10))
	if err == nil {
		p.rows, p.bad, p.noted = 0, 0, time.Now()
	}
	return err
}

// noteEvery is how often it is written down.
const noteEvery = 5 * time.Second

// tables compares the tables from number tab on, that one behind a key.
func (p *patroller) tables(ctx context.Context, tab int, after string) error {
	list, err := p.list(ctx)
	if err != nil {
		return err
	}
	for _, t := range list {
		if t.id < tab {
			continue
		}
		from := []byte(nil)
		if t.id == tab && after != "" {
			from = text(after)
		}
		if err := p.table(ctx, t, from); err != nil {
			return err
		}
		if err := p.note(ctx, t.id+1, nil); err != nil {
			return err
		}
	}
	return nil
}

// rest compares what is not rows: definitions and sequences. It takes one alignment, as
// pgdist verify does.
func (p *patroller) rest(ctx context.Context) error {
	r, err := p.s.compare(ctx, VerifyOptions{Jobs: 1, bare: true})
	var e *Error
	if errors.As(err, &e) && e.Op == "compare definitions" {
		return nil // they change all the time
	}
	if err != nil {
		return err
	}
	numbers, err := p.s.repairSequences(ctx, VerifyOptions{}, r)
	if err != nil {
		return err
	}
	for _, d := range r.Differences {
		if d.number && !d.in(numbers) || p.told[d.Host+d.What] {
			continue
		}
		p.told[d.Host+d.What] = true
		p.bad++
		if d.number {
			p.s.log.Error("a sequence differs from the leader's, and setting it did not help", "member", d.Host, "what", d.What)
			continue
		}
		p.s.checks.found(d.Member)
		p.s.log.Error("a member's definitions differ from the leader's; nothing is done about it", "member", d.Host, "what", d.What, "hint", "see pgdist verify; make them equal, or "+resyncHint(d.Host)+" --force")
		p.s.notice(d.Host, "differs from the leader in its definitions: "+d.What)
	}
	return p.note(ctx, 1<<30, nil)
}

// States tells in a few words what each member is doing.
func (s *Set) States() map[health.MemberID]string {
	out := map[health.MemberID]string{}
	for id, m := range s.members.all() {
		if n := m.note.Load(); n != nil {
			out[id] = n.String()
		}
	}
	return out
}

// String is Text, and how far it has come with that.
func (n *State) String() string {
	if n.More == "" {
		return n.Text
	}
	return n.Text + ": " + n.More
}
