package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/register"
)

// AddOptions say which database becomes a member of a set, and how.
type AddOptions struct {
	// Member is how it is connected to.
	Member MemberConfig
	// Witness gives it a vote and none of the data.
	Witness bool
	// Votes is how many it has; below 0 as many as is usual: one, and the first member
	// one more if the number of members is even.
	Votes int
	// Jobs, Confirm, Wait and Progress are those of [ResyncOptions].
	Jobs     int
	Confirm  func(question string) error
	Wait     time.Duration
	Progress func(ResyncProgress)
	// Report hears what is being done, for people; nil is silent.
	Report func(format string, args ...any)
}

// Add makes a database a member of the set that cfg names, while programs use it: it is
// put on the list without a vote, gets a full copy, is brought up to date and only then
// has a vote. A witness has its vote at once. What was interrupted is gone on with by
// the same call. It returns the view in the end.
func Add(ctx context.Context, cfg Config, o AddOptions) (*health.View, error) {
	if o.Report == nil {
		o.Report = func(string, ...any) {}
	}
	host := o.Member.Host()
	cfg.Brief = true
	set, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	a := &addition{cfg: set.cfg, o: o, s: set, host: host}
	if isRegister(o.Member) {
		return a.register(ctx)
	}
	listed := seat(set.View(), host) != 0
	if !listed {
		if err := a.examine(ctx); err != nil {
			return nil, err
		}
	}
	if o.Witness {
		return a.witness(ctx, listed)
	}
	if !listed {
		o.Report("%s is put on the list of members", host)
		if err := a.list(ctx, 0); err != nil {
			return nil, err
		}
	}
	if err := a.fill(ctx); err != nil {
		return nil, fmt.Errorf("%w; the member is on the list, without a vote: run pgdist add again to go on, or pgdist remove to give up", err)
	}
	o.Report("%s is in sync; votes are given anew", host)
	if err := a.vote(ctx); err != nil {
		return nil, err
	}
	return set.View(), nil
}

// addition is one member being added.
type addition struct {
	cfg    Config
	o      AddOptions
	s      *Set
	host   string
	system string
}

func (a *addition) refuse(hint, format string, args ...any) error {
	return &Error{Op: "add", Host: a.host, Err: fmt.Errorf(format, args...), Hint: hint}
}

// examine refuses a server that cannot be a member, before anything is changed.
func (a *addition) examine(ctx context.Context) error {
	c, h, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	v := a.s.View()
	if h != nil {
		if h.Set != v.Set {
			return a.refuse("run there: pgdist uninstall DSN, if that set is not used any more", "it belongs to another set, %s", h.Set)
		}
		if has(v.Members, health.MemberID(h.Member)) {
			return a.refuse("name each database once", "it is member %d of the set already, under another address", h.Member)
		}
	}
	raw, err := c.one(ctx, factsSQL, text(a.o.Member.Conn.User))
	var f facts
	if err == nil {
		err = decode([]byte(raw), &f)
	}
	if err != nil {
		return &Error{Op: "add", Host: a.host, Err: err}
	}
	a.system = f.System
	i := slices.IndexFunc(v.Members, func(m health.Member) bool { return m.System == f.System })
	switch {
	case i >= 0:
		return a.refuse("give the member a server of its own, made by initdb", "it is the server of member %s, or a copy of its files (system %s)", v.Members[i].Host, f.System)
	case !f.Super:
		return a.refuse("it needs the user that ran init, or another superuser", "role %s is not a superuser", f.User)
	case f.Recovery:
		return a.refuse("use its primary, or promote it", "the server is a standby in recovery")
	case f.Fsync != "on" || f.FPW != "on":
		return a.refuse("turn both on: without them a crash loses what was acknowledged", "fsync is %s, full_page_writes is %s", f.Fsync, f.FPW)
	case f.Version < MinServer:
		return a.refuse("upgrade this server", "PostgreSQL %d is older than what pgdist needs", f.Version/10000)
	case !a.o.Witness:
		return a.newEnough(f.Version / 10000)
	}
	return nil
}

// newEnough refuses a server that no member in sync could be copied to.
func (a *addition) newEnough(major int) error {
	oldest := 0
	for _, id := range a.s.View().InSync {
		if m := a.s.members.get(id); m != nil && m.major.Load() != 0 && (oldest == 0 || int(m.major.Load()) < oldest) {
			oldest = int(m.major.Load())
		}
	}
	if major >= oldest {
		return nil
	}
	return a.refuse(fmt.Sprintf("give the member a server of PostgreSQL %d or later: a copy goes to the same major version or a newer one", oldest),
		"its PostgreSQL %d is older than what the members in sync have, %d", major, oldest)
}

// reach connects to the database, or, where there is none of that name, to another of
// its server; it tells what the database says of itself, nil if nothing.
func (a *addition) reach(ctx context.Context) (*conn, *here, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	for {
		c, h, err := a.ask(ctx)
		if sqlState(err) != "57P01" || !sleep(ctx, switchPause) { // it is: another program's proposal ended ours
			return c, h, err
		}
	}
}

