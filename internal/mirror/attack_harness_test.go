package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// arena is a rig under attack: one database of each of its servers, mirrored.
// Several arenas may use the same servers, as long as none of them is killed.
type arena struct {
	rig
	db string
}

// trial says how an arena differs from the ordinary.
type trial struct {
	schema string // run on each member before init
	config func(*Config)
}

var arenas atomic.Int32

// ground starts servers for arenas.
func ground(t *testing.T, n int, settings map[string]string) []*pgtest.Server {
	t.Helper()
	return pgtest.Set(t, n, pgtest.Options{Settings: settings})
}

// on makes a set of a new database on each of the servers.
func (x trial) on(t *testing.T, servers []*pgtest.Server) *arena {
	t.Helper()
	a := x.bare(t, servers)
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := Init(ctx, a.cfg, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	a.open()
	if a.cfg.FlushInterval == time.Hour {
		a.ack() // the first flush is everybody's, and comes unasked
	}
	return a
}

// bare is an arena before init.
func (x trial) bare(t *testing.T, servers []*pgtest.Server) *arena {
	t.Helper()
	a := &arena{rig: rig{t: t, servers: servers}, db: fmt.Sprintf("arena%d", arenas.Add(1))}
	for _, s := range servers {
		s.Exec(t, `CREATE DATABASE `+a.db)
		conn, err := pgconn.ParseConfig(s.DSN(a.db))
		if err != nil {
			t.Fatal(err)
		}
		a.cfg.Members = append(a.cfg.Members, MemberConfig{Conn: conn})
	}
	for id := range servers {
		if x.schema != "" {
			a.exec(a.clientOf(health.MemberID(id+1)), x.schema)
		}
	}
	a.cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if x.config != nil {
		x.config(&a.cfg)
	}
	unhurried(&a.cfg)
	return a
}

// quiet keeps the set from shipping what nobody asked it to ship, so that a
// commit stays unacknowledged for as long as the test wants.
func quiet(c *Config) { c.FlushInterval = time.Hour }

func (a *arena) client() *pgx.Conn {
	a.t.Helper()
	return a.clientOf(a.set.View().Leader)
}

// clientOf connects as an application's connection does.
func (a *arena) clientOf(id health.MemberID) *pgx.Conn { return a.connect(id, "postgres") }

// clientAs connects to the leader as an ordinary role.
func (a *arena) clientAs(role string) *pgx.Conn { return a.connect(a.set.View().Leader, role) }

func (a *arena) connect(id health.MemberID, role string) *pgx.Conn {
	a.t.Helper()
	cfg, err := pgx.ParseConfig(a.server(id).DSN(a.db))
	if err != nil {
		a.t.Fatal(err)
	}
	cfg.User = role
	cfg.RuntimeParams["pgdist.conn"] = uuid.NewString()
	c, err := pgx.ConnectConfig(a.ctx(), cfg)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx) // the server may be gone, as the test wanted
	})
	return c
}

// same checks that all in-sync members hold the same bytes, and that these are
// all members there are.
func (a *arena) same() {
	a.t.Helper()
	a.whole()
	if err := a.set.Flush(a.ctx()); err != nil {
		a.t.Fatal(err)
	}
	a.equal()
}

// equal compares the in-sync members as they are.
func (a *arena) equal() {
	a.t.Helper()
	var dsns []string
	for _, id := range a.set.View().InSync {
		dsns = append(dsns, a.server(id).DSN(a.db))
	}
	if len(dsns) > 1 {
		pgtest.Digest(a.t, dsns...)
	}
}

// whole waits until every member is in sync.
func (a *arena) whole() {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	for v := a.set.View(); len(v.InSync) != len(a.servers); {
		var err error
		if v, err = a.set.WaitView(ctx, v.Epoch); err != nil {
			a.states()
			a.t.Fatalf("not all members came in sync: %v", a.set.View())
		}
	}
}

// calm waits until the set has dealt with the loss of a member: a connection that
// breaks has it flush unasked, even a quiet one.
func (a *arena) calm(lost health.MemberID) {
	a.t.Helper()
	a.await("the set hears of the loss", func() bool { return a.set.downErr(lost) != nil })
	for since := time.Now(); time.Since(since) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
		if a.set.suspect.Load() {
			since = time.Now()
		}
	}
}

func (a *arena) states() {
	a.t.Helper()
	for _, id := range a.set.sortedIDs() {
		n := a.set.members.get(id).note.Load()
		a.t.Logf("member %d: %s: %v", id, n.Text, n.Err)
	}
}

// sub runs f as a subtest on the same set.
func (a *arena) sub(name string, f func(*arena)) {
	a.t.Run(name, func(t *testing.T) {
		b := *a
		b.t = t
		if v := b.set.View(); len(v.InSync) != len(b.servers) {
			t.Fatalf("the set was broken before: %v", v)
		}
		f(&b)
		b.same()
	})
}

// steady is sub for what must go by without the view changing: no follower
// refuses what the leader did, and no leader falls over it.
func (a *arena) steady(name string, f func(*arena)) {
	a.sub(name, func(a *arena) {
		before := a.set.View()
		f(a)
		if err := a.set.Flush(a.ctx()); err != nil {
			a.t.Fatal(err)
		}
		a.unchanged(before)
	})
}

func (a *arena) unchanged(before *health.View) {
	a.t.Helper()
	if after := a.set.View(); after.Epoch != before.Epoch {
		a.states()
		a.t.Fatalf("the view changed from %v to %v", before, after)
	}
}

