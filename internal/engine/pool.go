package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/puddle/v2"
)

// PoolConfig limits the connections kept to each member. Each member has up to
// two pools, one for reads and one, on the leader, for writes; the limits hold
// for each.
type PoolConfig struct {
	// Size is the greatest number of connections in a pool; 0 is 32.
	Size int
	// MaxLifetime closes a connection that old when it is next free; 0 is one
	// hour, negative is never.
	MaxLifetime time.Duration
	// MaxIdle closes a connection unused for that long; 0 is five minutes,
	// negative is never.
	MaxIdle time.Duration
	// WaitTimeout bounds the wait for a connection while all are in use; 0 is
	// thirty seconds, negative is as long as the statement's context allows.
	WaitTimeout time.Duration
	// Rotate has no session get the connection to a database that it had there last, to find what
	// depends on a connection and should not. If there is no other one, the pool closes the one it
	// has and connects again, so it is slow. What a session is pinned to stays.
	Rotate bool
}

const never = time.Duration(math.MaxInt64)

func orDefault(d, def time.Duration) time.Duration {
	switch {
	case d == 0:
		return def
	case d < 0:
		return never
	}
	return d
}

func (c PoolConfig) withDefaults() PoolConfig {
	if c.Size == 0 {
		c.Size = 32
	}
	c.MaxLifetime = orDefault(c.MaxLifetime, time.Hour)
	c.MaxIdle = orDefault(c.MaxIdle, 5*time.Minute)
	c.WaitTimeout = orDefault(c.WaitTimeout, 30*time.Second)
	return c
}

func (c PoolConfig) validate() error {
	if c.Size < 0 {
		return fmt.Errorf("pool_size is %d: it must be at least 1, or 0 for the default", c.Size)
	}
	return nil
}

type resource = puddle.Resource[*conn]

// What a connection is to its pool.
const (
	taken  int32 = iota // leased, or being closed
	parked              // free
)

// pool keeps the connections to one member for one purpose. puddle makes them,
// limits their number and queues those who wait; free ones are parked here,
// where whoever used one last takes it again by one compare-and-swap: a client
// that reads in a loop stays with a server process whose caches are warm.
type pool struct {
	member  *member
	purpose purpose
	conn    *pgx.ConnConfig // how to connect
	config  PoolConfig
	user    string // of a tenant, whose connections are limited; "" is the Config's own
	p       *puddle.Pool[*conn]
	queued  atomic.Int64 // before the member's gate
	exist   atomic.Int64 // made, or being made
	inUse   atomic.Int64 // leased
	waiters atomic.Int64 // in or before puddle's queue
	renewed atomic.Int64 // connections that were begun before are closed when they are free

	mu   sync.Mutex // guards what follows
	all  map[*conn]struct{}
	free []*conn         // parked ones, and some that were taken again meanwhile
	ctx  context.Context // ends when the member is excluded: dialling stops
	stop context.CancelFunc
}

func newPool(m *member, p purpose, dest *pgx.ConnConfig, config PoolConfig, dial DialFunc) (*pool, error) {
	pl := &pool{member: m, purpose: p, conn: dest, config: config, all: map[*conn]struct{}{}}
	pl.ctx, pl.stop = context.WithCancel(context.Background())
	var err error
	pl.p, err = puddle.NewPool(&puddle.Config[*conn]{
		Constructor: func(ctx context.Context) (*conn, error) { return pl.construct(ctx, dial) },
		Destructor:  pl.destruct,
		MaxSize:     int32(min(config.Size, math.MaxInt32)),
	})
	return pl, err
}

func (pl *pool) construct(ctx context.Context, dial DialFunc) (made *conn, err error) {
	pl.exist.Add(1)
	defer func() {
		if err != nil {
			pl.exist.Add(-1)
		}
	}()
	pl.mu.Lock()
	alive := pl.ctx
	pl.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(alive, cancel)()
	if pl.user != "" {
		if err := pl.member.make(ctx, pl.user); err != nil {
			return nil, err
		}
		defer func() {
			if made == nil {
				pl.member.unmake(pl.user)
			}
		}()
	}
	began := nanotime()
	c, err := dialFor(ctx, dial, pl.member, pl.conn, pl.purpose)
	if err != nil {
		return nil, err
	}
	c.pool, c.made = pl, began
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.all[c] = struct{}{}
	return c, nil
}

func (pl *pool) destruct(c *conn) {
	c.destroy()
	pl.exist.Add(-1)
	if pl.user != "" {
		pl.member.unmake(pl.user)
	}
	pl.mu.Lock()
	defer pl.mu.Unlock()
	delete(pl.all, c)
}

