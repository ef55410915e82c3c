package gateway

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a connection that a loop of ours watches, and not Go's poller. It serves
// either whoever calls Read and Write, as any net.Conn does, or a rider: then the loop
// reads and writes, without waiting, in the name of that one.
//
// Every system call on the descriptor is made under mu, and none of them blocks: when
// Close has given the number back to the kernel, nobody is about to use it.
type socket struct {
	local, remote net.Addr

	reading, writing sync.Mutex // held by Read and Write: one at a time

	mu    sync.Mutex // guards what follows
	fd    int        // -1 once closed
	loop  *loop
	place place
	rider rider
	// drained: there was nothing more to read, and the loop has not seen anything come
	// since. The kernel tells of everything that comes after a read which found less
	// than it had room for (epoll(7), question 9).
	drained bool
	ended   bool // the other side has ended the connection: reading tells how
	in, out side
}

// rider is who has the loop use a socket. Its methods are called by the loop's goroutine.
type rider interface {
	// readable tells that there may be something to read.
	readable(l *loop)
	// disturbed tells that somebody else has closed the socket or set a deadline.
	disturbed(l *loop)
	// crashed tells of a panic in one of these.
	crashed(value any)
}

// side is what Read, or Write, waits for.
type side struct {
	wake     chan struct{} // of capacity 1
	waits    bool
	deadline time.Time
	timer    *time.Timer
}

// errNotYet: the kernel would have had to wait.
var errNotYet = errors.New("not yet")

// newSocket takes the descriptor over from conn, which is closed, unless there is an error.
func newSocket(conn net.Conn, l *loop) (*socket, error) {
	var sc syscall.Conn
	switch c := conn.(type) { // what wraps these may do more than the descriptor does
	case *net.TCPConn:
		sc = c
	case *net.UnixConn:
		sc = c
	default:
		return nil, errors.ErrUnsupported
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var failed error
	if err := rc.Control(func(have uintptr) { fd, failed = unix.FcntlInt(have, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || failed != nil {
		return nil, errors.Join(err, failed)
	}
	s := &socket{local: conn.LocalAddr(), remote: conn.RemoteAddr(), fd: fd}
	s.in.wake, s.out.wake = make(chan struct{}, 1), make(chan struct{}, 1)
	// Go's poller must not be woken by what comes from here on. The descriptors are of one
	// open file: to close the old one ends nothing.
	if err := conn.Close(); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := l.addLocked(s); err != nil {
		s.fd = -1
		return s, errors.Join(err, unix.Close(fd)) // conn is closed already: so is s
	}
	return s, nil
}

// LocalAddr is net.Conn's.
func (s *socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr is net.Conn's.
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// readLocked reads without waiting.
func (s *socket) readLocked(b []byte) (int, error) {
	if s.fd < 0 {
		return 0, net.ErrClosed
	}
	for {
		n, errno := readFD(s.fd, b)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			s.drained = !s.ended
			return 0, errNotYet
		case errno != 0:
			s.ended = true
			return 0, os.NewSyscallError("read", errno)
		case n == 0:
			s.ended = true
			return 0, io.EOF
		default:
			s.drained = n < len(b) && !s.ended
			return n, nil
		}
	}
}

// Read is net.Conn's.
func (s *socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	for {
		n, err := s.readNow(b)
		if err != errNotYet {
			return n, s.opError("read", err)
		}
		<-s.in.wake
	}
}

// readNow is one attempt of Read's; if it fails for now, the loop is to wake it.
func (s *socket) readNow(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in.waits = false
	if s.fd >= 0 && s.in.late() {
		return 0, os.ErrDeadlineExceeded
	}
	n, err = s.readLocked(b)
	s.in.waits = err == errNotYet
	return n, err
}

// writeLocked writes what goes without waiting.
func (s *socket) writeLocked(b []byte) (n int, err error) {
	for n < len(b) {
		if s.fd < 0 {
			return n, net.ErrClosed
		}
		m, errno := writeFD(s.fd, b[n:])
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return n, errNotYet
		case errno != 0:
			return n, os.NewSyscallError("write", errno)
		default:
			n += m
		}
	}
	return n, nil
}

// Write is net.Conn's.
func (s *socket) Write(b []byte) (n int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for {
		m, err := s.writeNow(b[n:])
		n += m
		if err != errNotYet {
			return n, s.opError("write", err)
		}
		<-s.out.wake
	}
}

func (s *socket) writeNow(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.waits = false
	if s.fd >= 0 && s.out.late() {
		return 0, os.ErrDeadlineExceeded
	}
	n, err = s.writeLocked(b)
	s.out.waits = err == errNotYet
	return n, err
}

func (s *socket) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: s.remote.Network(), Source: s.local, Addr: s.remote, Err: err}
}

// late tells whether the deadline has passed.
func (d *side) late() bool { return !d.deadline.IsZero() && !time.Now().Before(d.deadline) }

// rouse ends a wait, if there is one.
func (d *side) rouse() {
	if d.waits {
		d.waits = false
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// SetDeadline is net.Conn's.
func (s *socket) SetDeadline(t time.Time) error { return s.deadline(t, &s.in, &s.out) }

// SetReadDeadline is net.Conn's.
func (s *socket) SetReadDeadline(t time.Time) error { return s.deadline(t, &s.in) }

// SetWriteDeadline is net.Conn's.
func (s *socket) SetWriteDeadline(t time.Time) error { return s.deadline(t, &s.out) }

func (s *socket) deadline(t time.Time, sides ...*side) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	for _, d := range sides {
		if d.timer != nil {
			d.timer.Stop()
			d.timer = nil
		}
		d.deadline = t
		if t.IsZero() {
			continue
		}
		if left := time.Until(t); left > 0 {
			d.timer = time.AfterFunc(left, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				d.rouse()
			})
			continue
		}
		d.rouse()
	}
	if s.rider != nil && !t.IsZero() {
		s.loop.disturb(s)
	}
	return nil
}

// Close is net.Conn's.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeLocked()
}

