package mirror

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgdist/pgdist/health"
)

// A full copy brings back a member that row by row cannot be brought back: its part
// of the journal is gone, it holds what cannot be undone, or its server is another.
//
// The copy is the source as one snapshot sees it, and the member's position is read
// in that snapshot: so the copy is a follower like any that was away since, and the
// ordinary catch-up does the rest. Until the last transaction, which writes down who
// the database is, it is nobody: it gives no promise, has no position, and is
// refused by name; another attempt goes on with it (resync_resume.go).

// ResyncOptions says which member is copied, and how.
type ResyncOptions struct {
	// Member is "host:port" or "host" of the member to be overwritten.
	Member string
	// Jobs is how many tables, or parts of one, are copied at once. Default 2.
	Jobs int
	// Force allows overwriting a member in sync, or one of another set.
	Force bool
	// Confirm is asked before a database with tables is dropped; an error ends the
	// copy. nil refuses.
	Confirm func(question string) error
	// Wait is how long to wait for the program that uses the set to take the copy
	// back. Default 1 min; below 0 not at all.
	Wait time.Duration
	// Report hears what is being done, for people; nil is silent.
	Report func(format string, args ...any)
	// Progress hears of what has been copied, from any goroutine; nil is silent.
	Progress func(ResyncProgress)

	// unasked: nobody asked for it, so it overwrites nothing but what is known to be the
	// member's own, or empty. needed tells, of the target as it is once nobody else copies
	// it, nil if it is nobody, whether a copy is still called for.
	// completed hears of the copy's end, before it is waited for the member to be taken back.
	unasked   bool
	needed    func(*here) bool
	completed func()
}

// ResyncProgress is how far a copy has come.
type ResyncProgress struct {
	Tables, TablesDone int
	Rows, Bytes        int64
	Estimated          float64 // rows, as the statistics have it
	Table              string  // the one that was worked on last
}

// ResyncResult is what a copy brought.
type ResyncResult struct {
	Source string
	Place  Place // where the copy is, before it catches up
	Rows   int64 // copied by this attempt, as Bytes
	Bytes  int64
	Kept   int // tables that an attempt before, which was broken off, had copied
	Took   time.Duration
	InSync bool // it was taken back while we waited
	NoVote bool // it is on the list without a vote, as an addition that was broken off leaves it
}

// resync is one full copy under way.
type resync struct {
	cfg     Config
	o       ResyncOptions
	s       *Set // of members only: it is never opened
	view    *health.View
	found   []answerOf
	target  *member
	here    *here // the target's; nil if it has none of its own
	source  *member
	src     facts
	system  string // the target's server
	major   int    // of the target's server
	dropped bool   // the old database is gone, or may be
	setup   *conn  // at the target, from its making to the last transaction
	claim   *claim // nobody else copies to the target
	attempt string // by which the target knows whose copy it is
	half    bool   // the target was left in the middle of a copy
	snap    *frozen
	own     map[string]ownTable    // the mirrored relations, by name
	taken   map[string]copiedTable // what an attempt before has copied, and is kept
	ops     map[Place]map[int]string
	roles   string      // JSON: those that the old database knew as the set's
	relaxed string      // constraints that an attempt before has set aside
	posted  bool        // it had come to foreign keys and triggers
	aside   map[int]int // tables that the catch-up ships whole, and their generations
}

// Resync overwrites one member of a set with a full copy of a member in sync,
// while the set goes on. It returns once the copy is complete; a program that uses
// the set then brings it up to date and takes it back, for which Wait allows.
func Resync(ctx context.Context, cfg Config, o ResyncOptions) (*ResyncResult, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	set(&o.Jobs, 2)
	set(&o.Wait, time.Minute)
	if o.Report == nil {
		o.Report = func(string, ...any) {}
	}
	if o.Progress == nil {
		o.Progress = func(ResyncProgress) {}
	}
	r := &resync{cfg: cfg, o: o, attempt: rand.Text()}
	defer func() {
		r.setup.close()
		r.snap.close()
		r.claim.release()
		if r.s != nil {
			r.s.closeRegisters()
		}
	}()
	if err := r.identify(ctx); err != nil {
		return nil, err
	}
	if err := r.claimTarget(ctx); err != nil {
		return nil, err
	}
	if err := r.choose(ctx); err != nil {
		return nil, err
	}
	if r.major > r.src.Version/10000 {
		r.o.Report("PostgreSQL %d on %s takes the place of a %d", r.major, r.target.host, r.src.Version/10000)
	}
	tools, err := findTools(ctx, r.source, r.src.Version/10000)
	if err != nil {
		return nil, r.source.fail("find pg_dump", err)
	}
	if err := r.examineTarget(ctx); err != nil {
		return nil, err
	}
	held, err := r.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer held.release()
	res, err := r.copy(held.ctx, tools)
	if err != nil {
		if taken := r.takenOver(ctx); taken != nil {
			return nil, taken
		}
		if r.dropped {
			r.o.Report("the copy on %s is not complete: it has no vote and is not used until resync has been run again, which goes on with it", r.target.host)
		}
		if ctx.Err() == nil {
			err = causeOf(held.ctx, err)
		}
		return nil, err
	}
	r.snap.close() // it holds back vacuum on the source
	r.setup.close()
	r.claim.release()
	if r.o.completed != nil {
		r.o.completed()
	}
	res.InSync = r.await(held.ctx)
	me, _ := r.view.Member(r.target.id)
	_, elsewhere := r.view.Register()
	res.NoVote = me.Weight == 0 && !elsewhere
	return res, nil
}

