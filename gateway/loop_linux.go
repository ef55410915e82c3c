package gateway

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop waits for many sockets at once and serves their riders, in one goroutine. It is
// not locked to a thread: to let those go on who wait in Read, it makes way for them on the
// thread that it is on, which with a lock would take two more threads to be woken.
type loop struct {
	epoll, bell int // descriptors; the bell ends a wait
	done        chan struct{}

	// The goroutine's own.
	events  []unix.EpollEvent
	heard   []heard
	again   []*socket // their riders are to look once more
	woke    bool      // somebody else can go on
	input   []byte    // where messages of clients are read
	answers []byte    // where what clients are to get is put together
	queue   []*flight // that wait for a connection to a server
	full    []crew    // for whom there is none

	flown atomic.Uint64 // statements

	mu        sync.Mutex // guards what follows
	sockets   []seat
	free      []uint32
	disturbed []*socket
	ringing   bool
	stopped   bool
}

// place is where a loop finds a socket. turn tells those apart that had the place before.
type place struct {
	index uint32
	turn  int32
}

type seat struct {
	socket *socket
	turn   int32
}

// heard is an event with the socket that it is for.
type heard struct {
	socket *socket
	events uint32
}

const (
	loopEvents = 128
	loopInput  = 16 << 10
	bellIndex  = -1
)

// newLoop starts a loop.
func newLoop() (*loop, error) {
	l, err := openLoop()
	if err == nil {
		go l.run()
	}
	return l, err
}

// openLoop makes a loop that does not run yet.
func openLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(epoll))
	}
	l := &loop{
		epoll: epoll, bell: bell, done: make(chan struct{}), events: make([]unix.EpollEvent, loopEvents),
		input: make([]byte, loopInput), answers: make([]byte, 0, 2*streamLimit),
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: bellIndex}); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), unix.Close(epoll), unix.Close(bell))
	}
	return l, nil
}

// addLocked has the loop watch a socket, whose mu is held.
func (l *loop) addLocked(s *socket) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return net.ErrClosed
	}
	if len(l.free) == 0 {
		l.free = append(l.free, uint32(len(l.sockets)))
		l.sockets = append(l.sockets, seat{})
	}
	i := l.free[len(l.free)-1]
	at := &l.sockets[i]
	at.turn++
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(i), Pad: at.turn}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, s.fd, &e); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	l.free = l.free[:len(l.free)-1]
	at.socket = s
	s.loop, s.place, s.drained = l, place{i, at.turn}, false
	return nil
}

// removeLocked has it forget the socket, before its descriptor is closed or watched by
// another loop.
func (l *loop) removeLocked(s *socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || l.sockets[s.place.index].socket != s {
		return
	}
	l.sockets[s.place.index].socket = nil
	l.free = append(l.free, s.place.index)
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, s.fd, nil) // it is there: nothing else takes it out
}

// disturb has the loop tell the socket's rider that it was disturbed.
func (l *loop) disturb(s *socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disturbed = append(l.disturbed, s)
	l.ringLocked()
}

func (l *loop) ringLocked() {
	if l.ringing || l.stopped {
		return
	}
	l.ringing = true
	one := [8]byte{7: 1, 0: 1} // not zero in any order of bytes
	_, _ = unix.Write(l.bell, one[:])
}

// stop ends the loop, which nobody rides any more.
func (l *loop) stop() {
	l.mu.Lock()
	l.ringing = false
	l.ringLocked()
	l.stopped = true
	l.mu.Unlock()
	<-l.done
}

// run serves until stop is called.
func (l *loop) run() {
	defer close(l.done)
	for n := 0; ; {
		n = l.wait(n > 0 || len(l.again) > 0)
		disturbed, stopped := l.take(n)
		if stopped {
			_, _ = unix.Close(l.epoll), unix.Close(l.bell)
			return
		}
		l.serve(disturbed)
	}
}

// serve tells riders what was heard, and those who were disturbed.
func (l *loop) serve(disturbed []*socket) {
	again := l.again
	l.again = nil
	for i, h := range l.heard {
		l.heard[i] = heard{}
		r, woke := h.socket.told(l, h.events)
		l.woke = l.woke || woke
		if r != nil {
			l.tell(r, r.readable)
		}
	}
	for _, s := range again {
		if r := s.riding(); r != nil {
			l.tell(r, r.readable)
		}
	}
	for _, s := range disturbed {
		if r := s.riding(); r != nil {
			l.tell(r, r.disturbed)
		}
	}
	if len(l.queue) > 0 {
		l.serveQueue()
	}
}

// tell has a rider do something. What goes wrong with it is nobody else's affair.
func (l *loop) tell(r rider, f func(*loop)) {
	defer func() {
		if value := recover(); value != nil {
			r.crashed(value)
		}
	}()
	f(l)
}

// wait returns how many events there are. After a round that had some, it looks first
// without giving its processor up: there are mostly more.
func (l *loop) wait(busy bool) int {
	if busy {
		if n := l.poll(syscall.RawSyscall6, 0); n > 0 || len(l.again) > 0 {
			return n
		}
	}
	if l.woke { // who was woken may be waiting for this very processor
		l.woke = false
		runtime.Gosched()
	}
	for {
		timeout := -1
		if len(l.queue) > 0 {
			timeout = int(queueLook / time.Millisecond)
		}
		if n := l.poll(syscall.Syscall6, timeout); n > 0 || timeout >= 0 {
			return n
		}
	}
}

func (l *loop) poll(call func(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2 uintptr, err syscall.Errno), timeout int) int {
	n, _, errno := call(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), uintptr(timeout), 0, 0)
	if errno != 0 { // EINTR; there is no other
		return 0
	}
	return int(n)
}

// take finds the sockets that the events are for.
func (l *loop) take(n int) (disturbed []*socket, stopped bool) {
	l.heard = l.heard[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.events[:n] {
		e := &l.events[i]
		if e.Fd == bellIndex {
			var b [8]byte
			_, _ = unix.Read(l.bell, b[:]) // its count is of no interest
			l.ringing = false
			disturbed, l.disturbed = l.disturbed, nil
			continue
		}
		if at := l.sockets[e.Fd]; at.socket != nil && at.turn == e.Pad {
			l.heard = append(l.heard, heard{at.socket, e.Events})
		}
	}
	return disturbed, l.stopped
}

// loops are those of a server; nil is none.
type loops struct {
	all  []*loop
	next atomic.Uint32
}

// newLoops starts as many as the processors can make use of: the servers, and what is done
// by other goroutines, need some, too.
func newLoops() (*loops, error) {
	ls := &loops{}
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		l, err := newLoop()
		if err != nil {
			ls.stop()
			return nil, err
		}
		ls.all = append(ls.all, l)
	}
	return ls, nil
}

// adopt has a loop watch a connection, and returns what is used in its place.
func (ls *loops) adopt(conn net.Conn) net.Conn {
	if ls == nil {
		return conn
	}
	s, err := newSocket(conn, ls.all[int(ls.next.Add(1))%len(ls.all)])
	if err != nil && s == nil {
		return conn
	}
	return s
}

// flown is how many statements they have carried out.
func (ls *loops) flown() (n uint64) {
	if ls == nil {
		return 0
	}
	for _, l := range ls.all {
		n += l.flown.Load()
	}
	return n
}

func (ls *loops) stop() {
	if ls == nil {
		return
	}
	for _, l := range ls.all {
		l.stop()
	}
}
