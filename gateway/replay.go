package gateway

import (
	"bytes"
	"context"
	"slices"

	"github.com/pgdist/pgdist/internal/engine"
)

// A transaction that is lost with its server can be run again if it is kept: its messages,
// and a digest of what the client got for them. What the client has of an answer that was
// cut off is passed over when the statement is run once more.

// digest adds what the server says to the statement's digest.
func (c *client) digest(b []byte) error {
	d := c.relaying.digest
	_, _ = d.Write(b) // it never fails
	if d.Differs() {
		return c.differs()
	}
	return nil
}

// differs breaks off an answer that is not as its beginning, which the client has, was.
func (c *client) differs() error {
	_ = c.relaying.u.broken(engine.ErrDiffers)
	return engine.ErrDiffers
}

// pass drops what the client has already.
func (c *client) pass() {
	r := &c.relaying
	k := min(r.skip, uint64(len(c.out)))
	c.out = c.out[:copy(c.out, c.out[k:])]
	r.skip -= k
}

// kept tells whether an exchange can be kept: the server has answered all of it.
func (c *client) kept() (data []byte, ok bool) {
	r := &c.relaying
	if r.digest == nil || r.u.busy || r.u.closed.Load() || r.elsewhere {
		return nil, false
	}
	if p := r.pumped; p != nil {
		return p.kept, p.keep > 0 && r.failed == nil
	}
	return nil, true
}

// keepMessage keeps an exchange of one message.
func (c *client) keepMessage(typ byte, body []byte) {
	if data, ok := c.kept(); ok {
		c.relaying.lease.Keep(&messageStep{typ, body, data}, len(body)+len(data))
	}
}

// keepGroup keeps a group of a pipeline.
func (c *client) keepGroup(g *group) {
	data, ok := c.kept()
	if !ok {
		return
	}
	p := &pipelineStep{ops: slices.Clone(c.ops[g.from:g.to]), data: data}
	size := len(data) + len(p.ops)*opSize
	from, to := p.ops[0].from, p.ops[len(p.ops)-1].to
	p.text = bytes.Clone(c.text[from:to])
	for i := range p.ops {
		o := &p.ops[i]
		if o.err != nil {
			return
		}
		if o.typ == msgParse && c.statements[o.st.name] != o.st { // it failed: its types are still in the client's text
			o.st.rest = bytes.Clone(o.st.rest)
		}
		o.from, o.to, o.portal = o.from-from, o.to-from, nil
		if o.st != nil && o.typ != msgParse {
			size += len(o.st.sql)
		}
	}
	c.relaying.lease.Keep(p, size+len(p.text))
}

// opSize is what an op takes besides the bytes that it refers to, about.
const opSize = 64

// messageStep is an exchange of one message: a Query or a FunctionCall.
type messageStep struct {
	typ  byte
	body []byte
	data []byte // of a COPY
}

// Again is engine.Step's.
func (m *messageStep) Again(ctx context.Context, conn engine.ServerConn, d *engine.Digest) error {
	u := conn.(*upstream)
	if err := u.fit(ctx); err != nil {
		return err
	}
	swallow := u.start()
	u.unnamed = nil
	u.out = appendMessage(u.out, m.typ, m.body)
	_, err := u.repeat(ctx, swallow, m.data, d)
	return err
}

// pipelineStep is one with a group of a pipeline.
type pipelineStep struct {
	ops  []op
	text []byte
	data []byte
}

// Again is engine.Step's.
func (p *pipelineStep) Again(ctx context.Context, conn engine.ServerConn, d *engine.Digest) error {
	u := conn.(*upstream)
	if err := u.fit(ctx); err != nil {
		return err
	}
	c := u.owner
	kept := c.expected // of the statement that found the server lost
	c.expected = nil
	defer func() { c.expected = kept }()
	u.uses++
	swallow := u.start()
	for i := range p.ops {
		p.translate(c, u, &p.ops[i])
	}
	u.out = appendMessage(u.out, msgSync, nil)
	parsed, err := u.repeat(ctx, swallow, p.data, d)
	left := 0 // past what was prepared last, and closed to make room for it
	for i, e := range c.expected {
		if e.kind == msgParse && parsed > 0 {
			parsed--
			left = i + 1
		}
	}
	u.missed(c.expected[left:])
	return err
}

