package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/pgdist/pgdist/internal/engine"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("gateway: the server is closed")

// Server serves clients of one set, or of several.
type Server struct {
	live        atomic.Pointer[Config] // what Reload replaces
	*source                            // that of the DSN
	sets        atomic.Pointer[sets]   // all of them; Reload adds some
	maxPrepared int
	log         *slog.Logger
	tracer      trace.Tracer // nil for none
	began       time.Time
	keys        keys
	measures    measures
	servers     *servers
	loops       *loops // nil for none
	crowd       crowd
	history     history
	paused      atomic.Pointer[pausing]
	departing   atomic.Pointer[Handover] // where clients go who can go on elsewhere; nil for none
	secret      []byte                   // for the salts of users that do not exist

	ctx  context.Context // ends at Close
	stop context.CancelFunc
	work sync.WaitGroup // clients, parked ones included, and what goes on besides

	accepting sync.WaitGroup // calls of Serve; added to under mu
	reloading sync.Mutex     // held by Reload

	mu        sync.Mutex // guards what follows
	closing   bool
	holding   bool
	listeners map[net.Listener]struct{}
	clients   map[uint32]*client
	consoles  map[uint32]*console
	gone      totals // of the clients that left
	starting  int    // clients that have not logged in yet
	last      uint32
}

// tenant is a user with its connections and what it can log in by.
type tenant struct {
	*engine.Tenant
	mu   sync.Mutex // guards what follows
	cred *credential
}

func (t *tenant) set(cred *credential) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cred == nil || !cred.empty() { // who is trusted brings nothing, and may use what others brought
		t.cred = cred
	}
}

func (t *tenant) credential() *credential {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cred
}

// openEngine is engine.Open; tests over plain servers put their own here.
var openEngine = engine.Open

// Open opens the set. ctx bounds opening only.
func Open(ctx context.Context, config Config) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	s := &Server{
		began: time.Now(), servers: &servers{all: map[*upstream]struct{}{}}, maxPrepared: config.MaxPrepared, log: config.Logger, secret: make([]byte, 32),
		keys:      keys{all: map[string]*key{}},
		listeners: map[net.Listener]struct{}{}, clients: map[uint32]*client{}, consoles: map[uint32]*console{},
	}
	s.servers.caught = s.caught
	if config.Tracing != nil {
		s.tracer = config.Tracing.Tracer(tracerName)
	}
	if err := s.openSources(ctx, &config); err != nil {
		s.loops.stop()
		return nil, err
	}
	_, _ = rand.Read(s.secret) // never fails (crypto/rand)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.adopt(&config)
	s.spawn("watch", s.watch)
	for _, src := range s.sources() {
		s.spawn("follow", func() { s.follow(src) })
	}
	return s, nil
}

// loopsHelp tells whether reads can be run without waiting: over TLS, and when they wait
// for the other members, they cannot.
func loopsHelp(c *engine.Config) bool {
	return c.Consistency != engine.StrictLevel && !slices.ContainsFunc(c.Members, func(m engine.MemberConfig) bool { return m.Conn.TLSConfig != nil })
}

// conf is the configuration in force.
func (s *Server) conf() *Config { return s.live.Load() }

// adopt puts a configuration in force.
func (s *Server) adopt(c *Config) {
	s.live.Store(c)
	s.measures.slowFrom.Store(int64(c.SlowStatement))
	sets := s.sets.Load()
	for _, src := range sets.list {
		src.engine.Limit(c.limits(sets.names(src)))
	}
}

// Serve accepts clients until Shutdown, Close or Hold, and then returns ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errors.Join(ErrServerClosed, l.Close())
	}
	if s.holding {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.accepting.Add(1)
	s.mu.Unlock()
	defer s.accepting.Done()
	pause := time.Duration(0)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			if !s.begin(conn) {
				_ = conn.Close() // closing
			}
		case s.isClosing() || s.isHolding():
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return err
		default: // out of file descriptors, for example: it passes
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("accept", "error", err, "pause", pause)
			time.Sleep(pause)
		}
	}
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// begin serves a connection in a goroutine of its own.
func (s *Server) begin(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.starting++
	s.work.Go(func() { s.serve(conn) })
	return true
}

// serve serves one connection to its end.
func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	var g guest
	err := s.safely("log-in", func() (err error) { g, err = s.login(conn); return err })
	s.mu.Lock()
	s.starting--
	s.mu.Unlock()
	if err != nil {
		s.log.Debug("client turned away", "address", conn.RemoteAddr(), "error", err)
		return
	}
	if g == nil {
		return // a cancel request, or nobody at all
	}
	s.log.Debug("client", "who", g, "address", conn.RemoteAddr())
	s.runGuest(g)
}

// runGuest serves whoever has logged in until it leaves, or is parked.
func (s *Server) runGuest(g guest) {
	err := s.safely(g.String(), g.run)
	if err == errParked { // and may be gone by now
		return
	}
	var m *mishap
	if errors.As(err, &m) {
		g.broke()
	}
	s.log.Debug("client left", "who", g, "error", err)
	g.quit()
}

// enter makes c one of the clients.
func (s *Server) enter(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return errStarting("57P03", "the gateway is shutting down")
	}
	if err := s.admitsLocked(c); err != nil {
		return err
	}
	c.id = s.numberLocked()
	s.clients[c.id] = c
	s.measures.clients.Add(1)
	return nil
}

// numberLocked is one that nobody has.
func (s *Server) numberLocked() uint32 {
	for {
		if s.last++; s.last < firstID || s.last > 1<<31-1 {
			s.last = firstID
		}
		if s.clients[s.last] == nil && s.consoles[s.last] == nil {
			return s.last
		}
	}
}

// leave ends a client's session.
func (s *Server) leave(c *client) {
	s.mu.Lock()
	delete(s.clients, c.id)
	s.gone.add(&c.tally)
	s.mu.Unlock()
	ctx, stop := context.WithTimeout(s.ctx, farewell)
	defer stop()
	if err := c.session.Close(ctx); err != nil {
		s.log.Debug("closing a session", "client", c.id, "error", err)
	}
	for _, st := range c.statements {
		c.forget(st)
	}
	c.in.release()
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
}

// Shutdown stops taking clients, sends away those who have nothing under way, waits
// for the others until ctx ends, and closes.
func (s *Server) Shutdown(ctx context.Context) error {
	s.refuse()
	if p := s.paused.Swap(nil); p != nil { // who waits for RESUME has nothing under way
		close(p.over)
	}
	done := make(chan struct{})
	s.spawn("shutdown", func() {
		defer close(done)
		s.sendAway()
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
	return errors.Join(ctx.Err(), s.Close())
}

// Close ends everything at once, whatever is under way. Clients hear so, if they and the servers
// give them the time.
func (s *Server) Close() error {
	s.refuse()
	s.endAll()
	s.stop()
	s.each(func(c *client) { c.closing.Store(true); _ = c.conn.Close() })
	s.closeConsoles()
	err := s.closeSources() // cuts off what the clients wait for
	s.work.Wait()
	s.loops.stop()
	return err
}

// refuse stops taking clients.
func (s *Server) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.listeners {
		_ = l.Close() // Serve returns
	}
}

func (s *Server) each(f func(*client)) {
	s.mu.Lock()
	list := make([]*client, 0, len(s.clients))
	for _, c := range s.clients {
		list = append(list, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		f(c)
	}
}

func (s *Server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients) + s.starting
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
