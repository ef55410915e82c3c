package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"

	"github.com/jackc/pgx/v5/pgconn"
)

// Digest is a SHA-256 of what a client got for a statement, by which another run of it
// is compared: rows, their description, command tags, errors. It takes the messages of
// the server as they come, in pieces of any size (PostgreSQL docs, "Message Formats").
//
// What says nothing about the result is left out: that something was prepared, bound or
// closed, notices, notifications, settings. So are the numbers of tables in a
// description, and those of types that are not PostgreSQL's own: they differ from server
// to server, and after a failover clients see the new leader's anyway. Of an error, the
// place in the server's source is left out.
type Digest struct {
	all  hash.Hash         // of the exchange that is under way
	past [sha256.Size]byte // of those that a ReadyForQuery has ended
	rows int               // of the exchange

	head    [5]byte // type and length of the message under way
	have    int     // bytes of head so far
	left    int     // bytes of its body still to come
	whole   bool    // the body is looked at once it is complete
	skipped bool    // it does not count
	row     bool    // it is one of many, after each of which there may be a Prefix
	torn    bool    // a part of a row is in all
	last    Prefix  // as it was after the latest row, if marked
	marked  bool
	body    []byte
	number  [4]byte

	expected Prefix
	ended    bool // the exchange has had the end of a result
	differs  bool
}

// Prefix is the beginning of a result: its rows, or those of a COPY, and a digest of all up to the last of them.
type Prefix struct {
	Rows int
	sum  [sha256.Size]byte
}

// Types of the server's messages.
const (
	msgAuthentication  = 'R'
	msgBackendKey      = 'K'
	msgBindComplete    = '2'
	msgCloseComplete   = '3'
	msgCommandComplete = 'C'
	msgCopyData        = 'd'
	msgDataRow         = 'D'
	msgEmptyQuery      = 'I'
	msgErrorResponse   = 'E'
	msgNotice          = 'N'
	msgNotification    = 'A'
	msgParameters      = 't'
	msgParameterStatus = 'S'
	msgParseComplete   = '1'
	msgPortalSuspended = 's'
	msgReadyForQuery   = 'Z'
	msgRowDescription  = 'T'
)

// firstUserOID is FirstNormalObjectId of the server's transam.h.
const firstUserOID = 16384

// Reset makes the digest ready for another statement.
func (d *Digest) Reset() {
	if d.all == nil {
		d.all = sha256.New()
	}
	d.all.Reset()
	*d = Digest{all: d.all, body: d.body[:0]}
}

// Expect has Differs tell whether the result about to come begins otherwise than p.
func (d *Digest) Expect(p Prefix) { d.expected = p }

// Differs tells whether the result is known not to begin as was expected.
func (d *Digest) Differs() bool { return d.differs }

// Prefix is what has come of the exchange under way; its Rows are 0 if that cannot be told.
func (d *Digest) Prefix() Prefix {
	switch {
	case d.marked:
		return d.last
	case d.torn:
		return Prefix{}
	}
	p := Prefix{Rows: d.rows}
	d.all.Sum(p.sum[:0])
	return p
}

// Sum is the digest of all that came.
func (d *Digest) Sum() (sum [sha256.Size]byte) {
	d.fold()
	return d.past
}

// fold ends an exchange.
func (d *Digest) fold() {
	d.all.Write(d.past[:])
	d.all.Sum(d.past[:0])
	d.all.Reset()
	d.rows, d.ended, d.marked = 0, false, false
}

// Write takes the next bytes that a server sent. It never fails.
func (d *Digest) Write(b []byte) (int, error) {
	for n := len(b); ; {
		if d.have < len(d.head) {
			k := copy(d.head[d.have:], b)
			d.have += k
			b = b[k:]
			if d.have < len(d.head) {
				return n, nil
			}
			d.left = max(0, int(binary.BigEndian.Uint32(d.head[1:]))-4)
			d.begin()
		}
		k := min(d.left, len(b))
		switch {
		case d.whole:
			d.body = append(d.body, b[:k]...)
		case d.row:
			d.part(b[:k])
		case !d.skipped:
			d.all.Write(b[:k])
		}
		d.left -= k
		b = b[k:]
		if d.left > 0 {
			return n, nil
		}
		d.have = 0
		d.end()
		if len(b) == 0 {
			return n, nil
		}
	}
}