// acquire leases a connection, waiting for one if all are in use. Its errors
// are ErrPoolWait, what dialling said, or ctx's. near, if not nil, is taken if
// it is free and the pool's. by is who gets it, nil for the engine itself.
func (pl *pool) acquire(ctx context.Context, near *conn, by *Session) (*conn, error) {
	if pl.user != "" && pl.member.gate.on.Load() {
		return pl.acquireLimited(ctx, near, by)
	}
	return pl.lease(ctx, near, by)
}

// acquireLimited is acquire where there are limits for all users together. The time spent at
// the gate is taken off that for the pool.
func (pl *pool) acquireLimited(ctx context.Context, near *conn, by *Session) (*conn, error) {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if pl.config.WaitTimeout != never {
		limited, cancel = context.WithTimeout(ctx, pl.config.WaitTimeout)
	}
	defer cancel()
	pl.queued.Add(1)
	pl.member.awaited.Add(1)
	err := pl.member.gate.enter(limited, pl.user)
	pl.queued.Add(-1)
	pl.member.awaited.Add(-1)
	if err != nil {
		return nil, pl.waited(ctx, err)
	}
	c, err := pl.lease(limited, near, by)
	if err != nil {
		pl.member.gate.leave(pl.user)
		return nil, pl.waited(ctx, err)
	}
	c.admitted = true
	return c, nil
}

// waited is what a statement hears that waited too long; ctx is its own.
func (pl *pool) waited(ctx context.Context, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || errors.Is(err, ErrPoolWait) {
		return err
	}
	return &Error{
		Op: "wait for a connection", Member: pl.member.id, Host: pl.member.host, Err: ErrPoolWait,
		Hint: fmt.Sprintf("as many as are allowed to all users, or to this one, were in use for %v: raise the limit, or the time, or use fewer at once", pl.config.WaitTimeout),
	}
}

// lease is acquire within the pool.
func (pl *pool) lease(ctx context.Context, near *conn, by *Session) (c *conn, err error) {
	if pl.config.Rotate && by != nil {
		defer func() { by.note(c) }()
	} else {
		by = nil
	}
	if c := pl.acquireNow(near, by); c != nil {
		return c, nil
	}
	pl.waiters.Add(1)
	pl.member.awaited.Add(1)
	defer func() {
		pl.waiters.Add(-1)
		pl.member.awaited.Add(-1)
	}()
	if c := pl.pop(by); c != nil { // parked before it could see that somebody waits
		pl.inUse.Add(1)
		return c, nil
	}
	if by != nil && pl.exist.Load() >= int64(pl.config.Size) {
		if c := pl.pop(nil); c != nil { // its own, which takes the place of another one
			pl.inUse.Add(1)
			pl.discard(c)
		}
	}
	if pl.config.WaitTimeout == never || pl.inUse.Load() < int64(pl.config.Size) {
		return pl.fetch(ctx, by) // connecting has a limit of its own
	}
	limited, cancel := context.WithTimeout(ctx, pl.config.WaitTimeout)
	defer cancel()
	c, err = pl.fetch(limited, by)
	if err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, &Error{
			Op: "wait for a connection", Member: pl.member.id, Host: pl.member.host, Err: ErrPoolWait,
			Hint: fmt.Sprintf("all %d were in use for %v: raise pool_size, or pool_wait_timeout, or use fewer at once", pl.config.Size, pl.config.WaitTimeout),
		}
	}
	return c, err
}

// acquireNow leases a connection that is free, nil if none is.
func (pl *pool) acquireNow(near *conn, by *Session) *conn {
	if !pl.config.Rotate {
		by = nil
	}
	c := near
	if c == nil || c.pool != pl || by != nil || !c.take() {
		if c = pl.pop(by); c == nil {
			return nil
		}
	}
	pl.inUse.Add(1)
	return c
}

// fetch has puddle make a connection, or hand over one that is given back.
func (pl *pool) fetch(ctx context.Context, by *Session) (*conn, error) {
	for {
		r, err := pl.p.Acquire(ctx)
		if err != nil {
			if errors.Is(err, puddle.ErrClosedPool) {
				return nil, ErrClosed
			}
			return nil, err
		}
		c := r.Value()
		if c.IsClosed() || by != nil && by.had[pl] == c {
			r.Destroy()
			continue
		}
		c.res = r
		c.state.Store(taken)
		pl.inUse.Add(1)
		return c, nil
	}
}

// pop takes the connection that was parked last, of those that by, if not nil, has not had
// last. It returns nil if there is none.
func (pl *pool) pop(by *Session) *conn {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for n := len(pl.free) - 1; n >= 0; n-- {
		c := pl.free[n]
		if by != nil && by.had[pl] == c {
			continue
		}
		pl.free = slices.Delete(pl.free, n, n+1)
		c.listed.Store(false)
		if c.take() {
			return c
		}
	}
	return nil
}

