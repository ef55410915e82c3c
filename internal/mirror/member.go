package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/register"
)

// member is one database of the set as this process sees it.
type member struct {
	id     health.MemberID
	host   string
	app    string // the application_name of this distributor's connections
	cfg    *pgconn.Config
	health health.Config

	seat     atomic.Pointer[health.View] // that the loop goes by: it names the server; nil: any will do
	register *register.Register          // the member is no database, but this
	claims   string                      // the name under which this program has a register in a file to itself; "": it need not

	// Owned by the loop.
	apply   *conn // where batches are applied; nil until needed
	place   Place // where a follower is; valid if known
	tick    int64 // how many applies it has seen; valid if known
	known   bool
	strikes int
	lost    bool // the journal is no longer kept for it
	// sequences and shared objects it is known to hold; nil, "": not known.
	sequences *sequenceState
	shared    string

	vouching chan struct{} // has room for whoever uses witness
	witness  *conn         // opened while the member was sound

	confirming atomic.Bool // has lease in use
	lease      *conn

	// Owned by the prober, which never probes a member twice at once, and by retire.
	probing sync.Mutex
	probe   *conn
	gone    bool

	joining           atomic.Bool             // a catch-up is under way
	retry             atomic.Int64            // not to be tried again before (see monotonic)
	joined            atomic.Int64            // when it came in sync (see monotonic); 0: it is not
	tries             atomic.Int64            // how often it was left out, or could not be taken back, since it was last in sync for long
	forsaken          atomic.Bool             // the journal is not kept for the copy of it that was broken off
	refused           atomic.Int64            // how often in a row its server refused what the leader's did
	note              atomic.Pointer[State]   // what status shows
	left              atomic.Pointer[Place]   // where it was when last heard of; nil: never
	seen              atomic.Pointer[spotted] // where it was when it was last to be caught up; nil: never
	remake            atomic.Int64            // when indexes may be made anew there (see monotonic)
	copyAt, copyTries atomic.Int64            // when it may be copied afresh (see monotonic), and how often that failed
	major             atomic.Int32            // of its server, as of the last connection; 0: not known
	ddl               atomic.Int64            // how much DDL it has been brought, and 1; 0: not known
}

// State is what a member is doing, for people.
type State struct {
	// Text is one of: in sync, excluded, catching up, refused, lost its place, being copied,
	// votes, holds no data.
	Text string
	// More is how far it has come with that; "" if there is nothing to tell.
	More string
	// Err is why; nil when in sync.
	Err error
	// At is when this state began.
	At time.Time
}

func (m *member) say(text string, err error) {
	m.note.Store(&State{Text: text, Err: err, At: time.Now()})
}

// here is what a member says of itself (pgdist.here()).
type here struct {
	Version   int          `json:"version"`
	Set       string       `json:"set"`
	Member    int          `json:"member"`
	System    string       `json:"system"`
	Cluster   string       `json:"cluster"`
	Epoch     int64        `json:"epoch"`
	Leads     bool         `json:"leads"`
	Office    int64        `json:"office"`
	Booted    bool         `json:"booted"`
	Promised  int64        `json:"promised"`
	Accepted  int64        `json:"accepted"`
	View      *health.View `json:"view"`
	Term      int64        `json:"term"`
	Snap      string       `json:"snap"`
	Tick      int64        `json:"tick"`
	Mates     []mate       `json:"distributors"`
	At        float64      `json:"at"`
	FloorTerm int64        `json:"floor_term"`
	FloorSnap string       `json:"floor_snap"`
	Terms     []termRow    `json:"terms"`
	Recovery  bool         `json:"recovery"`
	Crashed   bool         `json:"crashed"`  // its UNLOGGED tables are empty, or were made anew since
	Amiss     string       `json:"amiss"`    // what of it was found to differ and is to be shipped anew
	Unfilled  string       `json:"unfilled"` // materialized views that this leader could not fill, and why
}

// termRow is one row of pgdist.terms.
type termRow struct {
	Term   int64  `json:"term"`
	Leader int    `json:"leader"`
	Prev   int64  `json:"prev"`
	Snap   string `json:"snap,omitempty"`
}

func (h *here) place() Place { return Place{Term: h.Term, Snapshot: h.Snap} }
func (h *here) floor() Place { return Place{Term: h.FloorTerm, Snapshot: h.FloorSnap} }

