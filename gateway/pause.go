package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/pgdist/pgdist/internal/engine"
)

// pausing says for which databases new work waits. It is immutable; over is closed
// when another one, or none, takes its place.
type pausing struct {
	all   bool
	names map[string]bool
	over  chan struct{}
}

func (p *pausing) covers(db string) bool { return p != nil && (p.all || p.names[db]) }

// pause makes new work under a database's name, "" being every one, wait.
func (s *Server) pause(db string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.paused.Load()
	if old.covers(db) || db == "" && old != nil && old.all {
		return errors.New("already paused")
	}
	p := &pausing{all: db == "", names: map[string]bool{}, over: make(chan struct{})}
	if old != nil {
		p.all = p.all || old.all
		maps.Copy(p.names, old.names)
	}
	if db != "" {
		p.names[db] = true
	}
	s.paused.Store(p)
	if old != nil {
		close(old.over)
	}
	return nil
}

// resume ends what pause began.
func (s *Server) resume(db string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.paused.Load()
	if old == nil || db != "" && !old.names[db] {
		if old.covers(db) {
			return errors.New("every database is paused: RESUME without a name")
		}
		return errors.New("not paused")
	}
	var p *pausing
	if names := maps.Clone(old.names); db != "" {
		if delete(names, db); len(names) > 0 || old.all {
			p = &pausing{all: old.all, names: names, over: make(chan struct{})}
		}
	}
	s.paused.Store(p)
	close(old.over)
	return nil
}

// waitQuiet waits until nothing of the databases that are paused is under way.
func (s *Server) waitQuiet(ctx context.Context, db string) error {
	for {
		p := s.paused.Load()
		if db == "" && (p == nil || !p.all) || db != "" && !p.covers(db) {
			return errors.New("resumed while PAUSE waited for what was under way")
		}
		quiet := true
		s.each(func(c *client) { quiet = quiet && (db != "" && c.db != db || c.quiet()) })
		if quiet {
			return nil
		}
		if !sleep(ctx, 10*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// quiet tells that the client waits for RESUME, or has nothing under way. A client is
// busy before it looks whether there is a pause, so none slips through.
func (c *client) quiet() bool {
	if c.atGate.Load() {
		return true
	}
	status := byte(c.shown.state.Load())
	return c.busySince.Load() == 0 && (status == 0 || status == 'I')
}

// pausable tells the messages that may begin something.
func pausable(typ byte) bool {
	switch typ {
	case msgTerminate, msgCopyData, msgCopyDone, msgCopyFail:
		return false
	}
	return true
}

// gate has a message wait while its database is paused, unless it belongs to something
// under way. pass is false if the client gave it up; it was then answered.
func (c *client) gate(typ byte) (pass bool, err error) {
	if !pausable(typ) || c.session.InTransaction() || c.script != nil || !c.server.paused.Load().covers(c.db) {
		return true, nil
	}
	if err := c.flush(); err != nil {
		return false, err
	}
	c.mu.Lock()
	c.renew()
	ctx := c.ctx
	c.waiting, c.waitingSince = true, engine.Now()
	c.mu.Unlock()
	c.show()
	c.atGate.Store(true)
	for p := c.server.paused.Load(); p.covers(c.db) && ctx.Err() == nil && !c.closing.Load(); p = c.server.paused.Load() {
		select {
		case <-p.over:
		case <-ctx.Done():
		}
	}
	c.atGate.Store(false)
	c.mu.Lock()
	c.waiting = false
	cancelled := ctx.Err()
	c.renew()
	c.mu.Unlock()
	c.txLast = engine.Now() // the pause is no part of the statement
	switch {
	case c.closing.Load():
		if h := c.server.departing.Load(); h != nil && c.movable() { // with its message
			c.in.back()
			return false, c.depart(h)
		}
		return false, c.dismiss()
	case cancelled == nil:
		return c.gate(typ) // paused anew before it was marked busy again?
	}
	return false, c.givenUp(typ, cancelled)
}

// givenUp answers a message that the client cancelled before anything was done for it.
func (c *client) givenUp(typ byte, cause error) error {
	if c.skip {
		c.skip = typ != msgSync
	} else {
		c.reset()
		c.report(cause)
		c.skip = typ != msgSync && typ != msgQuery && typ != msgFunctionCall
	}
	if !c.skip {
		c.ready()
	}
	return nil
}

// leadsOrNone checks the name in PAUSE and RESUME.
func (s *Server) leadsOrNone(db string) error {
	if db != "" && !s.leads(db) {
		return fmt.Errorf("no such database: %s", db)
	}
	return nil
}
