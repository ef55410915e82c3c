package gateway

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// packet is a start-up packet.
func packet(code uint32, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)+8))
	return string(binary.BigEndian.AppendUint32(b, code)) + body
}

func startup(minor uint32, params ...string) string {
	return packet(3<<16|minor, strings.Join(params, "\x00")+"\x00\x00")
}

// hearing reads what comes until nothing does, or the first ReadyForQuery.
func hearing(tb testing.TB, conn net.Conn) string {
	tb.Helper()
	var said []byte
	buf := make([]byte, 64<<10)
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for !strings.HasSuffix(string(said), "Z\x00\x00\x00\x05I") {
		n, err := conn.Read(buf)
		said = append(said, buf[:n]...)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return string(said) + "<open>"
			}
			return string(said) + "<closed>"
		}
	}
	return string(said)
}

// fatalText are the fields of an error that ends a log-in, as they are compared.
func fatalText(code, message string) string {
	return "SFATAL\x00VFATAL\x00C" + code + "\x00M" + message + "\x00\x00"
}

// TestStartup says byte for byte what PostgreSQL 18 does with what comes first.
func TestStartup(t *testing.T) {
	cert, _ := certificate(t)
	s := newSet(t, nil)
	plain := s.addr
	s.serve(t, func(c *Config) { c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	const (
		ssl    = 1234<<16 | 5679
		gss    = 1234<<16 | 5680
		cancel = 1234<<16 | 5678
	)
	v := func(version uint32, names ...string) string {
		b := binary.BigEndian.AppendUint32(nil, version)
		b = binary.BigEndian.AppendUint32(b, uint32(len(names)))
		for _, n := range names {
			b = append(append(b, n...), 0)
		}
		return string(appendMessage(nil, 'v', b))
	}
	const ok = "R\x00\x00\x00\x08\x00\x00\x00\x00"
	unknown := func(version string) string {
		return fatalText("0A000", "unsupported frontend protocol "+version+": server supports 3.0 to 3.2") + "<closed>"
	}
	layout := fatalText("08P01", "invalid startup packet layout: expected terminator as last byte") + "<closed>"
	for _, c := range []struct {
		name, send string
		tls        bool
		begins     string // all before the first message of another kind
		ends       string
	}{
		{name: "3.0", send: startup(0, "user", "postgres"), begins: ok},
		{name: "3.1", send: startup(1, "user", "postgres"), begins: ok},
		{name: "3.2", send: startup(2, "user", "postgres"), begins: ok},
		{name: "3.9", send: startup(9, "user", "postgres"), begins: v(3<<16|2) + ok},
		{name: "3.9 with an option", send: startup(9, "user", "postgres", "_pq_.foo", "1"), begins: v(3<<16|2, "_pq_.foo") + ok},
		{name: "3.0 with options", send: startup(0, "user", "postgres", "_pq_.foo", "1", "_pq_.bar", ""), begins: v(3<<16, "_pq_.foo", "_pq_.bar") + ok},
		{name: "4.0", send: packet(4<<16, "user\x00postgres\x00\x00"), ends: unknown("4.0")},
		{name: "2.0", send: packet(2<<16, "postgres\x00"), ends: unknown("2.0")},
		{name: "no user", send: startup(0, "database", "postgres"), ends: fatalText("28000", "no PostgreSQL user name specified in startup packet") + "<closed>"},
		{name: "nothing", send: packet(3<<16, "\x00"), ends: fatalText("28000", "no PostgreSQL user name specified in startup packet") + "<closed>"},
		{name: "no terminator", send: packet(3<<16, "user\x00postgres\x00"), ends: layout},
		{name: "more behind the terminator", send: packet(3<<16, "user\x00postgres\x00\x00x"), ends: layout},
		{name: "a name without a value", send: packet(3<<16, "user\x00"), ends: layout},
		{name: "too long", send: startup(0, "user", "postgres", "a.b", strings.Repeat("x", 20000)), begins: "<"},
		{name: "too short", send: "\x00\x00\x00\x04", begins: "<"},
		{name: "an unknown setting", send: startup(0, "user", "postgres", "nosuch", "1"), begins: ok + "E", ends: "C42704\x00Munrecognized configuration parameter \"nosuch\"\x00"},
		{name: "a bad value", send: startup(0, "user", "postgres", "DateStyle", "nonsense"), begins: ok + "E", ends: "C22023\x00M"},
		{name: "no such database", send: startup(0, "user", "postgres", "database", "nosuch"), ends: fatalText("3D000", `database "nosuch" does not exist`) + "<closed>"},
		{name: "SSL refused", send: packet(ssl, "") + startup(0, "user", "postgres"), begins: "N" + ok},
		{name: "SSL refused twice", send: packet(ssl, "") + packet(ssl, ""), begins: "NE", ends: unknown("1234.5679")},
		{name: "GSS refused", send: packet(gss, "") + startup(0, "user", "postgres"), begins: "N" + ok},
		{name: "GSS and SSL refused", send: packet(gss, "") + packet(ssl, "") + startup(0, "user", "postgres"), begins: "NN" + ok},
		{name: "SSL and GSS refused", send: packet(ssl, "") + packet(gss, "") + startup(0, "user", "postgres"), begins: "NN" + ok},
		{name: "GSS refused twice", send: packet(gss, "") + packet(gss, ""), begins: "NE", ends: unknown("1234.5680")},
		{name: "cancel behind a refusal", send: packet(ssl, "") + packet(cancel, "\x00\x00\x00\x01abcd"), begins: "N<"},
		{name: "cancel of nobody", send: packet(cancel, "\x00\x00\x00\x01abcd"), begins: "<"},
		{name: "bytes stuffed behind SSLRequest", send: packet(ssl, "") + startup(0, "user", "postgres"), tls: true, begins: "S<"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := plain
			if c.tls {
				addr = s.addr
			}
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, c.send); err != nil {
				t.Fatal(err)
			}
			got := hearing(t, conn)
			if !strings.HasPrefix(got, c.begins) || !strings.Contains(got, c.ends) || strings.HasSuffix(got, "<open>") {
				t.Errorf("it answers %q, and not %q … %q", got, c.begins, c.ends)
			}
			if _, key, ok := strings.Cut(got, "K\x00\x00\x00"); ok && strings.HasPrefix(c.name, "3.") {
				want := map[bool]byte{true: 40, false: 12}[c.name >= "3.2"]
				if key[0] != want {
					t.Errorf("the cancel key's message is %d bytes long", key[0])
				}
			}
		})
	}
	t.Run("TLS", func(t *testing.T) { startsInTLS(t, s.addr) })
}

