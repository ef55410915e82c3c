package gateway

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Types of messages (PostgreSQL docs, "Message Formats"). Some letters mean one
// thing from a client and another from a server.
const (
	msgAuthentication       = 'R'
	msgBackendKey           = 'K'
	msgBind                 = 'B'
	msgBindComplete         = '2'
	msgClose                = 'C'
	msgCloseComplete        = '3'
	msgCommandComplete      = 'C'
	msgCopyBoth             = 'W'
	msgCopyData             = 'd'
	msgCopyDone             = 'c'
	msgCopyFail             = 'f'
	msgCopyIn               = 'G'
	msgCopyOut              = 'H'
	msgDataRow              = 'D'
	msgDescribe             = 'D'
	msgEmptyQuery           = 'I'
	msgError                = 'E'
	msgExecute              = 'E'
	msgFlush                = 'H'
	msgFunctionCall         = 'F'
	msgFunctionResponse     = 'V'
	msgNegotiateVersion     = 'v'
	msgNoData               = 'n'
	msgNotice               = 'N'
	msgNotification         = 'A'
	msgParameterDescription = 't'
	msgParameterStatus      = 'S'
	msgParse                = 'P'
	msgParseComplete        = '1'
	msgPassword             = 'p'
	msgPortalSuspended      = 's'
	msgQuery                = 'Q'
	msgReady                = 'Z'
	msgRowDescription       = 'T'
	msgSync                 = 'S'
	msgTerminate            = 'X'
)

// begin starts a message whose length end fills in.
func begin(b []byte, typ byte) ([]byte, int) {
	b = append(b, typ, 0, 0, 0, 0)
	return b, len(b) - 4
}

func end(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

// appendMessage appends a message with that body.
func appendMessage(b []byte, typ byte, body []byte) []byte {
	b = append(b, typ)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)+4))
	return append(b, body...)
}

// appendText appends a message whose body is strings, each ended by a zero byte.
func appendText(b []byte, typ byte, texts ...string) []byte {
	b, at := begin(b, typ)
	for _, t := range texts {
		b = append(append(b, t...), 0)
	}
	return end(b, at)
}

// cstring splits a string that ends with a zero byte off b.
func cstring(b []byte) (s, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

// errorOf is what a server's error or notice says.
func errorOf(body []byte) *pgconn.PgError {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return &pgconn.PgError{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08P01", Message: "a server sent an error that cannot be read"}
	}
	return pgconn.ErrorResponseToPgError(&m)
}

// appendError appends an error, or a notice, of ours or with a position moved.
func appendError(b []byte, typ byte, e *pgconn.PgError) []byte {
	b, at := begin(b, typ)
	field := func(code byte, value string) {
		if value != "" {
			b = append(append(append(b, code), value...), 0)
		}
	}
	number := func(code byte, n int32) {
		if n != 0 {
			field(code, strconv.Itoa(int(n)))
		}
	}
	severity := e.SeverityUnlocalized
	if severity == "" {
		severity = e.Severity
	}
	field('S', e.Severity)
	field('V', severity)
	field('C', e.Code)
	field('M', e.Message)
	field('D', e.Detail)
	field('H', e.Hint)
	number('P', e.Position)
	number('p', e.InternalPosition)
	field('q', e.InternalQuery)
	field('W', e.Where)
	field('s', e.SchemaName)
	field('t', e.TableName)
	field('c', e.ColumnName)
	field('d', e.DataTypeName)
	field('n', e.ConstraintName)
	field('F', e.File)
	number('L', e.Line)
	field('R', e.Routine)
	return end(append(b, 0), at)
}
