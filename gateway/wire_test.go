package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// talker speaks the protocol from scripts, one message a line:
//
//	Q text                 simple query
//	P name|text|oid,oid    Parse
//	B portal|name|v|v…     Bind, values as text, \N for NULL
//	b portal|name|f/g|v|v… Bind with formats of the values and of the result, f,f/g,g
//	D S|name  D P|name     Describe
//	E portal|rows          Execute
//	C S|name  C P|name     Close
//	S H X                  Sync, Flush, Terminate
//	d text  c  f text      COPY data, done, failed
//	Z n                    reads until n more ReadyForQuery have come
//	R                      reads until nothing comes for a while
//	= text                 sends raw bytes, as Go writes strings
//	~ n                    from here on in pieces of n bytes
type talker struct {
	tb    testing.TB
	conn  net.Conn
	front *pgproto3.Frontend
	buf   []byte
	piece int
	log   []string
	// patience is how long an answer is waited for.
	patience time.Duration
	// pid is what the client was told that its process is; told has the log say whether
	// notifications are its own.
	pid  uint32
	told bool
	// began is what the client was told of parameters when it logged in.
	began map[string]string
}

func talk(tb testing.TB, addr string, params map[string]string) *talker {
	tb.Helper()
	t := &talker{tb: tb, patience: patience}
	t.connect(addr, params)
	t.log = nil
	return t
}

// connect logs in; what is said then is in the log.
func (t *talker) connect(addr string, params map[string]string) {
	t.tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.tb.Fatal(err)
	}
	t.tb.Cleanup(func() { _ = conn.Close() })
	t.conn, t.front = conn, pgproto3.NewFrontend(conn, conn)
	p := map[string]string{"user": "postgres", "database": "postgres"}
	for k, v := range params {
		p[k] = v
	}
	t.front.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: p})
	if err := t.front.Flush(); err != nil {
		t.tb.Fatal(err)
	}
	t.until(1)
	t.began = map[string]string{}
	for _, line := range t.log {
		if p, ok := strings.CutPrefix(line, "parameter "); ok {
			name, value, _ := strings.Cut(p, "=")
			t.began[name] = value
		}
	}
}

// old tells that the server is one of before PostgreSQL 14.
func (t *talker) old() bool {
	major, _, _ := strings.Cut(t.began["server_version"], ".")
	n, err := strconv.Atoi(major)
	return err == nil && n < 14
}

// asNow is what a server since PostgreSQL 14 would have told of parameters, as the gateway
// does whatever its servers are: what has changed, before it is ready. Older ones tell of
// each SET at once, and nothing of default_transaction_read_only.
func (t *talker) asNow(log []string) []string {
	told, changed := maps.Clone(t.began), map[string]string{}
	var out []string
	for _, line := range log {
		if p, ok := strings.CutPrefix(line, "parameter "); ok {
			if name, value, _ := strings.Cut(p, "="); name != "default_transaction_read_only" {
				changed[name] = value
			}
			continue
		}
		if strings.HasPrefix(line, "ready ") {
			for _, name := range slices.Sorted(maps.Keys(changed)) {
				if told[name] != changed[name] {
					told[name] = changed[name]
					out = append(out, "parameter "+name+"="+told[name])
				}
			}
			clear(changed)
		}
		out = append(out, line)
	}
	return out
}

func (t *talker) run(script string) []string {
	t.tb.Helper()
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		t.line(strings.TrimSpace(line))
	}
	return t.log
}

func (t *talker) line(line string) {
	t.tb.Helper()
	if line == "" {
		return
	}
	rest := ""
	if len(line) > 2 {
		rest = strings.ReplaceAll(line[2:], `\n`, "\n")
	}
	f := strings.Split(rest, "|")
	for len(f) < 3 {
		f = append(f, "")
	}
	switch line[0] {
	case 'Q':
		t.put('Q', rest+"\x00")
	case 'P':
		b := f[0] + "\x00" + f[1] + "\x00"
		var oids []string
		if f[2] != "" {
			oids = strings.Split(f[2], ",")
		}
		b += string(binary.BigEndian.AppendUint16(nil, uint16(len(oids))))
		for _, o := range oids {
			n, _ := strconv.Atoi(o)
			b += string(binary.BigEndian.AppendUint32(nil, uint32(n)))
		}
		t.put('P', b)
	case 'B':
		values := strings.Split(rest, "|")
		t.put('B', values[0]+"\x00"+values[1]+"\x00"+"\x00\x00"+boundValues(values[2:])+"\x00\x00")
	case 'b':
		t.bindFormats(strings.Split(rest, "|"))
	case '~':
		t.piece, _ = strconv.Atoi(f[0])
	case 'D', 'C':
		t.put(line[0], f[0]+f[1]+"\x00")
	case 'E':
		n, _ := strconv.Atoi(f[1])
		t.put('E', f[0]+"\x00"+string(binary.BigEndian.AppendUint32(nil, uint32(n))))
	case 'S', 'H', 'X', 'c':
		t.put(line[0], "")
	case 'd':
		t.put('d', rest)
	case 'f':
		t.put('f', rest+"\x00")
	case '=':
		s, err := strconv.Unquote(`"` + rest + `"`)
		if err != nil {
			t.tb.Fatal(err)
		}
		t.buf = append(t.buf, s...)
	case 'Z':
		n, _ := strconv.Atoi(f[0])
		t.flush()
		t.until(n)
	case 'R':
		t.flush()
		t.quiet()
	default:
		t.tb.Fatalf("line %q", line)
	}
}

