package gateway

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
)

// Sizes of buffers. A client that waits holds the small one only.
const (
	smallBuffer = 1 << 10
	largeBuffer = 32 << 10
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// reader takes messages from a connection: a type byte, a length that counts
// itself, a body (PostgreSQL docs, "Message Formats").
type reader struct {
	conn   net.Conn
	buf    []byte // pooled if its size is largeBuffer
	r, w   int
	last   int // where the message that next returned begins
	skip   int // what is left of a message that was given up
	small  []byte
	keep   bool               // large buffers are not given back
	limits func(typ byte) int // greatest length, -1 for no such type; nil for any
	idle   func() error       // called before blocking
	woken  func()             // called after it, nil for nothing
	rung   func() bool        // the same; it tells whether to go on after a wait without data
}

const headerSize = 5

// errType: there is no such message. The server says so before it knows the length.
var errType = errors.New("invalid message type")

// errLength: a message's length is impossible, or more than its type may have.
var errLength = errors.New("invalid message length")

// newReader makes a reader for a client, newKeepingReader one for a server.
func newReader(conn net.Conn) reader {
	small := make([]byte, smallBuffer)
	return reader{conn: conn, buf: small, small: small}
}

func newKeepingReader(conn net.Conn) reader {
	small := make([]byte, largeBuffer)
	return reader{conn: conn, buf: small, small: small, keep: true}
}

// fill reads more. There must be room.
func (r *reader) fill() error {
	for {
		if r.idle != nil {
			if err := r.idle(); err != nil {
				return err
			}
		}
		n, err := r.conn.Read(r.buf[r.w:])
		if r.woken != nil {
			r.woken()
		}
		if r.rung != nil && r.rung() && n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		r.w += n
		if n > 0 {
			return nil
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
}

// room makes the buffer take size bytes from r.r on.
func (r *reader) room(size int) {
	if r.r == r.w {
		r.r, r.w = 0, 0
		if len(r.buf) > len(r.small) && size <= len(r.small) && (!r.keep || len(r.buf) > largeBuffer) {
			r.release()
		}
	}
	if len(r.buf)-r.r >= size {
		return
	}
	if len(r.buf) >= size {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
		return
	}
	var next []byte
	if size <= largeBuffer {
		next = largeBuffers.Get().(*[largeBuffer]byte)[:]
	} else {
		next = make([]byte, size)
	}
	n := copy(next, r.buf[r.r:r.w])
	r.release()
	r.buf, r.r, r.w = next, 0, n
}

// release gives a large buffer back; what is in it is lost.
func (r *reader) release() {
	if len(r.buf) == largeBuffer && !r.keep {
		largeBuffers.Put((*[largeBuffer]byte)(r.buf))
	}
	r.buf, r.r, r.w = r.small, 0, 0
}

// need blocks until n bytes are there.
func (r *reader) need(n int) error {
	r.room(n)
	for r.w-r.r < n {
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && r.w > r.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// head returns the type and the body's length of the message to come.
func (r *reader) head() (typ byte, size int, err error) {
	for r.skip > 0 {
		if r.r == r.w {
			r.r, r.w = 0, 0
			if err := r.fill(); err != nil {
				return 0, 0, err
			}
		}
		n := min(r.skip, r.w-r.r)
		r.r += n
		r.skip -= n
	}
	if err := r.need(1); err != nil {
		return 0, 0, err
	}
	typ = r.buf[r.r]
	if r.limits != nil && r.limits(typ) < 0 {
		return typ, 0, errType
	}
	if err := r.need(headerSize); err != nil {
		return 0, 0, err
	}
	length := binary.BigEndian.Uint32(r.buf[r.r+1:])
	size = int(length) - 4
	if length < 4 || length > 1<<30+4 || r.limits != nil && size > r.limits(typ) {
		return typ, 0, errLength
	}
	return typ, size, nil
}

// next returns the next message; body is good until the next call.
func (r *reader) next() (typ byte, body []byte, err error) {
	typ, size, err := r.head()
	if err != nil {
		return typ, nil, err
	}
	if err := r.need(headerSize + size); err != nil {
		return typ, nil, err
	}
	r.last = r.r
	body = r.buf[r.r+headerSize : r.r+headerSize+size]
	r.r += headerSize + size
	return typ, body, nil
}

// give puts bytes into the buffer that somebody else has read.
func (r *reader) give(b []byte) {
	r.room(r.w - r.r + len(b))
	r.w += copy(r.buf[r.w:], b)
}

// back makes the message that next returned the next one again.
func (r *reader) back() { r.r = r.last }

// pending tells whether a whole message is there already.
func (r *reader) pending() bool {
	have := r.w - r.r
	return have >= headerSize && have > int(binary.BigEndian.Uint32(r.buf[r.r+1:]))
}

// stream hands the next message, header included, to write in pieces, however
// long it is.
func (r *reader) stream(write func([]byte) error) (typ byte, err error) {
	typ, size, err := r.head()
	if err != nil {
		return typ, err
	}
	if size > largeBuffer-headerSize {
		r.room(largeBuffer)
	} else if err := r.need(headerSize + size); err != nil {
		return typ, err
	}
	for left := headerSize + size; left > 0; {
		if r.r == r.w {
			r.r, r.w = 0, 0
			if err := r.fill(); err != nil {
				r.skip = left
				return typ, err
			}
		}
		n := min(left, r.w-r.r)
		if err := write(r.buf[r.r : r.r+n]); err != nil {
			return typ, err
		}
		r.r += n
		left -= n
	}
	return typ, nil
}
