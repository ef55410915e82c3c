//go:build unix

package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// Fault is something that happens to a server.
type Fault string

// The faults. After each the server is up again, with its own data.
const (
	KillServer     Fault = "kill -9"            // every process at once; back after a while
	KillPostmaster Fault = "kill -9 postmaster" // its children end by themselves
	KillBackend    Fault = "kill -9 backend"    // crash recovery, without a restart
	Terminate      Fault = "terminate backends" // pg_terminate_backend of every session
	Freeze         Fault = "freeze"             // SIGSTOP, SIGCONT after a while
	Restart        Fault = "restart"            // fast shutdown, up at once
	Immediate      Fault = "immediate shutdown" // back after a while
)

// AllFaults returns every fault there is.
func AllFaults() []Fault {
	return []Fault{KillServer, KillPostmaster, KillBackend, Terminate, Freeze, Restart, Immediate}
}

// Faults disturbs one random server at a time. The zero values of all fields
// but Servers are the documented defaults.
type Faults struct {
	Servers []*pgtest.Server
	Kinds   []Fault       // which to choose from; empty is AllFaults
	Seed    int64         // of all choices; 0 picks one. It is logged.
	Every   time.Duration // pause after a server's return, on average; 0 is 3 seconds
	Away    time.Duration // how long a server is down or frozen, on average; 0 is 2 seconds
	// Rejoined is called when server i accepts queries again. It returns once
	// the system under test uses it again; nil returns at once.
	Rejoined func(ctx context.Context, i int) error
	// RejoinTimeout bounds a call of Rejoined; 0 is two minutes.
	RejoinTimeout time.Duration
	// Logf gets one line for each fault; nil discards them.
	Logf func(format string, args ...any)
}

// Injected is one fault that happened.
type Injected struct {
	Server int
	Fault  Fault
	At     time.Time
	Away   time.Duration // from the fault until the server accepted queries
	Rejoin time.Duration // from then until Rejoined returned
}

func (f Faults) filled() Faults {
	if len(f.Kinds) == 0 {
		f.Kinds = AllFaults()
	}
	if f.Seed == 0 {
		f.Seed = rand.Int64()
	}
	if f.Every <= 0 {
		f.Every = 3 * time.Second
	}
	if f.Away <= 0 {
		f.Away = 2 * time.Second
	}
	if f.RejoinTimeout <= 0 {
		f.RejoinTimeout = 2 * time.Minute
	}
	if f.Rejoined == nil {
		f.Rejoined = func(context.Context, int) error { return nil }
	}
	if f.Logf == nil {
		f.Logf = func(string, ...any) {}
	}
	return f
}

// Run injects faults until ctx ends and returns what it did. All servers are
// up, and have rejoined, when it returns without an error. An error ends it:
// a server that did not come back, or that was not taken back.
func (f Faults) Run(ctx context.Context) ([]Injected, error) {
	f = f.filled()
	if len(f.Servers) == 0 {
		return nil, errors.New("torture: no server to disturb")
	}
	f.Logf("torture: faults with seed %d", f.Seed)
	rng := rand.New(rand.NewPCG(uint64(f.Seed), 0))
	around := func(d time.Duration) time.Duration { return d/2 + time.Duration(rng.Int64N(int64(d))) }
	var done []Injected
	for {
		pause, away := around(f.Every), around(f.Away)
		i, kind := rng.IntN(len(f.Servers)), f.Kinds[rng.IntN(len(f.Kinds))]
		if !wait(ctx, pause) {
			return done, nil
		}
		did, err := f.inject(ctx, i, kind, away, rng)
		if err != nil {
			return done, fmt.Errorf("torture: server %d, %s: %w", i, kind, err)
		}
		f.Logf("torture: server %d: %s, away %v, rejoined after %v", i, kind, did.Away.Round(time.Millisecond), did.Rejoin.Round(time.Millisecond))
		done = append(done, did)
	}
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// inject disturbs a server and brings it back, even when ctx ends meanwhile.
func (f Faults) inject(ctx context.Context, i int, kind Fault, away time.Duration, rng *rand.Rand) (Injected, error) {
	did := Injected{Server: i, Fault: kind, At: time.Now()}
	f.Logf("torture: server %d: %s", i, kind)
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.RejoinTimeout)
	defer cancel()
	if err := disturb(after, f.Servers[i], kind, func() { wait(ctx, away) }, rng); err != nil {
		return did, err
	}
	if err := f.Servers[i].WaitReady(after); err != nil {
		return did, err
	}
	back := time.Now()
	did.Away = back.Sub(did.At)
	if err := f.Rejoined(after, i); err != nil {
		return did, fmt.Errorf("rejoin: %w", err)
	}
	did.Rejoin = time.Since(back)
	return did, nil
}

// disturb does it; absent passes the time for which the server is away.
func disturb(ctx context.Context, s *pgtest.Server, kind Fault, absent func(), rng *rand.Rand) error {
	down := func(how func() error) error {
		if err := how(); err != nil {
			return err
		}
		absent()
		return s.StartAgain()
	}
	switch kind {
	case KillServer:
		return down(s.Kill)
	case KillPostmaster:
		return down(s.KillPostmaster)
	case Immediate:
		return down(func() error { return s.Stop(pgtest.Immediate) })
	case Restart:
		return s.Restart()
	case Freeze:
		if err := s.SigStop(); err != nil {
			return err
		}
		absent()
		return s.SigCont()
	case Terminate:
		return terminate(ctx, s)
	case KillBackend:
		return killBackend(ctx, s, rng)
	}
	return fmt.Errorf("unknown fault %q", kind)
}

const others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"

func terminate(ctx context.Context, s *pgtest.Server) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) "+others)
	return errors.Join(err, conn.Close(ctx))
}

// killBackend kills one client's session, or its own if there is no other, and
// waits until the server has noticed.
func killBackend(ctx context.Context, s *pgtest.Server, rng *rand.Rand) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx) // the crash ends it
	if err := strike(ctx, s, conn, rng); err != nil {
		return err
	}
	for err == nil { // every session ends with the crash
		_, err = conn.Exec(ctx, "SELECT pg_sleep(0.01)")
	}
	return ctx.Err()
}

// strike kills a session, another one if the chosen one has just left.
func strike(ctx context.Context, s *pgtest.Server, conn *pgx.Conn, rng *rand.Rand) (err error) {
	for range 5 {
		rows, qerr := conn.Query(ctx, "SELECT pid "+others+" ORDER BY pid")
		if qerr != nil {
			return qerr
		}
		pids, qerr := pgx.CollectRows(rows, pgx.RowTo[int])
		if qerr != nil {
			return qerr
		}
		victim := int(conn.PgConn().PID())
		if len(pids) > 0 {
			victim = pids[rng.IntN(len(pids))]
		}
		if err = s.KillBackend(victim); err == nil {
			return nil
		}
	}
	return err
}
