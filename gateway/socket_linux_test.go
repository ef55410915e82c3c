package gateway

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a socket of a loop with the other end of its connection.
func pair(tb testing.TB, l *loop) (*socket, *net.TCPConn) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer listener.Close()
	far, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	near, err := listener.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	s, err := newSocket(near, l)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _, _ = s.Close(), far.Close() })
	return s, far.(*net.TCPConn)
}

func startLoop(tb testing.TB) *loop {
	tb.Helper()
	l, err := newLoop()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(l.stop)
	return l
}

// TestSocketCarries sends much in both directions at once, more than the kernel keeps.
func TestSocketCarries(t *testing.T) {
	near, far := pair(t, startLoop(t))
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		wg.Go(func() {
			if n, err := way[0].Write(data); n != len(data) || err != nil {
				t.Errorf("%d of %d are written: %v", n, len(data), err)
			}
		})
		wg.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("what arrives is something else (%v)", err)
			}
		})
	}
	wg.Wait()
	if near.RemoteAddr().String() != far.LocalAddr().String() || near.LocalAddr().String() != far.RemoteAddr().String() {
		t.Error("the addresses are others")
	}
}

// TestSocketEnds: whatever ends a wait does so, whether it comes before or after it has begun.
func TestSocketEnds(t *testing.T) {
	l := startLoop(t)
	full := bytes.Repeat([]byte{1}, 64<<20)
	read := func(s *socket) error { _, err := s.Read(make([]byte, 10)); return err }
	write := func(s *socket) error { _, err := s.Write(full); return err }
	for name, c := range map[string]struct {
		wait func(*socket) error
		end  func(near *socket, far *net.TCPConn) error
		want error
	}{
		"close, reading":     {read, func(n *socket, _ *net.TCPConn) error { return n.Close() }, net.ErrClosed},
		"close, writing":     {write, func(n *socket, _ *net.TCPConn) error { return n.Close() }, net.ErrClosed},
		"past, reading":      {read, func(n *socket, _ *net.TCPConn) error { return n.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		"past, writing":      {write, func(n *socket, _ *net.TCPConn) error { return n.SetWriteDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		"future, reading":    {read, func(n *socket, _ *net.TCPConn) error { return n.SetDeadline(time.Now().Add(20 * time.Millisecond)) }, os.ErrDeadlineExceeded},
		"future, writing":    {write, func(n *socket, _ *net.TCPConn) error { return n.SetDeadline(time.Now().Add(20 * time.Millisecond)) }, os.ErrDeadlineExceeded},
		"far end, reading":   {read, func(_ *socket, f *net.TCPConn) error { return f.Close() }, io.EOF},
		"far reset, reading": {read, func(_ *socket, f *net.TCPConn) error { return errors.Join(f.SetLinger(0), f.Close()) }, unix.ECONNRESET},
		"far reset, writing": {write, func(_ *socket, f *net.TCPConn) error { return errors.Join(f.SetLinger(0), f.Close()) }, unix.ECONNRESET},
	} {
		for _, early := range []bool{true, false} {
			near, far := pair(t, l)
			ended := make(chan error, 1)
			if early {
				if err := c.end(near, far); err != nil {
					t.Fatal(name, err)
				}
			}
			go func() { ended <- c.wait(near) }()
			if !early {
				eventually(t, func() bool {
					near.mu.Lock()
					defer near.mu.Unlock()
					return near.in.waits || near.out.waits
				})
				if err := c.end(near, far); err != nil {
					t.Fatal(name, err)
				}
			}
			select {
			case err := <-ended:
				if !errors.Is(err, c.want) && !(c.want == unix.ECONNRESET && errors.Is(err, unix.EPIPE)) {
					t.Errorf("%s, early %t: %v", name, early, err)
				}
			case <-time.After(ages):
				t.Fatalf("%s, early %t: it waits for ever", name, early)
			}
		}
	}
}

// TestSocketGoesOnAfterDeadline: a deadline that is lifted leaves nothing behind.
func TestSocketGoesOnAfterDeadline(t *testing.T) {
	near, far := pair(t, startLoop(t))
	var b [3]byte
	for range 100 {
		_ = near.SetReadDeadline(time.Unix(1, 0))
		if _, err := near.Read(b[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		_ = near.SetReadDeadline(time.Time{})
		if _, err := far.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(near, b[:]); err != nil || string(b[:]) != "abc" {
			t.Fatal(string(b[:]), err)
		}
	}
}

// tester is a rider that does what it is told.
type tester struct {
	read, upset func(l *loop)
}

func (r *tester) readable(l *loop)  { r.read(l) }
func (r *tester) crashed(value any) { panic(value) }

func (r *tester) disturbed(l *loop) {
	if r.upset != nil {
		r.upset(l)
	}
}

// still is a loop that does only what the test says.
func still(tb testing.TB) *loop {
	tb.Helper()
	l, err := openLoop()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _, _ = unix.Close(l.epoll), unix.Close(l.bell) })
	return l
}

// readablePair is a pair on which something waits to be read, and the loop knows nothing else.
func readablePair(t *testing.T, l *loop, r rider) *socket {
	t.Helper()
	s, far := pair(t, l)
	if err := s.board(l, r); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return !empty(s.fd) })
	return s
}

// takePlace closes a socket and has a new connection get its number and its place.
func takePlace(t *testing.T, l *loop, old *socket, r rider) *socket {
	t.Helper()
	late, _ := pair(t, l)
	fd, place := old.fd, old.place
	late.mu.Lock()
	defer late.mu.Unlock()
	l.removeLocked(late)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Dup3(late.fd, fd, unix.O_CLOEXEC), unix.Close(late.fd)); err != nil {
		t.Fatal(err)
	}
	late.fd = fd
	if err := l.addLocked(late); err != nil {
		t.Fatal(err)
	}
	if late.place.index != place.index {
		t.Fatalf("it has place %d instead of %d", late.place.index, place.index)
	}
	late.rider = r
	return late
}

// TestLoopForgetsWhatIsClosed: an event of a connection that was closed meanwhile is nobody's,
// whoever has got its number and its place.
func TestLoopForgetsWhatIsClosed(t *testing.T) {
	never := func(what string) rider {
		return &tester{read: func(*loop) { t.Error(what) }, upset: func(*loop) {}}
	}
	t.Run("before it is looked up", func(t *testing.T) {
		l := still(t)
		s := readablePair(t, l, never("told of what was closed"))
		n := l.poll(syscall.Syscall6, 0)
		if n != 1 {
			t.Fatalf("%d events", n)
		}
		takePlace(t, l, s, never("told of what was another's"))
		disturbed, _ := l.take(n)
		l.serve(disturbed)
	})
	t.Run("in the round that closes it", func(t *testing.T) {
		l := still(t)
		served := 0
		var both [2]*socket
		for i := range both {
			both[i] = readablePair(t, l, &tester{read: func(l *loop) {
				served++
				takePlace(t, l, both[1-i], never("told of what was another's"))
			}})
		}
		n := l.poll(syscall.Syscall6, 0)
		if n != 2 {
			t.Fatalf("%d events", n)
		}
		disturbed, _ := l.take(n)
		l.serve(disturbed)
		if served != 1 {
			t.Errorf("%d riders are told, of which one has closed the other's socket", served)
		}
	})
}

// TestLoopLeavesToTheOther: an event that one loop has got when the socket goes over to another
// one is for the other.
func TestLoopLeavesToTheOther(t *testing.T) {
	a, b := still(t), still(t)
	told := 0
	s := readablePair(t, a, &tester{read: func(l *loop) {
		if told++; l != b {
			t.Error("the loop that had it before tells")
		}
	}})
	disturbed, _ := a.take(a.poll(syscall.Syscall6, 0))
	if len(a.heard) != 1 {
		t.Fatalf("%d events", len(a.heard))
	}
	if err := s.board(b, s.rider); err != nil {
		t.Fatal(err)
	}
	a.serve(disturbed)
	disturbed, _ = b.take(b.poll(syscall.Syscall6, 0))
	b.serve(disturbed)
	if told != 1 {
		t.Errorf("it is told %d times", told)
	}
}

// TestSocketIsNotQuiet: a socket cannot be parked on which something has come that nobody has
// read, be it that the loop has told so already.
func TestSocketIsNotQuiet(t *testing.T) {
	l := still(t)
	r := &tester{read: func(*loop) {}}
	s := readablePair(t, l, r)
	s.alight()
	for _, told := range []bool{false, true} {
		if told {
			disturbed, _ := l.take(l.poll(syscall.Syscall6, 0))
			l.serve(disturbed)
		}
		if s.boardQuiet(r) {
			t.Fatalf("told %t: it is parked", told)
		}
	}
	if n, err := s.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if !s.boardQuiet(r) {
		t.Error("it is not parked, though nothing is there to be read")
	}
}

// TestSocketChangesLoops: a connection to a server serves riders of several loops, one after
// another, and only the one that it serves now hears of it.
func TestSocketChangesLoops(t *testing.T) {
	a, b := startLoop(t), startLoop(t)
	s, far := pair(t, a)
	for i := range 200 {
		l := a
		if i%2 == 1 {
			l = b
		}
		got := make(chan byte, 1)
		var riding tester
		riding.read = func(by *loop) {
			if by != l {
				t.Error("another loop's rider is told")
			}
			var x [1]byte
			if n, _, err := s.read(x[:]); err == nil && n == 1 {
				s.alight()
				got <- x[0]
			}
		}
		if err := s.board(l, &riding); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		select {
		case x := <-got:
			if x != byte(i) {
				t.Fatalf("%d instead of %d", x, byte(i))
			}
		case <-time.After(ages):
			t.Fatalf("turn %d: nobody is told", i)
		}
	}
}

// TestSocketTellsOfEverything: bytes and ends that come at any moment around boarding reach
// the rider.
func TestSocketTellsOfEverything(t *testing.T) {
	l := startLoop(t)
	for i := range 300 {
		s, far := pair(t, l)
		ended := make(chan struct{})
		var riding tester
		riding.read = func(*loop) {
			for more := true; more; {
				var b [64]byte
				var err error
				if _, more, err = s.read(b[:]); err == errNotYet {
					return
				} else if err != nil {
					s.alight()
					close(ended)
					return
				}
			}
		}
		go func() {
			for range i % 4 {
				_, _ = far.Write([]byte("abc"))
			}
			_ = far.Close()
		}()
		boarded := s.boardQuiet(&riding)
		if !boarded {
			if _, err := io.Copy(io.Discard, s); err != nil {
				t.Fatal(err)
			}
			continue
		}
		select {
		case <-ended:
		case <-time.After(ages):
			t.Fatalf("turn %d: the end is not told", i)
		}
	}
}
