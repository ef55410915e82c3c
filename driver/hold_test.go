package driver

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

// script is a net.Conn that answers reads with the pieces given.
type script struct {
	net.Conn
	pieces [][]byte
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	s.pieces[0] = s.pieces[0][n:]
	if len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

var (
	complete = []byte("C\x00\x00\x00\x0bCOPY 1\x00")
	idle     = []byte("Z\x00\x00\x00\x05I")
	inside   = []byte("Z\x00\x00\x00\x05T")
)

// However the bytes are cut, they arrive unchanged, and the hook is asked before
// the last byte of each ReadyForQuery outside a transaction, never else.
func TestHoldAsksBeforeTheEnd(t *testing.T) {
	whole := bytes.Join([][]byte{complete, inside, complete, idle, complete, idle}, nil)
	for size := 1; size <= len(whole); size++ {
		var pieces [][]byte
		// A server sends nothing after ReadyForQuery before it is asked.
		for _, answer := range [][]byte{whole[:len(whole)-18], whole[len(whole)-18:]} {
			for i := 0; i < len(answer); i += size {
				pieces = append(pieces, answer[i:min(i+size, len(answer))])
			}
		}
		var got []byte
		var asked []int
		c := &holdConn{tap: tap{Conn: &script{pieces: pieces}}}
		hook := func() error { asked = append(asked, len(got)); return nil }
		c.hook.Store(&hook)
		buf := make([]byte, 7)
		for {
			n, err := c.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, whole) {
			t.Fatalf("size %d: got %q", size, got)
		}
		if len(asked) != 2 || asked[0] >= 36 || asked[1] >= len(whole) || asked[1] <= 36 {
			t.Fatalf("size %d: asked after %v bytes", size, asked)
		}
	}
}

// What the hook refuses, the client never hears of as done.
func TestHoldPassesRefusals(t *testing.T) {
	c := &holdConn{tap: tap{Conn: &script{pieces: [][]byte{append(bytes.Clone(complete), idle...)}}}}
	refusal := errors.New("not acknowledged")
	hook := func() error { return refusal }
	c.hook.Store(&hook)
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err == nil {
		n2, e := c.Read(buf[n:])
		n, err = n+n2, e
	}
	if !errors.Is(err, refusal) || bytes.HasSuffix(buf[:n], idle) {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}
