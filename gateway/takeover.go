package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pgdist/pgdist/internal/engine"
)

// TakeOver goes on with clients of another Server, who keep their numbers and keys, and returns how
// many. They are let in whatever the limits, and count from then on. Who cannot go on, as those
// of a database that is not served any more, is left to the Handover's Close. It is to be called before Serve.
func (s *Server) TakeOver(h *Handover) (int, error) {
	if h == nil {
		return 0, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.state.Clients) != len(h.conns) {
		return 0, ErrHandoverFormat
	}
	s.mu.Lock()
	s.last = max(s.last, h.state.Last)
	if p := h.state.Paused; p.All || len(p.Names) > 0 {
		names := map[string]bool{}
		maps.Copy(names, p.Names)
		s.paused.Store(&pausing{all: p.All, names: names, over: make(chan struct{})})
	}
	s.mu.Unlock()
	n := 0
	var errs []error
	for i := range h.state.Clients {
		if h.conns[i] < 0 {
			continue
		}
		m := &h.state.Clients[i]
		if err := s.resumeClient(h, m, h.conns[i]); err != nil {
			errs = append(errs, fmt.Errorf("client %d of %s: %w", m.ID, m.User, err))
			continue
		}
		errs = append(errs, unix.Close(h.conns[i])) // the client has a copy
		h.conns[i] = -1
		n++
	}
	return n, errors.Join(errs...)
}

// resumeClient goes on with one client, by a copy of its descriptor.
func (s *Server) resumeClient(h *Handover, m *movedClient, fd int) (err error) {
	src := s.find(m.DB)
	if src == nil {
		return fmt.Errorf("database %q is not served any more", m.DB)
	}
	if m.Credential < 0 || m.Credential >= len(h.state.Keys) {
		return errors.New("what it logged in by is missing")
	}
	k := h.state.Keys[m.Credential]
	t, err := s.tenant(src, m.User, &credential{clientKey: k.ClientKey, serverKey: k.ServerKey, password: k.Password, md5: k.MD5})
	if err != nil {
		return err
	}
	c := newClient(s, src, m.User, m.DB)
	c.id, c.key, c.since, c.app = m.ID, m.Key, m.Since, m.App
	c.params, c.first = maps.Clone(m.Told), m.First
	c.session = src.engine.ResumeSession(c.options(t), m.Session)
	if s.conf().poolMode(m.DB, m.User) == SessionPooling {
		c.session.Whole()
	}
	for i := range m.Statements {
		if err = c.resumeStatement(&m.Statements[i]); err != nil {
			break
		}
	}
	var conn net.Conn
	if err == nil {
		conn, err = copyConn(fd)
	}
	if err == nil {
		if src.flies {
			conn = s.loops.adopt(conn)
		}
		c.attach(conn)
		c.in.give(m.Unread)
		if err = s.reenter(c); err != nil {
			err = errors.Join(err, conn.Close())
		}
	}
	if err != nil {
		for _, st := range c.statements {
			c.forget(st)
		}
		return err
	}
	return nil
}

// copyConn makes a connection of a copy of a descriptor.
func copyConn(fd int) (net.Conn, error) {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(copied), "client")
	conn, err := net.FileConn(f)
	return conn, errors.Join(err, f.Close())
}

// reenter serves c as one of the clients again, by the number that it has.
func (s *Server) reenter(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ErrServerClosed
	}
	if s.clients[c.id] != nil || s.consoles[c.id] != nil {
		return errors.New("its number is another's")
	}
	s.clients[c.id] = c
	s.measures.clients.Add(1)
	s.work.Go(func() { s.runGuest(c) })
	return nil
}

// resumeStatement prepares a statement anew for a client that has prepared it already.
func (c *client) resumeStatement(m *movedStatement) error {
	body := append(append([]byte(m.Name), 0), m.SQL...)
	st, wrong := c.newStatement(append(append(body, 0), m.Rest...))
	if wrong != "" {
		return fmt.Errorf("statement %q: %s", m.Name, wrong)
	}
	st.scope, st.leaderOnly, st.result = m.Scope, m.LeaderOnly, result{row: m.Row, ofPortal: m.OfPortal, term: m.Term}
	c.register(st)
	return nil
}

// newClient makes a client that has neither connection nor session yet.
func newClient(s *Server, src *source, user, db string) *client {
	return &client{
		server: s, source: src, user: user, db: db, params: map[string]string{}, statements: map[string]*statement{}, portals: map[string]*portal{},
	}
}

// attach makes conn the client's connection.
func (c *client) attach(conn net.Conn) {
	c.sock, _ = conn.(*socket)
	c.conn = &metered{conn, &c.tally}
	c.in = newReader(c.conn)
	c.in.limits, c.in.idle = limit, c.beforeWait
	c.renew()
}

// options say how the client's session begins.
func (c *client) options(t *tenant) engine.SessionOptions {
	return engine.SessionOptions{Tenant: t.Tenant, Owner: c, Listener: listener{c}}
}