// translate puts an op as the server is to get it once more. What the client has prepared
// is prepared if it is not yet.
func (p *pipelineStep) translate(c *client, u *upstream, o *op) {
	body := p.text[o.from:o.to]
	switch {
	case o.typ == msgParse && o.st.key == nil: // the unnamed one, or closed since, or one that failed
		_, sql, rest, _ := splitParse(body)
		u.unnamed = o.st
		b, at := begin(u.out, msgParse)
		b = append(append(append(b, 0), sql...), 0)
		u.out = end(append(b, rest...), at)
		c.expected = append(c.expected, expected{kind: msgParse, swallow: true})
	case o.typ == msgParse:
		c.ensure(u, o.st)
	case o.typ == msgBind && o.st != nil:
		c.ensure(u, o.st)
		u.out = appendBind(u.out, body, o.st.serverName())
	case o.typ == msgDescribe && body[0] == 'S' && o.st != nil:
		c.ensure(u, o.st)
		u.out = appendText(u.out, msgDescribe, "S"+o.st.serverName())
	case o.typ == msgClose && o.st != nil: // the client's name for it, no server's
	default:
		u.out = appendMessage(u.out, o.typ, body)
		if o.typ == msgExecute && o.st.deallocatesAll() {
			u.partAll()
		}
	}
}

// appendBind appends a Bind that names its statement as the server does.
func appendBind(out, body []byte, name string) []byte {
	portal, rest, _ := cstring(body)
	_, rest, _ = cstring(rest)
	b, at := begin(out, msgBind)
	b = append(append(b, portal...), 0)
	b = append(append(b, name...), 0)
	return end(append(b, rest...), at)
}

// Mute keeps notices from the client while what they tell of is only run again.
func (u *upstream) Mute(on bool) { u.muted = on }

// repeat sends what was put together and has the digest see the answer. It returns how
// many statements were prepared, and the server's error.
func (u *upstream) repeat(ctx context.Context, swallow int, data []byte, d *engine.Digest) (parsed int, err error) {
	stop := u.watch(ctx)
	defer stop()
	if c := u.owner; c != nil {
		before := c.enter(u)
		defer func() {
			c.leave(before)
			if c.cancelled { // by the client, which waits for another statement
				err = context.Canceled
			}
		}()
	}
	var failed error
	err = u.send()
	for err == nil {
		var typ byte
		var size int
		if typ, size, err = u.in.head(); err != nil {
			break
		}
		if size > largeBuffer-headerSize && swallow == 0 && (typ == msgDataRow || typ == msgCopyData) {
			_, err = u.in.stream(func(b []byte) error { _, _ = d.Write(b); return nil }) // it never fails
			continue
		}
		var body []byte
		if typ, body, err = u.in.next(); err != nil {
			break
		}
		if swallow == 0 {
			_, _ = d.Write(u.in.buf[u.in.last:u.in.r]) // it never fails
		}
		switch typ {
		case msgError:
			pe := errorOf(body)
			if failed == nil {
				failed = pe
			}
			if fatal(pe) || swallow > 0 { // what followed did not run as it was meant to
				return parsed, u.broken(pe)
			}
		case msgParseComplete:
			parsed++
		case msgCopyIn:
			u.out = append(u.out[:0], data...)
			err = u.send()
		case msgCommandComplete:
			if string(body) == allDeallocated {
				u.partAll()
			}
		case msgReady:
			if swallow > 0 {
				swallow--
				continue
			}
			u.ready(body)
			return parsed, failed
		default:
			u.aside(typ, body)
		}
	}
	if ctx.Err() != nil {
		return parsed, ctx.Err()
	}
	return parsed, u.broken(err)
}
