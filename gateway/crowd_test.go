package gateway

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
)

// from is a connection of which only the address is of interest.
type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.addr), Port: 1} }

func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		ctx, cancel := context.WithCancel(t.Context())
		here := func() (*turnstile, error) { return c.enter(ctx, from{addr: "10.0.0.1"}, 2) }
		a, err := here()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := here(); err != nil {
			t.Fatal(err)
		}
		entered := make(chan error, 100)
		for range 2 * crowdQueue {
			go func() {
				_, err := here()
				entered <- err
			}()
		}
		synctest.Wait()
		if len(entered) != 0 {
			t.Fatalf("%d entered where two are in already", len(entered))
		}
		if _, err := here(); !errors.Is(err, errCrowd) {
			t.Errorf("one too many even to wait: %v", err)
		}
		other, err := c.enter(ctx, from{addr: "10.0.0.2"}, 2)
		if err != nil {
			t.Errorf("another address: %v", err)
		}
		other.leave()
		a.leave()
		synctest.Wait()
		if len(entered) != 1 || <-entered != nil {
			t.Error("a place that is free is not taken")
		}
		cancel()
		synctest.Wait()
		for range len(entered) {
			if err := <-entered; !errors.Is(err, errCrowd) {
				t.Error(err)
			}
		}
		if len(c.gates) != 1 || c.gates["10.0.0.1"].present != 2 {
			t.Errorf("%d addresses are remembered", len(c.gates))
		}
	})
}

// Silent connections of one address keep others of that address waiting, for as long as
// they may take to log in, and no longer.
func TestHalfOpenLogins(t *testing.T) {
	s := newSet(t, func(c *Config) { c.MaxStarting, c.LoginTimeout = 2, 2*time.Second })
	for range 4 {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	var conn *pgx.Conn
	eventually(t, func() (ok bool) {
		var err error
		conn, err = pgx.Connect(ctx, s.url(""))
		return err == nil
	})
	_ = conn.Close(ctx)
}
