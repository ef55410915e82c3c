package gateway

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgdist/pgdist/internal/engine"
)

// watchEvery is how often clients that wait for long are looked at.
const watchEvery = 500 * time.Millisecond

// watch ends what clients wait for that have left meanwhile. Nobody reads from a
// client that waits for an answer, so that is not noticed otherwise.
func (s *Server) watch() {
	for sleep(s.ctx, watchEvery) {
		now := engine.Now()
		s.each(func(c *client) {
			_ = s.safely("watch", func() error { s.watchOne(c, now); return nil }) // it is in the log
		})
	}
}

func (s *Server) watchOne(c *client, now int64) {
	since := c.busySince.Load()
	if since != 0 && now-since > int64(watchEvery) && c.left() && !c.closing.Swap(true) {
		s.log.Debug("a client left while it waited", "client", c.id)
		s.spawn("cancel", func() { c.cancel(s.ctx) })
	}
}

// left tells whether the client's side of the connection is closed.
func (c *client) left() bool { return gone(c.conn) }

func gone(conn net.Conn) bool {
	below := rawConn(conn)
	if s, ok := below.(interface{ hungUp() bool }); ok {
		return s.hungUp()
	}
	sc, ok := below.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	ended := false
	err = rc.Control(func(fd uintptr) { ended = hungUp(int(fd)) })
	return ended || err != nil
}

func hungUp(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0 && poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}

// wake ends a client's wait for its next message.
func (c *client) wake() {
	if c.busySince.Load() == 0 {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// rawConn is the socket below TLS.
func rawConn(conn net.Conn) net.Conn {
	for {
		below, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = below.NetConn()
	}
}
