package pgtest

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Link is one program's way to one server, which a test may break without the server,
// or anybody else, noticing anything.
type Link struct {
	to       string
	listener net.Listener

	mu    sync.Mutex
	state linkState
	news  chan struct{} // closed and replaced when state changes
	conns map[net.Conn]bool
	done  sync.WaitGroup
}

type linkState int

const (
	linkWhole linkState = iota
	linkCut
	linkStalled
	linkClosed
)

// NewLink begins to forward to address, until the test ends.
func NewLink(t testing.TB, address string) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{to: address, listener: listener, news: make(chan struct{}), conns: map[net.Conn]bool{}}
	l.done.Go(l.accept)
	t.Cleanup(func() {
		l.set(linkClosed)
		if err := l.listener.Close(); err != nil {
			t.Error(err)
		}
		l.done.Wait()
	})
	return l
}

// Addr is where the link begins: host and port.
func (l *Link) Addr() (string, uint16) {
	host, port, err := net.SplitHostPort(l.listener.Addr().String())
	n, err2 := strconv.ParseUint(port, 10, 16)
	if err := errors.Join(err, err2); err != nil {
		panic(err) // it is net's own address
	}
	return host, uint16(n)
}

// Cut breaks all connections and lets no new one come about.
func (l *Link) Cut() { l.set(linkCut) }

// Stall keeps connections, and takes new ones, but nothing arrives any more.
func (l *Link) Stall() { l.set(linkStalled) }

// Heal makes the link whole again; what was under way when it was stalled arrives.
func (l *Link) Heal() { l.set(linkWhole) }

func (l *Link) set(s linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	close(l.news)
	l.news = make(chan struct{})
	if s == linkCut || s == linkClosed {
		for c := range l.conns {
			_ = c.Close() // that it breaks is the point
		}
		clear(l.conns)
	}
}

// keep tells whether a connection may be used.
func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == linkCut || l.state == linkClosed {
		return false
	}
	l.conns[c] = true
	return true
}

func (l *Link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	_ = c.Close()
}

// pass waits while the link is stalled.
func (l *Link) pass() bool {
	for {
		l.mu.Lock()
		state, news := l.state, l.news
		l.mu.Unlock()
		switch state {
		case linkWhole:
			return true
		case linkCut, linkClosed:
			return false
		}
		<-news
	}
}

func (l *Link) accept() {
	for {
		in, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		if !l.keep(in) {
			_ = in.Close()
			continue
		}
		l.done.Go(func() { l.serve(in) })
	}
}

func (l *Link) serve(in net.Conn) {
	defer l.drop(in)
	if !l.pass() {
		return
	}
	out, err := net.Dial("tcp", l.to)
	if err != nil {
		return // the server is away: so is whoever asked for it
	}
	defer l.drop(out)
	if !l.keep(out) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.copy(out, in) })
	l.copy(in, out)
	both.Wait()
}

// copy forwards one way until either end closes.
func (l *Link) copy(to, from net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && l.pass() {
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) || !l.pass() {
				_ = from.Close()
			}
			_ = to.Close()
			return
		}
	}
}