func (a *addition) ask(ctx context.Context) (*conn, *here, error) {
	c, err := dial(ctx, a.o.Member.Conn, nil)
	if noDatabase(err) {
		other := a.o.Member.Conn.Copy()
		other.Database = "postgres"
		c, err = dial(ctx, other, nil)
		if err == nil {
			return c, nil, nil
		}
	}
	if err != nil {
		return nil, nil, &Error{Op: "add", Host: a.host, Err: causeOf(ctx, err), Hint: connectHint(err, a.o.Member)}
	}
	h, err := c.where(ctx)
	if err != nil && !errors.Is(err, ErrNotInstalled) && !errors.Is(err, ErrHalfCopied) {
		c.close()
		return nil, nil, &Error{Op: "add", Host: a.host, Err: causeOf(ctx, err)}
	}
	return c, h, nil
}

// list puts the database on the list, with so many votes.
func (a *addition) list(ctx context.Context, n int) error {
	return a.s.relist(ctx, a.o.Member, func(v *health.View) (health.Intent, bool, error) {
		if seat(v, a.host) != 0 {
			return health.Intent{}, true, nil
		}
		return health.Intent{Add: &health.Member{ID: v.NextID(), Host: a.host, Weight: n}}, false, nil
	})
}

// fill copies the data there, unless that is done, and waits until the member is in sync.
func (a *addition) fill(ctx context.Context) error {
	for {
		h, err := a.look(ctx)
		if err != nil {
			return err
		}
		if h != nil {
			break
		}
		full := a.cfg
		full.Members = slices.DeleteFunc(slices.Clone(full.Members), func(m MemberConfig) bool { return m.Host() == a.host })
		full.Members = append(full.Members, a.o.Member)
		_, err = Resync(ctx, full, ResyncOptions{Member: a.host, Jobs: a.o.Jobs, Confirm: a.o.Confirm, Wait: a.o.Wait, Report: a.o.Report, Progress: a.o.Progress})
		if errors.Is(err, ErrBeingCopied) && sleep(ctx, claimEvery) {
			a.o.Report("a program that uses the set copies it already")
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	wait := a.o.Wait
	set(&wait, time.Minute)
	ctx, cancel := context.WithTimeout(ctx, max(wait, 0))
	defer cancel()
	for {
		v := a.s.View()
		if v.Has(seat(v, a.host)) {
			return nil
		}
		if _, err := a.s.WaitView(ctx, v.Epoch); err != nil {
			return a.refuse("see pgdist status", "its copy is complete, but it is not in sync yet")
		}
	}
}

// look tells what the member says of itself, nil if it has to be copied.
func (a *addition) look(ctx context.Context) (*here, error) {
	c, h, err := a.reach(ctx)
	if err != nil {
		return nil, err
	}
	c.close()
	v := a.s.View()
	if h != nil && h.Set == v.Set && health.MemberID(h.Member) != seat(v, a.host) {
		return nil, nil // it was a member before, under another number
	}
	if h != nil && h.Set != v.Set {
		return nil, a.refuse("run there: pgdist uninstall DSN, if that set is not used any more", "it belongs to another set, %s", h.Set)
	}
	return h, nil
}

// vote gives the member its votes, and the others what is usual then.
func (a *addition) vote(ctx context.Context) error {
	return a.s.relist(ctx, a.o.Member, func(v *health.View) (health.Intent, bool, error) {
		i := slices.IndexFunc(v.Members, func(m health.Member) bool { return m.Host == a.host })
		if i < 0 {
			return health.Intent{}, false, a.refuse("", "it was removed meanwhile")
		}
		me := v.Members[i]
		voting := func(m health.Member) bool { return m.Weight > 0 || m.ID == me.ID }
		before := slices.DeleteFunc(slices.Clone(v.Members), func(m health.Member) bool { return m.Weight == 0 })
		after := slices.DeleteFunc(slices.Clone(v.Members), func(m health.Member) bool { return !voting(m) })
		in := health.Intent{Votes: votes(before, after)}
		if a.o.Votes >= 0 {
			in.Votes = map[health.MemberID]int{me.ID: a.o.Votes}
		}
		_, elsewhere := v.Register()
		done := me.Weight > 0 || a.o.Votes == 0 || elsewhere && a.o.Votes < 0
		return in, done, nil
	})
}

// witness makes the database one.
func (a *addition) witness(ctx context.Context, listed bool) (*health.View, error) {
	if listed {
		return a.s.View(), nil
	}
	a.o.Report("installing what a vote needs on %s", a.host)
	v := a.s.View()
	id := v.NextID()
	if err := a.installWitness(ctx, v.Set, id); err != nil {
		return nil, err
	}
	err := a.s.relist(ctx, a.o.Member, func(v *health.View) (health.Intent, bool, error) {
		if seat(v, a.host) != 0 {
			return health.Intent{}, true, nil
		}
		if v.NextID() != id {
			return health.Intent{}, false, a.refuse("run pgdist add again", "another member was added meanwhile")
		}
		me := health.Member{ID: id, Host: a.host, System: a.system, Weight: max(a.o.Votes, 0), Witness: true}
		in := health.Intent{Add: &me}
		if r, there := v.Register(); there {
			return in, false, a.refuse("give it the votes first: pgdist register DSN --members", "all votes are with the register %s", r.Host)
		}
		if a.o.Votes < 0 {
			in.Votes = votes(v.Members, append(slices.Clone(v.Members), me))
		}
		return in, false, nil
	})
	if err != nil {
		return nil, err
	}
	return a.s.View(), nil
}

// register makes a register in etcd one voter beside the databases.
func (a *addition) register(ctx context.Context) (*health.View, error) {
	v := a.s.View()
	a.host = prefixed(a.host, v.Set)
	a.o.Member.Register = a.host
	if seat(v, a.host) != 0 {
		return v, nil
	}
	switch r, there := v.Register(); {
	case there:
		return nil, a.refuse("give the votes back first: pgdist register DSN --members", "all votes are with the register %s", r.Host)
	case !a.o.Witness:
		return nil, a.refuse("give --witness; to give it all votes: pgdist register DSN --etcd "+a.host, "it holds no data, so it can only vote")
	case register.IsFile(a.host):
		return nil, a.refuse("give it all votes: pgdist register DSN --file PATH", "a file serves one program, so it is no voter among others")
	}
	me, err := a.s.newRegister(ctx, a.host)
	if err != nil {
		return nil, err
	}
	me.Weight = max(a.o.Votes, 0)
	err = a.s.relist(ctx, a.o.Member, func(v *health.View) (health.Intent, bool, error) {
		if seat(v, a.host) != 0 {
			return health.Intent{}, true, nil
		}
		if v.NextID() != me.ID {
			return health.Intent{}, false, a.refuse("run pgdist add again", "another member was added meanwhile")
		}
		in := health.Intent{Add: &me}
		if a.o.Votes < 0 {
			in.Votes = votes(v.Members, append(slices.Clone(v.Members), me))
		}
		return in, false, nil
	})
	if err != nil {
		return nil, err
	}
	return a.s.View(), nil
}

// installWitness installs schema pgdist, without capture and without event triggers: the
// database is left as it is otherwise.
func (a *addition) installWitness(ctx context.Context, set string, id health.MemberID) error {
	c, h, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer func() { c.close() }()
	if h != nil && health.MemberID(h.Member) == id {
		return nil // from an attempt before
	}
	var name string
	if name, err = c.one(ctx, `SELECT current_database()`); err != nil {
		return &Error{Op: "add", Host: a.host, Err: err}
	}
	if h != nil { // of a number that it has no more; a member with data also had event triggers
		if err := a.s.cfg.uninstall(ctx, []MemberConfig{a.o.Member}, a.o.Report); err != nil {
			return err
		}
	}
	if name != a.o.Member.Conn.Database {
		if err := c.exec(ctx, "CREATE DATABASE "+quoteIdent(a.o.Member.Conn.Database)); err != nil {
			return &Error{Op: "add", Host: a.host, Err: err, Hint: "create the database by hand"}
		}
		c.close()
		if c, err = dial(ctx, a.o.Member.Conn, nil); err != nil {
			return &Error{Op: "add", Host: a.host, Err: err}
		}
	}
	lead := a.s.members.get(a.s.View().Leader)
	if lead == nil {
		return &Error{Op: "add", Host: a.host, Err: errSuperseded, Hint: "run it again"}
	}
	l, err := lead.connect(ctx)
	if err != nil {
		return err
	}
	mirror, err := l.one(ctx, `SELECT mirror FROM pgdist.meta`)
	l.close()
	if err != nil {
		return lead.fail("ask who mirrors", err)
	}
	before, err := c.scripts("01", "08")
	if err != nil {
		return err
	}
	after, err := c.scripts("09", "09")
	if err != nil {
		return err
	}
	err = c.exec(ctx, "BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL client_min_messages = warning;\n"+before)
	if err == nil {
		_, err = c.call(ctx, `INSERT INTO pgdist.meta (version, set_id, member, system, mirror) VALUES ($1::text::int, $2, $3::text::int, $4, $5)`,
			text(strconv.Itoa(Version)), text(set), text(strconv.Itoa(int(id))), text(a.system), text(mirror))
	}
	if err == nil {
		err = c.exec(ctx, "INSERT INTO pgdist.boot (term) VALUES (-1);\n"+after+"\nCOMMIT")
	}
	if err != nil {
		return &Error{Op: "add", Host: a.host, Err: err, Hint: "the role " + mirror + ", which mirrors, must exist there, too"}
	}
	return nil
}