func boundValues(values []string) string {
	b := string(binary.BigEndian.AppendUint16(nil, uint16(len(values))))
	for _, v := range values {
		if v == `\N` {
			b += "\xff\xff\xff\xff"
			continue
		}
		b += string(binary.BigEndian.AppendUint32(nil, uint32(len(v)))) + v
	}
	return b
}

func (t *talker) bindFormats(f []string) {
	formats := func(list string) string {
		parts := strings.Split(list, ",")
		b := binary.BigEndian.AppendUint16(nil, uint16(len(parts)))
		for _, p := range parts {
			n, _ := strconv.Atoi(p)
			b = binary.BigEndian.AppendUint16(b, uint16(n))
		}
		return string(b)
	}
	of, results, _ := strings.Cut(f[2], "/")
	t.put('B', f[0]+"\x00"+f[1]+"\x00"+formats(of)+boundValues(f[3:])+formats(results))
}

func (t *talker) put(typ byte, body string) { t.buf = appendMessage(t.buf, typ, []byte(body)) }

func (t *talker) flush() {
	for b := t.buf; len(b) > 0; {
		n := len(b)
		if t.piece > 0 {
			n = min(n, t.piece)
		}
		if _, err := t.conn.Write(b[:n]); err != nil {
			break // told by what is read
		}
		b = b[n:]
	}
	t.buf = nil
}

const patience = time.Minute

// silent stands in the log where an answer was waited for in vain.
const silent = "nothing comes any more"

func (t *talker) until(n int) {
	_ = t.conn.SetReadDeadline(time.Now().Add(t.patience))
	for n > 0 {
		m, err := t.front.Receive()
		if err != nil {
			t.end(err)
			return
		}
		t.note(m)
		if _, ok := m.(*pgproto3.ReadyForQuery); ok {
			n--
		}
	}
}

func (t *talker) quiet() {
	for {
		_ = t.conn.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
		m, err := t.front.Receive()
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.end(err)
			}
			return
		}
		t.note(m)
	}
}

func (t *talker) end(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.log = append(t.log, silent)
		return
	}
	t.log = append(t.log, "closed")
}

var pidPattern = regexp.MustCompile(`PID:\d+|pid \d+`)

// note writes a message down as far as it must be the same everywhere.
func (t *talker) note(m pgproto3.BackendMessage) {
	switch m := m.(type) {
	case *pgproto3.BackendKeyData:
		t.pid = m.ProcessID
	case *pgproto3.ErrorResponse:
		t.log = append(t.log, fmt.Sprintf("error %s %s %q detail %q position %d", m.Severity, m.Code, m.Message, m.Detail, m.Position))
	case *pgproto3.NoticeResponse:
		t.log = append(t.log, fmt.Sprintf("notice %s %s %q", m.Severity, m.Code, m.Message))
	case *pgproto3.ParameterStatus:
		t.log = append(t.log, "parameter "+m.Name+"="+m.Value)
	case *pgproto3.RowDescription:
		line := "row"
		for _, f := range m.Fields {
			oid := strconv.Itoa(int(f.DataTypeOID))
			if f.DataTypeOID >= firstUserOID {
				oid = "user"
			}
			line += fmt.Sprintf(" %s:%s:%t:%d:%d", f.Name, oid, f.TableOID != 0, f.TableAttributeNumber, f.Format)
		}
		t.log = append(t.log, line)
	case *pgproto3.ParameterDescription:
		line := "parameters"
		for _, oid := range m.ParameterOIDs {
			if oid >= firstUserOID {
				line += " user"
				continue
			}
			line += " " + strconv.Itoa(int(oid))
		}
		t.log = append(t.log, line)
	case *pgproto3.CommandComplete:
		t.log = append(t.log, "complete "+string(m.CommandTag))
	case *pgproto3.NotificationResponse:
		t.log = append(t.log, "notification "+m.Channel+" "+m.Payload)
		if t.told {
			t.log[len(t.log)-1] += fmt.Sprintf(" own:%t", m.PID == t.pid)
		}
	case *pgproto3.DataRow:
		t.log = append(t.log, fmt.Sprintf("data %q", m.Values))
	case *pgproto3.ReadyForQuery:
		t.log = append(t.log, "ready "+string(m.TxStatus))
	default:
		t.log = append(t.log, pidPattern.ReplaceAllString(strings.TrimPrefix(fmt.Sprintf("%T %+v", m, m), "*pgproto3."), "PID"))
	}
}
