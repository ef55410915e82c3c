package driver

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/engine"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// fakeMirror acknowledges at once: its members are one plain server, or several
// that the test keeps equal.
type fakeMirror struct {
	view    atomic.Pointer[health.View]
	mu      sync.Mutex
	changed chan struct{}
	acks    atomic.Int64
	outcome engine.Outcome
	asked   []engine.Attempt
	other   map[health.MemberID]bool // of another major version than the leader
	onAck   func()                   // happens before an acknowledgement
}

func newFake(n int) *fakeMirror {
	v := &health.View{Set: "test", Epoch: 1, Term: 1, Leader: 1}
	for id := 1; id <= n; id++ {
		v.InSync = append(v.InSync, health.MemberID(id))
		v.Members = append(v.Members, health.Member{ID: health.MemberID(id), Weight: 1})
	}
	f := &fakeMirror{changed: make(chan struct{}), outcome: engine.RolledBack}
	f.view.Store(v)
	return f
}

func (f *fakeMirror) publish(change func(*health.View)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := *f.view.Load()
	v.Epoch++
	change(&v)
	f.view.Store(&v)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeMirror) View() *health.View { return f.view.Load() }
func (f *fakeMirror) Ack(_ context.Context, term int64, _ engine.Change) error {
	f.acks.Add(1)
	if f.onAck != nil {
		f.onAck()
	}
	if term != f.view.Load().Term {
		return engine.ErrTermOver
	}
	return nil
}
func (f *fakeMirror) Resolve(_ context.Context, a engine.Attempt) (engine.Outcome, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, a)
	return f.outcome, nil
}
func (f *fakeMirror) Acked() engine.Point                          { return engine.Point{} }
func (f *fakeMirror) Report(health.MemberID, time.Duration, error) {}
func (f *fakeMirror) Evicted(health.MemberID, uint32) bool         { return false }
func (f *fakeMirror) Current(context.Context, time.Duration) error { return nil }

func (f *fakeMirror) Confirmed() bool { return true }

func (f *fakeMirror) Changes() int64 { return 0 }

func (f *fakeMirror) Vouch(context.Context, health.MemberID) error { return nil }
func (f *fakeMirror) Usable(health.MemberID) bool                  { return true }
func (f *fakeMirror) Alike(id health.MemberID) bool                { return !f.other[id] }
func (f *fakeMirror) WaitView(ctx context.Context, epoch int64) (*health.View, error) {
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		if v := f.view.Load(); v.Epoch > epoch {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// common are three servers for tests that leave them as they are.
var common struct {
	once    sync.Once
	servers []*pgtest.Server
	err     error
	n       atomic.Int64
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range common.servers {
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// databases makes an empty database on each of n common servers.
func databases(tb testing.TB, n int) []string {
	tb.Helper()
	common.once.Do(func() {
		common.servers, common.err = pgtest.LaunchSet(3, pgtest.Options{FsyncOff: true})
	})
	if common.err != nil {
		tb.Fatal(common.err)
	}
	name := fmt.Sprintf("test%d", common.n.Add(1))
	dsns := make([]string, n)
	for i, s := range common.servers[:n] {
		s.Exec(tb, "CREATE DATABASE "+name)
		dsns[i] = s.DSN(name)
		takeDDL(tb, dsns[i])
	}
	return dsns
}

// takeDDL makes a plain server take what the engine announces, as the event
// trigger of a mirrored one does.
func takeDDL(tb testing.TB, dsn string) {
	tb.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.PgConn().Exec(ctx, `CREATE SCHEMA fake_mirror; CREATE FUNCTION fake_mirror.take() RETURNS event_trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_catalog.set_config('pgdist.ddl', '', true); END $$;
		CREATE EVENT TRIGGER fake_take ON ddl_command_end EXECUTE FUNCTION fake_mirror.take()`).ReadAll(); err != nil {
		tb.Fatal(err)
	}
}

// onServer runs SQL on one server directly.
func onServer(tb testing.TB, dsn, query string) {
	tb.Helper()
	if _, err := pgtest.Connect(tb, dsn).PgConn().Exec(context.Background(), query).ReadAll(); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
}

func dsnsOf(servers []*pgtest.Server) []string {
	var dsns []string
	for _, s := range servers {
		dsns = append(dsns, s.DSN())
	}
	return dsns
}

// openFake opens a database over plain servers whose mirror is a fake.
func openFake(tb testing.TB, change func(*Config), dsns ...string) (*sql.DB, *fakeMirror) {
	tb.Helper()
	fake := newFake(len(dsns))
	var config Config
	for _, dsn := range dsns {
		c, err := ParseConfig(dsn)
		if err != nil {
			tb.Fatal(err)
		}
		config.Members = append(config.Members, c.Members...)
	}
	if change != nil {
		change(&config)
	}
	connector, err := NewConnector(config)
	if err != nil {
		tb.Fatal(err)
	}
	byID := map[health.MemberID]int{}
	for i := range dsns {
		byID[health.MemberID(i+1)] = i
	}
	connector.shared.e, err = engine.New(config.engine(), fake, byID, nil)
	if err != nil {
		tb.Fatal(err)
	}
	db := sql.OpenDB(connector)
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db, fake
}
