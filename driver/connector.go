package driver

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"sync"

	"github.com/pgdist/pgdist/internal/engine"
)

var (
	_ driver.Connector = (*Connector)(nil)
	_ io.Closer        = (*Connector)(nil)
)

// Connector makes sessions on a set, for sql.OpenDB. sql.DB's Close closes it.
type Connector struct {
	shared *entry
	driver *Driver
	once   sync.Once
	err    error
}

// NewConnector checks config; nothing is connected yet. Connectors made here
// share nothing with others.
func NewConnector(config Config) (*Connector, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	return &Connector{shared: shared.join("", config), driver: &Driver{}}, nil
}

// Connect makes a session. The first one opens the set. Its errors are never
// driver.ErrBadConn.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	e, err := c.shared.engine(ctx)
	if err != nil {
		return nil, err
	}
	return &Conn{e: e, s: e.NewSession(engine.SessionOptions{})}, nil
}

// Driver returns the connector's driver.
func (c *Connector) Driver() driver.Driver { return c.driver }

// Close gives the set up. When the last connector of a DSN is closed, no
// connection and no goroutine of it is left.
func (c *Connector) Close() error {
	c.once.Do(func() { c.err = c.shared.leave() })
	return c.err
}

// Stats tells about each database of the set; nil before the first session.
func (c *Connector) Stats() []MemberStats {
	select {
	case c.shared.turn <- struct{}{}:
		defer func() { <-c.shared.turn }()
	default:
		return nil // being opened
	}
	if c.shared.e == nil {
		return nil
	}
	return memberStats(c.shared.e)
}

// registry holds the engines that are in use, by DSN.
type registry struct {
	mu      sync.Mutex // guards what follows, and users of entries
	entries map[string]*entry
}

var shared = registry{entries: map[string]*entry{}}

// entry is one engine with its users.
type entry struct {
	key    string
	config Config
	users  int
	turn   chan struct{} // holds one token while e is opened, read or closed
	e      *engine.Engine
	closed bool
}

// errClosed is what a closed connector answers.
var errClosed = errors.New("pgdist: the connector is closed")

// openEngine is engine.Open; tests over plain servers put their own here.
var openEngine = engine.Open

func (r *registry) join(key string, config Config) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[key]; key != "" && e != nil {
		e.users++
		return e
	}
	e := &entry{key: key, config: config, users: 1, turn: make(chan struct{}, 1)}
	if key != "" {
		r.entries[key] = e
	}
	return e
}

// engine returns the engine, opened if need be. An attempt that fails is made
// again next time.
func (e *entry) engine(ctx context.Context) (*engine.Engine, error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e.closed {
		return nil, errClosed
	}
	if e.e != nil {
		return e.e, nil
	}
	opened, err := openEngine(ctx, e.config.engine())
	if err != nil {
		return nil, err
	}
	e.e = opened
	return opened, nil
}

func (e *entry) leave() error {
	shared.mu.Lock()
	e.users--
	last := e.users == 0
	if last && e.key != "" {
		delete(shared.entries, e.key)
	}
	shared.mu.Unlock()
	if !last {
		return nil
	}
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	e.closed = true
	if e.e == nil {
		return nil
	}
	return e.e.Close()
}