func (r *resync) refuse(host, hint, format string, args ...any) error {
	return &Error{Op: "resync", Host: host, Err: fmt.Errorf(format, args...), Hint: hint}
}

// identify finds out which member is meant, and refuses what must not be overwritten.
func (r *resync) identify(ctx context.Context) error {
	r.found = askAll(ctx, r.cfg)
	i := -1
	var hosts []string
	for j, a := range r.found {
		if a.cfg.Register != "" {
			continue
		}
		hosts = append(hosts, a.cfg.Host())
		if a.cfg.Host() == r.o.Member || a.cfg.Conn.Host == r.o.Member {
			if i >= 0 {
				return r.refuse("", "give it as host:port", "%q names more than one member", r.o.Member)
			}
			i = j
		}
	}
	if i < 0 {
		return r.refuse("", "what the DSN names, and what those know of, are "+strings.Join(hosts, ", "), "%q is none of the set's members", r.o.Member)
	}
	t := r.found[i]
	switch others := newestView(slices.Delete(slices.Clone(r.found), i, i+1)); {
	case others == nil:
		return r.refuse("", "a copy needs a member in sync that answers", "no other member of the set can be asked")
	case t.here != nil && t.here.Set != others.Set:
		if !r.o.Force {
			return r.refuse(t.cfg.Host(), "to overwrite it all the same, give --force", "it belongs to another set, %s", t.here.Set)
		}
		r.found[i].here = nil
	case t.here != nil && slices.ContainsFunc(r.found, func(a answerOf) bool {
		return a.cfg.Host() != t.cfg.Host() && a.here != nil && a.here.Member == t.here.Member
	}):
		r.found[i].here = nil // what was restored there is another member's
	case t.here == nil && t.err != nil && !t.vacant(others) && sqlState(t.err) == "":
		return r.refuse(t.cfg.Host(), connectHint(t.err, t.cfg), "it does not answer: %w", t.err)
	}
	r.view = newestView(r.found)
	r.s = &Set{cfg: r.cfg, log: r.cfg.Logger, cur: r.view, down: map[health.MemberID]error{}}
	if err := r.s.assign(r.found, r.view); err != nil {
		return err
	}
	for _, m := range r.s.members.all() {
		if m.host == t.cfg.Host() {
			r.target = m
		}
	}
	if r.target.id == r.view.Leader {
		return r.refuse(r.target.host, "copy goes from the leader's side to the others; have another member lead first", "it is the set's leader")
	}
	r.half = errors.Is(t.err, ErrHalfCopied)
	if r.here = r.found[i].here; r.here != nil && r.view.Has(r.target.id) && !r.o.Force {
		return r.refuse(r.target.host, "nothing is to be done; to copy it all the same, give --force", "it is in sync")
	}
	return r.majority()
}

// majority makes sure that the set can decide without the target: what was promised
// there is lost, and only a majority of the others knows what it may have promised.
func (r *resync) majority() error {
	var others []health.MemberID
	var silent []string
	for _, a := range r.found {
		switch {
		case a.cfg.Host() == r.target.host:
		case a.here == nil:
			silent = append(silent, a.cfg.Host())
		default:
			others = append(others, health.MemberID(a.here.Member))
		}
	}
	if r.view.Quorum(others) {
		return nil
	}
	hint := "the member to be copied has the casting vote; a set that lost it cannot go on"
	if len(silent) > 0 {
		hint = "bring back " + strings.Join(silent, ", ")
	}
	return &Error{Op: "resync", Host: r.target.host, Err: fmt.Errorf("%w without it", ErrNoMajority), Hint: hint}
}

