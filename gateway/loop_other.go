//go:build !linux

package gateway

import "net"

// Elsewhere than on Linux, each client has its goroutine all the time.

type (
	socket struct{ net.Conn }
	loops  struct{}
	flight struct{}
)

func newLoops() (*loops, error)             { return nil, nil }
func (*loops) adopt(conn net.Conn) net.Conn { return conn }
func (*loops) flown() uint64                { return 0 }
func (*loops) stop()                        {}
func (c *client) park() (parked bool)       { return false }
func (c *client) disturb()                  {}
