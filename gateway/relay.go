package gateway

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
)

// asyncWrite is the size from which on a request is written while its answers are
// already being read: neither side may wait for the other.
const asyncWrite = 64 << 10

// relay sends what was put together and passes what the server answers on, up to
// its ReadyForQuery. It returns the server's error, errConn or errGone.
func (c *client) relay() (err error) {
	r := &c.relaying
	r.heralds = true
	if len(r.u.out) < asyncWrite {
		if err := r.u.send(); err != nil {
			return err
		}
		return c.answers()
	}
	u, out := r.u, r.u.out
	u.busy, u.out = true, nil
	wrote := make(chan error, 1)
	go func() {
		err := c.server.safely("write to a server", func() error { _, err := u.conn.Write(out); return err })
		if errors.Is(err, errGone) { // no answer will come
			_ = u.conn.Close()
		}
		wrote <- err
	}()
	err = c.answers()
	if u.closed.Load() {
		_ = u.conn.Close()
	}
	if e := <-wrote; e != nil && (err == nil || errors.Is(e, errGone)) {
		err = u.broken(e)
	}
	return err
}

// answers passes on what the server says, up to its ReadyForQuery.
func (c *client) answers() error {
	r := &c.relaying
	u := r.u
	in := &u.in
	for {
		typ, size, err := in.head()
		if err != nil {
			return c.lost(err)
		}
		if size > largeBuffer-headerSize && (typ == msgDataRow || typ == msgCopyData) && r.swallow == 0 {
			if err := c.large(); err != nil {
				return err
			}
			continue
		}
		typ, body, err := in.next()
		if err != nil {
			return c.lost(err)
		}
		if r.swallow > 0 {
			if done, err := c.swallowed(typ, body); done || err != nil {
				return err
			}
			continue
		}
		if r.digest != nil {
			if err := c.digest(in.buf[in.last:in.r]); err != nil {
				return err
			}
		}
		switch typ {
		case msgDataRow, msgCopyData:
			c.out = append(c.out, in.buf[in.last:in.r]...)
			if r.skip > 0 {
				c.pass()
			}
			if len(c.out) > r.limit {
				if err := c.deliver(); err != nil {
					return err
				}
			}
		case msgReady:
			if err := c.stopPump(); err != nil {
				return err
			}
			c.fakes()
			u.ready(body)
			if r.skip > 0 {
				return c.differs()
			}
			switch {
			case r.elsewhere:
				return engine.ErrNotHere
			case r.failed != nil:
				return r.failed
			}
			return nil
		default:
			if err := c.answer(typ, body); err != nil {
				return err
			}
			if r.skip > 0 {
				c.pass()
			}
			if typ == msgNotice && len(c.out) > r.limit {
				if err := c.deliver(); err != nil {
					return err
				}
			}
		}
	}
}

// lost notes that the server is gone.
func (c *client) lost(err error) error {
	err = c.relaying.u.broken(err)
	if e := c.stopPump(); e != nil {
		return e
	}
	return err
}

// swallowed takes the answer to a statement that went ahead; done ends the exchange.
func (c *client) swallowed(typ byte, body []byte) (done bool, err error) {
	r := &c.relaying
	switch typ {
	case msgError:
		r.failed = errorOf(body)
		return true, r.u.broken(r.failed)
	case msgReady:
		r.swallow--
	default:
		r.u.aside(typ, body)
	}
	return false, nil
}

// answer deals with a message other than a row.
func (c *client) answer(typ byte, body []byte) error {
	r := &c.relaying
	if r.u.aside(typ, body) {
		return nil
	}
	if r.extended {
		c.fakes()
	}
	switch typ {
	case msgError:
		pe := errorOf(body)
		if fatal(pe) {
			if r.failed != nil && r.failed.Code == "08P01" { // it was the client that broke the protocol
				_ = r.u.broken(pe)
				return c.outOfStep(nil)
			}
			return c.lost(pe)
		}
		if r.pump != nil && pe.Code == "57014" && strings.HasSuffix(pe.Message, outOfPlace) {
			return c.misplaced()
		}
		r.failed, r.failedAt = pe, c.at()
		if told := c.inClientsNames(pe); told != nil {
			c.out = appendError(c.out, msgError, told)
		} else {
			c.out = appendMessage(c.out, typ, body)
		}
		return c.failedCopy()
	case msgCopyIn:
		c.out = appendMessage(c.out, typ, body)
		return c.copyIn()
	case msgCopyBoth:
		return c.lost(errors.New("replication is not supported"))
	case msgRowDescription, msgParameterDescription:
		c.describe(typ, body)
		if typ == msgRowDescription {
			c.answered(msgDescribe)
		}
		return nil
	case msgCommandComplete:
		r.complete = c.at()
		if !r.extended && string(body) == allDeallocated {
			r.u.partAll()
		}
	}
	if r.extended && c.skipAnswer(typ) {
		return nil
	}
	c.out = appendMessage(c.out, typ, body)
	return nil
}