// take makes a parked connection the caller's.
func (c *conn) take() bool { return c.state.CompareAndSwap(parked, taken) }

// release parks a connection, or closes it if it is not as it was. now is the
// present on nanotime's clock.
func (pl *pool) release(c *conn, now int64) {
	if c.admitted { // it may be somebody else's as soon as it is parked
		c.admitted = false
		defer pl.member.gate.leave(pl.user)
	}
	if !c.usable() || pl.member.state.Load() == excluded || pl.aged(c, now) {
		pl.discard(c)
		return
	}
	pl.inUse.Add(-1)
	if pl.waiters.Load() > 0 {
		c.res.Release()
		return
	}
	c.parkedAt = now
	c.state.Store(parked)
	if c.listed.CompareAndSwap(false, true) {
		pl.mu.Lock()
		pl.free = append(pl.free, c)
		pl.mu.Unlock()
	}
	if (pl.waiters.Load() > 0 || pl.member.state.Load() == excluded) && c.take() {
		if pl.member.state.Load() == excluded {
			c.res.Destroy()
			return
		}
		c.res.Release()
	}
}

// discard closes a leased connection.
func (pl *pool) discard(c *conn) {
	if c.admitted {
		c.admitted = false
		defer pl.member.gate.leave(pl.user)
	}
	pl.inUse.Add(-1)
	c.res.Destroy()
}

// acquireThis leases one certain connection if it is free and was not leased
// to anyone since stamp.
func (pl *pool) acquireThis(c *conn, stamp uint64) bool {
	if !c.take() {
		return false
	}
	pl.inUse.Add(1)
	if c.stamp == stamp {
		if pl.user != "" && pl.member.gate.on.Load() {
			pl.member.gate.force(pl.user) // nobody could tell it to wait
			c.admitted = true
		}
		return true
	}
	pl.release(c, nanotime())
	return false
}

// exclude closes free connections, stops dialling and kills what can be run elsewhere.
func (pl *pool) exclude() {
	pl.mu.Lock()
	pl.stop()
	pl.mu.Unlock()
	pl.closeParked(func(*conn) bool { return true })
	pl.killStuck()
}

// closeParked closes the free connections for which which is true.
func (pl *pool) closeParked(which func(*conn) bool) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	keep := pl.free[:0]
	for _, c := range pl.free {
		c.listed.Store(false)
		if !c.take() {
			continue
		}
		if which(c) {
			c.res.Destroy()
			continue
		}
		c.state.Store(parked)
		if c.listed.CompareAndSwap(false, true) {
			keep = append(keep, c)
		}
	}
	clear(pl.free[len(keep):])
	pl.free = keep
	for _, r := range pl.p.AcquireAllIdle() {
		r.Destroy()
	}
}

// admit lets the pool dial again.
func (pl *pool) admit() {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.stop()
	pl.ctx, pl.stop = context.WithCancel(context.Background())
}

// killStuck kills what waits for a member that is excluded.
func (pl *pool) killStuck() {
	now := nanotime()
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for c := range pl.all {
		if c.stuck(now) {
			c.kill()
		}
	}
}

// trim closes connections that are free for too long, or too old.
func (pl *pool) trim() {
	now := nanotime()
	pl.closeParked(func(c *conn) bool {
		return time.Duration(now-c.parkedAt) > pl.config.MaxIdle || pl.aged(c, now)
	})
}

// aged tells whether a connection is too old to be used again.
func (pl *pool) aged(c *conn, now int64) bool {
	return time.Duration(now-c.made) > pl.config.MaxLifetime || c.made < pl.renewed.Load()
}

// renew has no connection be used again that was begun before.
func (pl *pool) renew() {
	now := nanotime()
	pl.renewed.Store(now)
	pl.closeParked(func(c *conn) bool { return pl.aged(c, now) })
}

// closeWait bounds how long closing waits for clients that keep a lease.
const closeWait = 5 * time.Second

// close ends every connection, leased ones included, and waits for that.
func (pl *pool) close() {
	pl.mu.Lock()
	pl.stop()
	for c := range pl.all {
		if c.state.Load() == taken {
			c.kill()
		}
	}
	pl.mu.Unlock()
	pl.closeParked(func(*conn) bool { return true })
	done := make(chan struct{})
	go func() {
		defer close(done)
		pl.p.Close()
	}()
	select {
	case <-done:
	case <-time.After(closeWait): // its sockets are closed; the rest is up to the client
	}
}

// note keeps in mind which connection a session has had.
func (s *Session) note(c *conn) {
	if c == nil {
		return
	}
	if s.had == nil {
		s.had = map[*pool]*conn{}
	}
	s.had[c.pool] = c
}
