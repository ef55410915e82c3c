package driver

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/mirror"
)

// TestListenersHearOfANewLeader has programs listen over a connection of their own: they hear what is
// notified, whatever they do in between, and that they hear nothing any more when another member leads.
func TestListenersHearOfANewLeader(t *testing.T) {
	db, servers := mirrored(t, "")
	ctx, stop := context.WithTimeout(context.Background(), ages)
	defer stop()
	config := membersOf(t, servers)
	m, err := mirror.Open(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	wait := func(c *sql.Conn) (payload string, err error) {
		err = c.Raw(func(dc any) error {
			pc := dc.(*Conn).Conn()
			if pc == nil {
				return errors.New("no connection")
			}
			n, err := pc.WaitForNotification(ctx)
			if err == nil {
				payload = n.Payload
			}
			return err
		})
		return payload, err
	}
	for name, listen := range map[string]func(*sql.Conn) error{
		"by a statement": func(c *sql.Conn) error {
			_, err := c.ExecContext(ctx, "LISTEN news")
			return err
		},
		"over Raw": func(c *sql.Conn) error {
			return c.Raw(func(dc any) error {
				_, err := dc.(*Conn).Conn().Exec(ctx, "LISTEN news")
				return err
			})
		},
	} {
		for _, between := range []bool{false, true} { // a statement
			c, err := db.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := listen(c); err != nil {
				t.Fatal(name, err)
			}
			if between {
				run(t, c, "SELECT 1")
			}
			run(t, db, "NOTIFY news, 'one'")
			if got, err := wait(c); got != "one" || err != nil {
				t.Fatalf("%s: %q, %v", name, got, err)
			}
			if between {
				run(t, c, "SELECT 1")
			}
			heard := make(chan error, 1)
			go func() {
				_, err := wait(c)
				heard <- err
			}()
			time.Sleep(100 * time.Millisecond) // it waits, mostly
			if _, err := m.Switchover(ctx, "", ages); err != nil {
				t.Fatal(err)
			}
			if err := <-heard; err == nil || ctx.Err() != nil {
				t.Errorf("%s: after a switchover: %v", name, err)
			}
			_ = c.Close()
			waitInSync(t, db, 3)
		}
	}
}