// rank is how far the member's data has come, for an election.
func (h *here) rank() (health.PositionRank, error) {
	x, err := h.place().xmax()
	if h.Snap == "" {
		x = 1<<64 - 1
	}
	return health.PositionRank{Term: h.Term, Xmax: x}, err
}

const hereSQL = `SELECT pgdist.here()`

func decodeHere(s string) (*here, error) {
	h := &here{}
	if err := json.Unmarshal([]byte(s), h); err != nil {
		return nil, fmt.Errorf("what the member says of itself: %w", err)
	}
	return h, nil
}

// where asks a member where it is.
func (c *conn) where(ctx context.Context) (*here, error) {
	s, err := c.one(ctx, hereSQL)
	switch sqlState(err) {
	case "3F000", "42883", "42P01": // no such schema, function, table
		return nil, ErrNotInstalled
	}
	if err != nil {
		return nil, err
	}
	if s == "" { // no row in pgdist.meta: resync puts it there last
		return nil, c.halfCopied(ctx)
	}
	return decodeHere(s)
}

// connect opens a connection for a task of the moment.
func (m *member) connect(ctx context.Context) (*conn, error) {
	if m.register != nil {
		return nil, m.fail("connect", errNoDatabase)
	}
	c, err := dial(ctx, m.cfg, m.named(nil))
	if err == nil {
		m.major.Store(int32(c.major()))
	}
	return c, m.fail("connect", err)
}

// recognise makes sure that a connection leads to the member itself.
func (m *member) recognise(ctx context.Context, c *conn) error {
	v := m.seat.Load()
	if v == nil {
		return nil
	}
	h, err := c.where(ctx)
	if err != nil {
		return m.fail("ask who it is", err)
	}
	return recognise(v, m.id, m.host, h)
}

// named adds to settings what tells this distributor's connections from others'.
func (m *member) named(settings map[string]string) map[string]string {
	if m.app == "" {
		return settings
	}
	out := maps.Clone(settings)
	if out == nil {
		out = map[string]string{}
	}
	out["application_name"] = m.app
	return out
}

// applier returns the connection batches are applied on.
func (m *member) applier(ctx context.Context) (*conn, error) {
	if m.apply.idle() {
		return m.apply, nil
	}
	m.apply.close()
	c, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.exec(ctx, "SELECT pgdist.apply_session()"); err != nil {
		c.close()
		return nil, m.fail("prepare the connection for applying", err)
	}
	if err := m.recognise(ctx, c); err != nil {
		c.close()
		return nil, err
	}
	m.apply = c
	return c, nil
}

// forget drops what is known of a follower after a failure.
func (m *member) forget() {
	if m.known {
		m.leaveAt(m.place)
	}
	m.apply.close()
	m.apply, m.known = nil, false
	m.sequences, m.shared = nil, ""
}

// leaveAt notes where the member was when last heard of: what lies behind it
// is of no use to the member any more.
func (m *member) leaveAt(p Place) { m.left.Store(&p) }

// twin is the same member with connections of its own, for work beside the loop.
func (m *member) twin() *member {
	t := &member{id: m.id, host: m.host, app: m.app, cfg: m.cfg, health: m.health}
	t.seat.Store(m.seat.Load())
	return t
}

// check asks whether the database works; health.Board calls it. broken hears of
// a connection that did not last.
func (m *member) check(ctx context.Context, broken func()) error {
	m.probing.Lock()
	defer m.probing.Unlock()
	if m.gone {
		return context.Canceled
	}
	fresh := m.probe == nil || m.probe.IsClosed()
	err := m.ask(ctx)
	if err != nil && !fresh && ctx.Err() == nil {
		// Somebody may have ended just this backend; or the server crashed and
		// is back already.
		err = m.ask(ctx)
		broken()
	}
	return err
}

func (m *member) ask(ctx context.Context) error {
	if m.register != nil {
		_, err := m.register.Look(ctx)
		return err
	}
	if m.probe == nil || m.probe.IsClosed() {
		c, err := dial(ctx, m.cfg, nil)
		if err != nil {
			return err
		}
		m.probe = c
	}
	_, err := m.probe.one(ctx, "SELECT 1")
	if err != nil {
		m.probe.close()
		m.probe = nil
	}
	return err
}
