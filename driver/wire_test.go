package driver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
)

// message is one message of a server's.
func message(kind byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

// pieces is a connection whose bytes come as they are given.
type pieces struct {
	net.Conn
	in     [][]byte
	sent   bytes.Buffer
	closed bool
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.in[0])
	if p.in[0] = p.in[0][n:]; len(p.in[0]) == 0 {
		p.in = p.in[1:]
	}
	return n, nil
}
func (p *pieces) Write(b []byte) (int, error) { return p.sent.Write(b) }
func (p *pieces) Close() error                { p.closed = true; return nil }

// TestAhead: what goes ahead is sent in front of the next message, and of all
// that the server says, in pieces of any size, just its answer is missing.
func TestAhead(t *testing.T) {
	notice, status := message('N', "SNOTICE\x00\x00"), message('S', "a\x00b\x00")
	before := append(bytes.Clone(status), message('C', "SELECT 1\x00")...)
	answer := append(append(bytes.Clone(notice), message('C', "BEGIN\x00")...), message('Z', "T")...)
	after := append(append(message('1', ""), message('C', "INSERT 0 1\x00")...), message('Z', "T")...)
	stream := bytes.Join([][]byte{before, answer, after, message('Z', "I")}, nil)
	want := bytes.Join([][]byte{before, notice, after, message('Z', "I")}, nil)
	for size := 1; size <= len(stream); size++ {
		p := &pieces{}
		for rest := stream[len(before)-3:]; len(rest) > 0; { // the last three bytes of before come late
			n := min(size, len(rest))
			p.in, rest = append(p.in, rest[:n]), rest[n:]
		}
		c := &holdConn{tap: tap{Conn: p}}
		p.in = append([][]byte{before[:len(before)-3]}, p.in...)
		got := make([]byte, len(before)-3)
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatal(err)
		}
		c.Ahead("BEGIN")
		if n, err := c.Write([]byte("next")); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		if sent := string(message('Q', "BEGIN\x00")) + "next"; p.sent.String() != sent {
			t.Fatalf("sent %q, want %q", p.sent.String(), sent)
		}
		rest, err := io.ReadAll(c)
		if got = append(got, rest...); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("in pieces of %d: %v\n%q, want\n%q", size, err, got, want)
		}
	}
}

func TestAheadUnsent(t *testing.T) {
	p := &pieces{}
	c := &holdConn{tap: tap{Conn: p}}
	c.Ahead("BEGIN")
	if !c.Unsent() || c.Unsent() {
		t.Error("not taken back once")
	}
	if _, err := c.Write([]byte("next")); err != nil || p.sent.String() != "next" {
		t.Errorf("%q %v", p.sent.String(), err)
	}
}

// TestAheadRefused: what follows must not run as if it had begun.
func TestAheadRefused(t *testing.T) {
	p := &pieces{in: [][]byte{append(message('E', "SERROR\x00\x00"), message('Z', "I")...)}}
	c := &holdConn{tap: tap{Conn: p}}
	c.Ahead("BEGIN")
	if _, err := c.Write([]byte("next")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); !errors.Is(err, errAhead) || !p.closed {
		t.Errorf("%v, closed %v", err, p.closed)
	}
}