// exec runs statements and waits for nothing.
func (a *arena) exec(c *pgx.Conn, sql ...string) {
	a.t.Helper()
	for _, q := range sql {
		if _, err := c.Exec(a.ctx(), q, pgx.QueryExecModeSimpleProtocol); err != nil {
			a.t.Fatalf("%s: %v", short(q), err)
		}
	}
}

// announce prepares for one DDL statement in an open transaction.
func (a *arena) announce(c *pgx.Conn, sql string) {
	a.t.Helper()
	if _, err := c.Exec(a.ctx(), `SELECT set_config('pgdist.ddl', $1, true)`, sql); err != nil {
		a.t.Fatal(err)
	}
}

// tx runs statements in one transaction and waits for its acknowledgement;
// those that begin with "ddl: " are announced.
func (a *arena) tx(c *pgx.Conn, sql ...string) {
	a.t.Helper()
	if err := a.try(c, sql...); err != nil {
		a.t.Fatal(full(err))
	}
	a.ack()
}

// try is tx that returns the first error, after a rollback, and waits for nothing.
func (a *arena) try(c *pgx.Conn, sql ...string) (err error) {
	a.t.Helper()
	a.exec(c, `BEGIN`)
	for _, q := range sql {
		if text, ok := strings.CutPrefix(q, "ddl: "); ok {
			a.announce(c, text)
			q = text
		}
		if _, err = c.Exec(a.ctx(), q, pgx.QueryExecModeSimpleProtocol); err != nil {
			a.exec(c, `ROLLBACK`)
			return err
		}
	}
	_, err = c.Exec(a.ctx(), `COMMIT`)
	return err
}

// refused checks that a transaction fails with a SQLSTATE and says what.
func (a *arena) refused(c *pgx.Conn, state, what string, sql ...string) {
	a.t.Helper()
	err := a.try(c, sql...)
	if err == nil || sqlState(err) != state || !strings.Contains(full(err), what) {
		a.t.Errorf("%s:\ngot  %s\nwant SQLSTATE %s about %q", short(strings.Join(sql, "; ")), full(err), state, what)
	}
}

// full is an error with all that its server had to say.
func full(err error) string {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return "no error"
	case errors.As(err, &pg):
		return strings.Join([]string{err.Error(), pg.Detail, pg.Hint, pg.Where}, "; ")
	}
	return err.Error()
}

// query reads one text from a member; NULL is "NULL".
func (a *arena) query(id health.MemberID, sql string) string {
	a.t.Helper()
	c, err := pgx.Connect(a.ctx(), a.server(id).DSN(a.db))
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close(a.ctx())
	var s *string
	if err := c.QueryRow(a.ctx(), sql).Scan(&s); err != nil {
		a.t.Fatalf("member %d: %s: %v", id, sql, err)
	}
	if s == nil {
		return "NULL"
	}
	return *s
}

// everywhere checks what a query yields on every member in sync.
func (a *arena) everywhere(want, sql string) {
	a.t.Helper()
	for _, id := range a.set.View().InSync {
		if got := a.query(id, sql); got != want {
			a.t.Errorf("member %d: %s: got %q, want %q", id, short(sql), got, want)
		}
	}
}

// until polls a condition on a member.
func (a *arena) until(id health.MemberID, sql string) {
	a.t.Helper()
	c, err := pgx.Connect(a.ctx(), a.server(id).DSN(a.db))
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close(a.ctx())
	for deadline := time.Now().Add(ages); ; {
		var ok bool
		if err := c.QueryRow(a.ctx(), sql).Scan(&ok); err != nil {
			a.t.Fatalf("member %d: %s: %v", id, sql, err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("member %d: never came true: %s", id, sql)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// mirrorWaits is true once the mirror itself waits for a lock.
const mirrorWaits = `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'pgdist%' AND datname = current_database() AND wait_event_type = 'Lock')`

// newTerm waits for a view of a term newer than v's. A quiet set notices a crash
// that is over quickly only when somebody wants something of it.
func (a *arena) newTerm(v *health.View) *health.View {
	a.t.Helper()
	done := make(chan error, 1)
	go func() { done <- a.set.Flush(a.ctx()) }()
	defer func() {
		if err := <-done; err != nil {
			a.t.Errorf("flush under a new leader: %v", err)
		}
	}()
	for now := v; ; {
		var err error
		if now, err = a.set.WaitView(a.ctx(), now.Epoch); err != nil {
			a.states()
			a.t.Fatalf("no new leader after %v: %v (%v)", v, err, a.set.lastErr.Load())
		}
		if now.Term != v.Term {
			return now
		}
	}
}

// killLeader is kill -9 of the leader's server; it returns once another leads.
func (a *arena) killLeader() health.MemberID {
	a.t.Helper()
	v := a.set.View()
	a.kill(v.Leader)
	a.newTerm(v)
	return v.Leader
}

func (a *arena) kill(ids ...health.MemberID) {
	a.t.Helper()
	for _, id := range ids {
		if err := a.server(id).Kill(); err != nil {
			a.t.Fatal(err)
		}
	}
}

// start brings servers back.
func (a *arena) start(ids ...health.MemberID) {
	a.t.Helper()
	for _, id := range ids {
		if err := a.server(id).StartAgain(); err != nil {
			a.t.Fatal(err)
		}
	}
}

// follower is an in-sync member that does not lead.
func (a *arena) follower() health.MemberID {
	v := a.set.View()
	i := slices.IndexFunc(v.InSync, func(id health.MemberID) bool { return id != v.Leader })
	return v.InSync[i]
}

func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