// allDeallocated is in the CommandComplete of DEALLOCATE ALL.
const allDeallocated = "DEALLOCATE ALL\x00"

// inClientsNames is an error with the client's name of a statement in place of the
// server's, nil if it has none.
func (c *client) inClientsNames(pe *pgconn.PgError) *pgconn.PgError {
	r := &c.relaying
	if !strings.Contains(pe.Message, serverPrefix) || r.next >= len(c.expected) {
		return nil
	}
	st := c.expected[r.next].st
	if st == nil || st.key == nil {
		return nil
	}
	told := *pe
	told.Message = renamed(pe.Message, st.serverName(), st.name)
	return &told
}

// renamed is a message with another name in it, in whatever marks its language puts names.
func renamed(message, from, to string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(message, from)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if after != "" && ('0' <= after[0] && after[0] <= '9' || 'a' <= after[0] && after[0] <= 'z') {
			out.WriteString(from) // the beginning of a longer one
		} else {
			out.WriteString(to)
		}
		message = after
	}
}

// skipAnswer follows the answers expected and tells whether this one is not the
// client's.
func (c *client) skipAnswer(typ byte) bool {
	switch typ {
	case msgParseComplete:
		return c.answered(msgParse)
	case msgBindComplete:
		return c.answered(msgBind)
	case msgCloseComplete:
		return c.answered(msgClose)
	case msgNoData:
		return c.answered(msgDescribe)
	case msgCommandComplete, msgEmptyQuery, msgPortalSuspended:
		return c.answered(msgExecute)
	}
	return false
}

// answered takes the next expected answer, if it is of that kind.
func (c *client) answered(kind byte) (swallow bool) {
	r := &c.relaying
	if r.next >= len(c.expected) || c.expected[r.next].kind != kind {
		return false
	}
	e := &c.expected[r.next]
	r.next++
	if kind == msgParse && e.st != nil {
		c.register(e.st)
	}
	if e.portal != nil {
		e.portal.made = true
	}
	if kind == msgExecute && e.st.deallocatesAll() {
		c.deallocate(e.st.verdict.Statements[0].Prepared)
	}
	return e.swallow
}

// fakes gives the answers that are next and need no server.
func (c *client) fakes() {
	r := &c.relaying
	for r.failed == nil && r.next < len(c.expected) && c.expected[r.next].fake {
		e := &c.expected[r.next]
		r.next++
		if e.kind == msgParse {
			c.register(e.st)
			c.out = appendMessage(c.out, msgParseComplete, nil)
			continue
		}
		c.closeStatement(e.st)
	}
}

// deliver sends what there is to the client: from here on the statement cannot be
// run again unseen.
func (c *client) deliver() error {
	r := &c.relaying
	if r.elsewhere { // too long to be read to its end for nothing
		_ = r.u.broken(engine.ErrNotHere)
		return engine.ErrNotHere
	}
	if !r.delivered {
		if err := r.lease.Delivered(c.ctx); err != nil {
			_ = r.u.broken(err) // there is more of the result than was read
			return err
		}
		r.delivered = true
	}
	r.lease.Waiting(0)
	if err := c.flush(); err != nil {
		return err
	}
	r.waits++
	r.lease.Waiting(r.waits)
	return nil
}

// large passes a message on piece by piece that is too long to be kept.
func (c *client) large() error {
	r := &c.relaying
	gone := false
	_, err := r.u.in.stream(func(b []byte) error {
		r.partial = true
		if r.digest != nil {
			if err := c.digest(b); err != nil {
				return err
			}
		}
		c.out = append(c.out, b...)
		if r.skip > 0 {
			c.pass()
		}
		if len(c.out) > r.limit {
			if err := c.deliver(); err != nil {
				gone = true
				return err
			}
		}
		return nil
	})
	switch {
	case gone:
		return err
	case err != nil:
		return c.lost(err)
	}
	r.partial = false
	return nil
}
