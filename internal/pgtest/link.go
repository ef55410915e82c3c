package pgtest

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Link is one program's way to one server, which a test may break without the server,
// or anybody else, noticing anything.
type Link struct {
	to       string
	listener net.Listener

	mu    sync.Mutex
	fault linkFault
	news  chan struct{} // closed and replaced when fault changes
	conns map[net.Conn]bool
	done  sync.WaitGroup
}

// linkFault is what is wrong with a link; the zero value is nothing.
type linkFault struct {
	cut, closed bool
	held        [2]bool       // by Way: nothing arrives
	pace        time.Duration // between two small pieces
	bounded     bool          // it is cut after left bytes
	left        int
	trap        *trap
}

// Way is a direction.
type Way int

const (
	ToServer Way = iota
	ToClient
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
		l.set(linkFault{closed: true})
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
func (l *Link) Cut() { l.set(linkFault{cut: true}) }

// Stall keeps connections, and takes new ones, but nothing arrives any more.
func (l *Link) Stall() { l.set(linkFault{held: [2]bool{true, true}}) }

// Hold does that in one direction: what is asked arrives and its answer does not, or
// the other way round.
func (l *Link) Hold(w Way) {
	var f linkFault
	f.held[w] = true
	l.set(f)
}

// Trickle lets a few bytes pass at a time, in each direction of each connection, and
// then waits for pause.
func (l *Link) Trickle(pause time.Duration) { l.set(linkFault{pace: pause}) }

// CutAfter cuts the link when n more bytes have passed, in both directions of all
// connections together: in the middle of a message, most likely.
func (l *Link) CutAfter(n int) { l.set(linkFault{bounded: true, left: n}) }

// CutAt cuts the link when a message comes that match wants, before any of it
// has passed that had not before, and then calls then. match gets the message's type, 0 of a
// start-up packet, and the beginning of its body, sixteen bytes at most. The connections
// must not be encrypted.
func (l *Link) CutAt(w Way, match func(kind byte, body []byte) bool, then func()) {
	l.set(linkFault{trap: &trap{w, match, then}})
}

// Heal makes the link whole again; what was under way when it was stalled arrives.
func (l *Link) Heal() { l.set(linkFault{}) }

// trap waits for a message.
type trap struct {
	way   Way
	match func(kind byte, body []byte) bool
	then  func()
}

func (l *Link) set(f linkFault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setLocked(f)
}

func (l *Link) setLocked(f linkFault) {
	if l.fault.closed {
		return
	}
	l.fault = f
	close(l.news)
	l.news = make(chan struct{})
	if f.cut || f.closed {
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
	if l.fault.cut || l.fault.closed {
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

// crumb is how many bytes a link that trickles lets pass at a time.
const crumb = 48

// admit waits until some of n bytes may pass and says how many, 0 if none ever will.
func (l *Link) admit(w Way, n int) int {
	slept := false
	for {
		l.mu.Lock()
		f, news := l.fault, l.news
		switch {
		case f.cut || f.closed:
			l.mu.Unlock()
			return 0
		case f.held[w]:
			l.mu.Unlock()
			<-news
			continue
		case f.pace > 0 && !slept:
			l.mu.Unlock()
			select {
			case <-news:
			case <-time.After(f.pace):
				slept = true
			}
			continue
		case f.pace > 0:
			n = min(n, crumb)
		case f.bounded && f.left <= 0:
			l.setLocked(linkFault{cut: true})
			l.mu.Unlock()
			return 0
		case f.bounded:
			n = min(n, f.left)
			l.fault.left -= n
		}
		l.mu.Unlock()
		return n
	}
}

// forward passes data on, as far as the link lets it.
func (l *Link) forward(w Way, to io.Writer, data []byte) error {
	for len(data) > 0 {
		n := l.admit(w, len(data))
		if n == 0 {
			return net.ErrClosed
		}
		if _, err := to.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// sprung cuts the link if the trap wants the message.
func (l *Link) sprung(w Way, m message) bool {
	l.mu.Lock()
	t := l.fault.trap
	if t == nil || t.way != w || !t.match(m.kind, m.body) {
		l.mu.Unlock()
		return false
	}
	l.setLocked(linkFault{cut: true})
	l.mu.Unlock()
	if t.then != nil {
		t.then()
	}
	return true
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
	if l.admit(ToServer, 1) == 0 {
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
	both.Go(func() { l.copy(ToServer, out, in) })
	l.copy(ToClient, in, out)
	both.Wait()
}

// copy forwards one way until either end closes.
func (l *Link) copy(w Way, to, from net.Conn) {
	buf := make([]byte, 16<<10)
	frames := framer{started: w == ToClient}
	for {
		n, err := from.Read(buf)
		data := buf[:n]
		for _, m := range frames.feed(data) {
			if l.sprung(w, m) {
				return // both ends are closed
			}
		}
		if n > 0 {
			if werr := l.forward(w, to, data); werr != nil {
				err = werr
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) || l.admit(w, 1) == 0 {
				_ = from.Close()
			}
			_ = to.Close()
			return
		}
	}
}