// choose takes the member to copy from that is missed least: the follower with the fewest
// clients at work, or the leader if there is none. It must be in sync, must not have crashed,
// and its server must not be newer than the target's.
func (r *resync) choose(ctx context.Context) error {
	var errs []error
	if err := r.askVersion(ctx); err != nil {
		return err
	}
	best := -1
	for _, id := range append(r.view.Followers(), r.view.Leader) {
		i := slices.IndexFunc(r.found, func(a answerOf) bool { return a.here != nil && a.here.Member == int(id) })
		if id == r.target.id || i < 0 {
			continue
		}
		if id == r.view.Leader && r.source != nil {
			break
		}
		a := r.found[i]
		if a.here.Crashed || a.here.Leads != (id == r.view.Leader) || (a.here.Leads && !a.here.Booted) {
			errs = append(errs, fmt.Errorf("%s has crashed or changed its role, and has not been taken back", a.cfg.Host()))
			continue
		}
		if err := wrongVersion("resync", a.cfg.Host(), a.here.Version); err != nil {
			return err
		}
		k, err := examine(ctx, a.cfg, a.cfg.Conn.User)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		load, err := k.c.one(ctx, `SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()`)
		k.c.close()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.cfg.Host(), err))
			continue
		}
		if v := k.facts.Version / 10000; v > r.major {
			errs = append(errs, r.refuse(r.target.host, fmt.Sprintf("give the member a server of PostgreSQL %d or later: a copy goes to the same major version or a newer one", v),
				"its PostgreSQL %d is older than %d on %s", r.major, v, a.cfg.Host()))
			continue
		}
		if !k.facts.Super {
			return r.refuse(a.cfg.Host(), "copying roles, and rows of all owners, needs the user that ran init, or another superuser", "%w: role %s is not one", errNeedsSuperuser, k.facts.User)
		}
		if n := number(text(load)); best < 0 || n < best {
			best, r.source, r.src = n, r.s.members.get(id), k.facts
		}
	}
	if r.source != nil {
		return nil
	}
	return errors.Join(append(errs, r.refuse("", "", "no member in sync can be copied from"))...)
}

// askVersion finds out the major version of the target's server.
func (r *resync) askVersion(ctx context.Context) error {
	c, err := r.maintenance(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	r.major = c.major()
	return nil
}

// errNeedsSuperuser: the role that copies may not.
var errNeedsSuperuser = errors.New("copying needs a superuser")

// copy is everything from the first change at the target to the last.
func (r *resync) copy(ctx context.Context, t *tools) (*ResyncResult, error) {
	began := time.Now()
	defs, err := r.freeze(ctx, t)
	if err != nil {
		return nil, err
	}
	if r.view.Has(r.target.id) {
		if _, err := r.renew(ctx, health.Intent{Exclude: []health.MemberID{r.target.id}}); err != nil {
			return nil, err
		}
	}
	if err := r.prepare(ctx, defs); err != nil {
		return nil, err
	}
	r.o.Report("copying %d tables from %s as of %v", len(r.snap.tables)-len(r.taken), r.source.host, r.snap.place)
	rows, bytes, err := r.contents(ctx)
	if err != nil {
		return nil, err
	}
	r.o.Report("indexes, constraints, triggers")
	if err := r.index(ctx, defs.indexes); err != nil {
		return nil, err
	}
	if err := r.restore(ctx, defs.attached, "join indexes of partitions", true); err != nil { // those that are joined already stay so
		return nil, err
	}
	pointIndexed.Pass()
	if err := r.forward(ctx); err != nil {
		return nil, err
	}
	if err := r.tighten(ctx); err != nil {
		return nil, err
	}
	if err := r.computedAlike(ctx); err != nil {
		return nil, err
	}
	if !r.posted {
		if err := r.restore(ctx, defs.post+posted, "restore constraints and triggers", true); err != nil {
			return nil, err
		}
	}
	for _, f := range []func(context.Context) error{r.rename, r.remark, r.permit} {
		if err := f(ctx); err != nil {
			return nil, err
		}
	}
	pointFilled.Pass()
	if err := r.complete(ctx); err != nil {
		return nil, err
	}
	return &ResyncResult{Source: r.source.host, Place: r.snap.place, Rows: rows, Bytes: bytes, Kept: len(r.taken), Took: time.Since(began)}, nil
}

// prepare makes the target's database with all that comes before rows, or goes on with what an
// attempt before has left there.
func (r *resync) prepare(ctx context.Context, defs *dumped) error {
	create, err := r.creation(ctx)
	if err != nil {
		return err
	}
	digest, err := r.digest(defs, create)
	if err != nil {
		return err
	}
	if err := r.readOwn(ctx); err != nil {
		return err
	}
	if there, err := r.takeUp(ctx, digest); err != nil || there {
		return err
	}
	r.o.Report("making the database on %s anew", r.target.host)
	if err := r.makeAnew(ctx, create); err != nil {
		return r.target.fail("make the database anew", err)
	}
	pointEmptied.Pass()
	if err := r.restore(ctx, defs.schemas, "restore schemas", false); err != nil {
		return err
	}
	if err := r.extend(ctx); err != nil {
		return err
	}
	if err := r.restore(ctx, defs.pre, "restore definitions", false); err != nil {
		return err
	}
	if err := r.alike(ctx); err != nil {
		return err
	}
	return r.record(ctx, digest)
}

// await waits until the set has taken the copy back.
func (r *resync) await(ctx context.Context) bool {
	if r.o.Wait < 0 {
		return false
	}
	r.o.Report("complete; waiting for the program that uses the set to bring it up to date")
	ctx, cancel := context.WithTimeout(ctx, r.o.Wait)
	defer cancel()
	for ctx.Err() == nil {
		if v := newestView(askAll(ctx, r.cfg)); v != nil && v.Has(r.target.id) {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
	return false
}
