//go:build unix

package pgtest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// echo answers everything with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func through(t *testing.T, l *Link) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// hears tells whether what is sent comes back within a while.
func hears(c net.Conn, text string, within time.Duration) string {
	if _, err := c.Write([]byte(text)); err != nil {
		return "cut"
	}
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "cut"
	}
	buf := make([]byte, len(text))
	switch n, err := io.ReadFull(c, buf); {
	case err == nil:
		return string(buf)
	case strings.Contains(err.Error(), "timeout"):
		return "silence"
	default:
		return "cut after " + string(buf[:n])
	}
}

func TestLinkFaults(t *testing.T) {
	l := NewLink(t, echo(t))
	const soon, long = 100 * time.Millisecond, 10 * time.Second
	c := through(t, l)
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	want(hears(c, "hello", long), "hello")
	for _, hold := range []func(){l.Stall, func() { l.Hold(ToServer) }, func() { l.Hold(ToClient) }} {
		hold()
		want(hears(c, "abc", soon), "silence")
		l.Heal()
		want(hears(c, "", long), "")
		got := make([]byte, 3)
		if err := c.SetReadDeadline(time.Now().Add(long)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "abc" {
			t.Errorf("after it was healed %q came, %v", got, err)
		}
	}
	l.Trickle(time.Millisecond)
	want(hears(c, strings.Repeat("x", 500), long), strings.Repeat("x", 500))
	l.CutAfter(7) // five there, two back
	want(hears(c, "abcde", long), "cut after ab")
	c = through(t, l)
	want(hears(c, "x", long)[:3], "cut")
	l.Heal()
	c = through(t, l)
	want(hears(c, "hello", long), "hello")
	l.Cut()
	want(hears(c, "x", long)[:3], "cut")
}

// A link is cut at the message that is meant, and at no other.
func TestLinkCutAt(t *testing.T) {
	s := Start(t, Options{FsyncOff: true})
	l := NewLink(t, s.Addr())
	host, port := l.Addr()
	dsn := "postgres://postgres@" + net.JoinHostPort(host, strconv.Itoa(int(port))) + "/postgres?sslmode=disable"
	for _, way := range []Way{ToServer, ToClient} {
		l.Heal()
		c := Connect(t, dsn)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		table := "t" + strconv.Itoa(int(way))
		if _, err := c.Exec(ctx, "CREATE TABLE "+table+" (n int)"); err != nil {
			t.Fatal(err)
		}
		told := make(chan struct{})
		l.CutAt(way, func(kind byte, body []byte) bool {
			return way == ToServer && kind == 'Q' && bytes.HasPrefix(body, []byte("COMMIT")) || way == ToClient && kind == 'C' && bytes.HasPrefix(body, []byte("COMMIT"))
		}, func() { close(told) })
		for _, q := range []string{"BEGIN", "INSERT INTO " + table + " VALUES (1)", "SELECT 'COMMIT'"} {
			if _, err := c.PgConn().Exec(ctx, q).ReadAll(); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
		if _, err := c.PgConn().Exec(ctx, "COMMIT").ReadAll(); err == nil {
			t.Errorf("way %d: COMMIT was answered", way)
		}
		<-told
		var n int
		at := Connect(t, s.DSN())
		if err := at.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil || n != int(way) {
			t.Errorf("way %d: %d rows, %v", way, n, err)
		}
	}
}

// Messages are found wherever the pieces of a stream are cut.
func TestFramer(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var stream []byte
	var want []message
	add := func(kind byte, body string) {
		if kind != 0 {
			stream = append(stream, kind)
		}
		n := len(body) + 4
		stream = append(stream, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		stream = append(stream, body...)
		want = append(want, message{kind, []byte(body[:min(len(body), peeked)])})
	}
	add(0, "user\x00me\x00\x00")
	for range 200 {
		add("QCDZS"[rng.IntN(5)], strings.Repeat("x", []int{0, 1, 15, 16, 17, 400}[rng.IntN(6)]))
	}
	var f framer
	var got []message
	for rest := stream; len(rest) > 0; {
		n := min(len(rest), 1+rng.IntN(30))
		got, rest = append(got, f.feed(rest[:n])...), rest[n:]
	}
	if len(got) != len(want) {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].kind != want[i].kind || !bytes.Equal(got[i].body, want[i].body) {
			t.Errorf("message %d: %q, want %q", i, got[i], want[i])
		}
	}
}

func TestProgram(t *testing.T) {
	p, err := StartProgram(exec.Command("sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []func() error{p.SigStop, p.SigCont, p.Kill, p.Kill} {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	if !p.Ended() || p.Err() == nil {
		t.Errorf("ended %v: %v", p.Ended(), p.Err())
	}
	if err := p.SigStop(); err == nil {
		t.Error("a dead program can be stopped")
	}
	if _, err := StartProgram(exec.Command("/no/such/program")); err == nil {
		t.Error("what does not exist was started")
	}
}