// startsInTLS asks for TLS where there is TLS already.
func startsInTLS(t *testing.T, addr string) {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}
	for name, c := range map[string]struct {
		direct bool
		protos []string
		send   string
		want   string
	}{
		"SSLRequest after direct TLS":       {direct: true, protos: config.NextProtos, send: packet(1234<<16|5679, "") + startup(0, "user", "postgres"), want: "NR"},
		"SSLRequest after negotiated TLS":   {protos: config.NextProtos, send: packet(1234<<16|5679, ""), want: "E"},
		"GSSENCRequest after direct TLS":    {direct: true, protos: config.NextProtos, send: packet(1234<<16|5680, ""), want: "E"},
		"negotiated TLS, no ALPN":           {send: startup(0, "user", "postgres"), want: "R"},
		"direct TLS":                        {direct: true, protos: config.NextProtos, send: startup(0, "user", "postgres"), want: "R"},
		"direct TLS with a foreign ALPN":    {direct: true, protos: []string{"h2"}, want: "no"},
		"direct TLS without ALPN":           {direct: true, send: startup(0, "user", "postgres"), want: "<"},
		"cancel request within direct TLS":  {direct: true, protos: config.NextProtos, send: packet(1234<<16|5678, "\x00\x00\x00\x01abcd"), want: "<"},
		"start-up packet too long over TLS": {direct: true, protos: config.NextProtos, send: "\x00\x00\x4e\x20", want: "<"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if !c.direct {
				_, _ = io.WriteString(conn, packet(1234<<16|5679, ""))
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			own := config.Clone()
			own.NextProtos = c.protos
			secure := tls.Client(conn, own)
			if err := secure.Handshake(); err != nil {
				if c.want != "no" {
					t.Fatal(err)
				}
				return
			}
			_, _ = io.WriteString(secure, c.send)
			if got := hearing(t, secure); !strings.HasPrefix(got, c.want) || strings.HasSuffix(got, "<open>") {
				t.Errorf("it answers %q, and not %q", got, c.want)
			}
		})
	}
}

// TestStartupSettings compares what settings a start-up message makes, and what the client
// is told of its session, with a plain server.
func TestStartupSettings(t *testing.T) {
	plain, s := pgtest.Start(t, pgtest.Options{}), newSet(t, nil)
	for _, params := range []map[string]string{
		{}, {"application_name": "me", "client_encoding": "LATIN1"}, {"options": `-c DateStyle=German -cTimeZone=Asia/Tokyo --extra-float-digits=0`},
		{"options": `-c a.b=x\ y\\z`}, {"options": `--a.b=v=w`}, {"options": "  -c\ta.b=1  "}, {"options": `-c a.b=`}, {"a.b": "1", "options": "-c a.b=2"},
		{"DateStyle": "SQL", "TimeZone": "Europe/Rome"}, {"search_path": "pg_catalog", "default_transaction_read_only": "on"},
		{"options": "-c DateStyle=ISO", "DateStyle": "German"}, {"options": "-c nosuch=1"}, {"options": "-c"}, {"options": "nonsense"}, {"options": "-c a"}, {"database": ""},
	} {
		var logs [2][]string
		for i, addr := range []string{plain.Addr(), s.addr} {
			logs[i] = settingsTold(t, addr, params)
		}
		if diff := cmp.Diff(logs[0], logs[1]); diff != "" {
			t.Errorf("%v: the gateway (+) answers differently than PostgreSQL (-):\n%s", params, diff)
		}
	}
}

func settingsTold(t *testing.T, addr string, params map[string]string) []string {
	k := &talker{tb: t, patience: patience}
	k.connect(addr, params)
	told := map[string]string{}
	var rest []string
	for _, line := range k.log {
		if p, ok := strings.CutPrefix(line, "parameter "); ok {
			name, value, _ := strings.Cut(p, "=")
			if !k.old() || name != "default_transaction_read_only" { // which older servers do not tell of
				told[name] = value
			}
		} else if !strings.HasPrefix(line, "BackendKeyData") {
			rest = append(rest, line)
		}
	}
	rest = append(rest, fmt.Sprint(told))
	k.log = nil
	if rest[len(rest)-2] == "closed" {
		return rest
	}
	names := []string{"DateStyle", "TimeZone", "extra_float_digits", "search_path", "default_transaction_read_only", "application_name"}
	if strings.Contains(fmt.Sprint(params), "a.b") { // on a shared connection, others' parameters of that kind stay known
		names = append(names, "a.b")
	}
	for _, name := range names {
		k.run("Q SHOW " + name + "\nZ 1\nQ SET " + name + " = DEFAULT\nZ 1\nQ SHOW " + name + "\nZ 1")
	}
	if k.old() {
		return append(rest, k.asNow(k.log)...)
	}
	return append(rest, k.log...)
}