// begin decides what counts of a message.
func (d *Digest) begin() {
	d.whole, d.skipped, d.row = false, false, false
	switch d.head[0] {
	case msgDataRow, msgCopyData:
		d.row, d.body = true, d.body[:0]
	case msgParseComplete, msgBindComplete, msgCloseComplete, msgNotice, msgNotification, msgParameterStatus, msgReadyForQuery, msgAuthentication, msgBackendKey:
		d.skipped = true
	case msgRowDescription, msgParameters, msgErrorResponse:
		d.mark()
		d.whole, d.body = true, d.body[:0]
		d.all.Write(d.head[:1])
	default:
		d.mark()
		d.all.Write(d.head[:])
	}
}

// mark remembers the digest as it is after the latest row.
func (d *Digest) mark() {
	if d.rows > 0 && !d.marked {
		d.last, d.marked = d.Prefix(), true
	}
}

// maxPiece is up to which size a row that comes in pieces is put together, in bytes.
const maxPiece = 64 << 10

// part adds a part of a row. A row counts once all of it is there, unless it is long.
func (d *Digest) part(b []byte) {
	have := len(d.body)
	switch {
	case d.torn:
		d.all.Write(b)
		d.torn = len(b) < d.left
	case have == 0 && len(b) == d.left:
		d.all.Write(d.head[:])
		d.all.Write(b)
	case have+d.left > maxPiece:
		d.all.Write(d.head[:])
		d.all.Write(d.body)
		d.all.Write(b)
		d.body, d.torn = d.body[:0], true
	default:
		d.body = append(d.body, b...)
		if len(b) == d.left {
			d.all.Write(d.head[:])
			d.all.Write(d.body)
		}
	}
}

// end follows what the end of a message means.
func (d *Digest) end() {
	switch d.head[0] {
	case msgDataRow, msgCopyData:
		d.marked = false
		if d.rows++; d.rows == d.expected.Rows && d.Prefix() != d.expected {
			d.differs = true
		}
		return
	case msgRowDescription:
		d.describe(d.body)
		return
	case msgParameters:
		d.parameters(d.body)
		return
	case msgErrorResponse:
		d.failed(d.body)
	case msgReadyForQuery:
		if d.ended && d.rows < d.expected.Rows {
			d.differs = true
		}
		d.fold()
		return
	case msgCommandComplete, msgPortalSuspended, msgEmptyQuery:
	default:
		return
	}
	d.ended = true
}

// describe adds a description of rows: name, table (4 bytes), column (2), type (4), size
// (2), modifier (4), format (2) of each.
func (d *Digest) describe(b []byte) {
	if len(b) < 2 {
		d.add(b)
		return
	}
	n := int(binary.BigEndian.Uint16(b))
	d.all.Write(b[:2])
	for b = b[2:]; n > 0; n-- {
		end := bytes.IndexByte(b, 0)
		if end < 0 || len(b) < end+19 {
			break
		}
		d.all.Write(b[:end+1])
		b = b[end+1:]
		d.oid(b[6:10])
		d.all.Write(b[10:18])
		b = b[18:]
	}
	d.add(b)
}

// parameters adds a description of parameters: the number of each one's type.
func (d *Digest) parameters(b []byte) {
	if len(b) < 2 {
		d.add(b)
		return
	}
	d.all.Write(b[:2])
	for b = b[2:]; len(b) >= 4; b = b[4:] {
		d.oid(b[:4])
	}
	d.add(b)
}

func (d *Digest) oid(b []byte) {
	d.count(min(binary.BigEndian.Uint32(b), firstUserOID))
}

// failed adds an error: fields of a type and a text each.
func (d *Digest) failed(b []byte) {
	for len(b) > 0 && b[0] != 0 {
		end := bytes.IndexByte(b, 0)
		if end < 0 {
			break
		}
		switch b[0] {
		case 'F', 'L', 'R': // file, line, routine
		default:
			d.all.Write(b[:end+1])
		}
		b = b[end+1:]
	}
}

// add takes what has no shape of its own, with its length before it.
func (d *Digest) add(b []byte) {
	d.count(uint32(len(b)))
	d.all.Write(b)
}

func (d *Digest) count(n uint32) {
	binary.BigEndian.PutUint32(d.number[:], n)
	d.all.Write(d.number[:])
}

// Result takes what came of a statement that the engine itself ran.
func (d *Digest) Result(tag string, err error) {
	var pe *pgconn.PgError
	switch {
	case err == nil:
		d.add([]byte{msgCommandComplete})
		d.add([]byte(tag))
	case errors.As(err, &pe):
		d.add([]byte{msgErrorResponse})
		for _, field := range []string{pe.Code, pe.Message, pe.Detail, pe.Hint, pe.Where} {
			d.add([]byte(field))
		}
	default:
		d.add([]byte{msgErrorResponse})
		d.add([]byte(err.Error()))
	}
}