func (s *socket) closeLocked() error {
	if s.fd < 0 {
		return net.ErrClosed
	}
	fd := s.fd
	s.loop.removeLocked(s)
	s.fd = -1
	for _, d := range []*side{&s.in, &s.out} {
		if d.timer != nil {
			d.timer.Stop()
		}
		d.rouse()
	}
	if s.rider != nil {
		s.loop.disturb(s)
	}
	return unix.Close(fd)
}

// hungUp tells whether the other side has closed the connection, though what it sent
// before may not have been read.
func (s *socket) hungUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return true
	}
	return hungUp(s.fd)
}

// board has the loop use the socket in the name of r from here on.
func (s *socket) board(l *loop, r rider) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	if s.loop != l {
		s.loop.removeLocked(s)
		if err := l.addLocked(s); err != nil { // nobody would hear of what comes
			return errors.Join(err, s.closeLocked())
		}
	}
	s.rider = r
	return nil
}

// boardQuiet is board for a socket from which there is nothing to read: then all that
// comes is told to the rider. It reports whether that is so.
func (s *socket) boardQuiet(r rider) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 || s.ended || !s.in.deadline.IsZero() || !s.out.deadline.IsZero() {
		return false
	}
	if !s.drained {
		if !empty(s.fd) {
			return false
		}
		s.drained = true
	}
	s.rider = r
	return true
}

// alight has the socket serve Read and Write again.
func (s *socket) alight() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rider = nil
}

// read is Read for a rider; it returns errNotYet instead of waiting. more tells that
// there may be more, and that the loop will not say so again.
func (s *socket) read(b []byte) (n int, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err = s.readLocked(b)
	return n, !s.drained, err
}

// write is Write for a rider; it returns errNotYet instead of waiting. more is as
// read's.
func (s *socket) write(b []byte) (n int, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err = s.writeLocked(b)
	return n, !s.drained, err
}

// told takes note of what the loop has heard, and returns who is to act on it.
func (s *socket) told(l *loop, events uint32) (r rider, woke bool) {
	const comes = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 || s.loop != l {
		return nil, false // its new loop hears the same
	}
	woke = s.in.waits || s.out.waits
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.ended = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.out.rouse()
	}
	if events&comes == 0 {
		return nil, woke
	}
	s.drained = false
	s.in.rouse()
	return s.rider, woke
}

// riding returns the rider.
func (s *socket) riding() rider {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rider
}

func readFD(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// maxWrite keeps a single call short: the goroutine cannot be stopped during it.
const maxWrite = 64 << 10

func writeFD(fd int, b []byte) (int, syscall.Errno) {
	b = b[:min(len(b), maxWrite)]
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// empty tells that there is nothing to read, not even an end.
func empty(fd int) bool {
	var b [1]byte
	_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == unix.EAGAIN
}
