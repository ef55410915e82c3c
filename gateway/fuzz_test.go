package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// chunks is a connection whose bytes come in pieces.
type chunks struct {
	net.Conn
	data []byte
	size int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.size)], c.data)
	c.data = c.data[n:]
	return n, nil
}

// FuzzReader reads messages in pieces of different sizes, whole and as streams: they are
// the same.
func FuzzReader(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x06a\x00S\x00\x00\x00\x04"), 1, 3)
	f.Add(appendMessage(nil, msgCopyData, make([]byte, 40000)), 7, 4096)
	f.Add([]byte("Q\x00\x00\x00\x03"), 1, 2)
	f.Add([]byte("y"), 1, 2)
	f.Fuzz(func(t *testing.T, data []byte, one, other int) {
		if one < 1 || other < 1 || len(data) > 1<<20 {
			return
		}
		read := func(size int, stream bool) (said []byte, last error) {
			r := newReader(&chunks{data: data, size: size})
			r.limits = limit
			defer r.release()
			for {
				if stream {
					if _, err := r.stream(func(b []byte) error { said = append(said, b...); return nil }); err != nil {
						return said, err
					}
					continue
				}
				typ, body, err := r.next()
				if err != nil {
					return said, err
				}
				said = appendMessage(said, typ, body)
			}
		}
		a, e1 := read(one, false)
		b, e2 := read(other, false)
		if !bytes.Equal(a, b) || !errors.Is(e1, e2) {
			t.Errorf("in pieces of %d: %q %v; of %d: %q %v", one, a, e1, other, b, e2)
		}
		if c, _ := read(one, true); !bytes.HasPrefix(c, a) || !bytes.HasPrefix(data, c) {
			t.Errorf("as a stream %q", c)
		}
	})
}

// sink is a connection that takes whatever is written.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error)     { return len(b), nil }
func (sink) SetDeadline(time.Time) error     { return nil }
func (sink) SetReadDeadline(time.Time) error { return nil }

// FuzzStartup takes start-up messages apart.
func FuzzStartup(f *testing.F) {
	f.Add(uint32(3<<16), []byte("user\x00postgres\x00\x00"))
	f.Add(uint32(3<<16|9), []byte("user\x00a\x00_pq_.x\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, code uint32, body []byte) {
		st := &starting{conn: sink{}}
		if err := st.parse(code, body); err != nil {
			return
		}
		if code>>16 != 3 || len(body) == 0 || body[len(body)-1] != 0 || st.minor > 2 {
			t.Errorf("%d %q is taken, as minor version %d", code, body, st.minor)
		}
	})
}

// FuzzOptions reads command-line options: what is escaped comes back.
func FuzzOptions(f *testing.F) {
	f.Add("-c a=b")
	f.Add(`-c a.b=x\ y --c=d\\`)
	f.Fuzz(func(t *testing.T, options string) {
		words := splitOptions(options)
		var escaped []string
		for _, w := range words {
			if w == "" || strings.ContainsRune(w, 0xfffd) {
				return
			}
			var b strings.Builder
			for _, r := range w {
				b.WriteRune('\\')
				b.WriteRune(r)
			}
			escaped = append(escaped, b.String())
		}
		again := splitOptions(strings.Join(escaped, " "))
		if strings.Join(again, "\x00") != strings.Join(words, "\x00") {
			t.Errorf("%q: %q, and escaped %q", options, words, again)
		}
		_, _ = optionSettings(options)
	})
}

// FuzzBodies takes the bodies of Parse and Bind apart.
func FuzzBodies(f *testing.F) {
	f.Add([]byte("a\x00SELECT 1\x00\x00\x01\x00\x00\x00\x17"))
	f.Add([]byte("\x00a\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00\x01x\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if name, sql, rest, wrong := splitParse(body); wrong == "" {
			again := append(append(append(append(append([]byte{}, name...), 0), sql...), 0), rest...)
			if !bytes.Equal(again, body) || len(rest) != 2+4*int(binary.BigEndian.Uint16(rest)) {
				t.Errorf("Parse %q: %q %q %q", body, name, sql, rest)
			}
		}
		values, ok := bindValues(body)
		if n := bindParams(body); ok && n != len(values) {
			t.Errorf("Bind %q: %d parameters, and %d values", body, n, len(values))
		}
		p := &portal{st: &statement{signal: &signal{literal: 1}}}
		(&client{server: &Server{}}).bindSignal(p, body)
	})
}

// FuzzVerifier reads what pg_authid may have.
func FuzzVerifier(f *testing.F) {
	f.Add("SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("md5c4ca4238a0b923820dcc509a6f75849b")
	f.Fuzz(func(t *testing.T, secret string) {
		if !strings.HasPrefix(secret, mechanism+"$") {
			return // a password, and slow
		}
		v, err := verifierOf(secret)
		if err == nil && (v.iterations < 1 || len(v.stored) != 32 || len(v.server) != 32 || v.password != "") {
			t.Errorf("%q: %+v", secret, v)
		}
	})
}

// FuzzScram has a client say what it likes: it never proves a password that it does not know.
func FuzzScram(f *testing.F) {
	f.Add("SCRAM-SHA-256", []byte("n,,n=,r=abc"), []byte("c=biws,r=abc,p=AAAA"))
	f.Add("SCRAM-SHA-256-PLUS", []byte("p=tls-server-end-point,,n=,r=abc"), []byte("c=,r=,p="))
	f.Add("SCRAM-SHA-256", []byte(""), []byte(""))
	v, err := newVerifier("secret", []byte("salt"), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, chosen string, first, answer []byte) {
		for _, binding := range [][]byte{nil, []byte("hash")} {
			cred, _, err := scramTalk(v, chosen, first, binding, func([]byte) ([]byte, error) { return answer, nil })
			if err == nil || cred != nil {
				t.Errorf("%q %q %q is let in", chosen, first, answer)
			}
		}
	})
}

// FuzzDescriptions renumbers descriptions: nothing but the numbers changes.
func FuzzDescriptions(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x00\x00\x40\x00\x00\x01\x00\x00\x40\x01\x00\x04\xff\xff\xff\xff\x00\x00"))
	f.Add([]byte("\x00\x02\x00\x00\x40\x00\x00\x00\x00\x17"))
	f.Fuzz(func(t *testing.T, body []byte) {
		c := &client{}
		for _, each := range []func([]byte, func([]byte, int, bool) bool) bool{c.eachRow, c.eachParameter} {
			b, seen := bytes.Clone(body), 0
			if !each(b, func(oid []byte, _ int, _ bool) bool {
				binary.BigEndian.PutUint32(oid, ^binary.BigEndian.Uint32(oid))
				seen++
				return true
			}) {
				continue
			}
			changed := 0
			for i := range b {
				if b[i] != body[i] {
					changed++
				}
			}
			if len(b) != len(body) || changed != 4*seen {
				t.Errorf("%q became %q", body, b)
			}
		}
		_ = shape(body)
	})
}
