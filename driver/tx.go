package driver

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/pgdist/pgdist/internal/engine"
)

var _ driver.Tx = (*tx)(nil)

// tx is a transaction of the session's.
type tx struct {
	ctx context.Context
	c   *Conn
}

// Commit returns once every in-sync database has the transaction.
func (t *tx) Commit() error { return ended(t.c.s.Commit(t.ctx)) }

// Rollback ends the transaction without a trace.
func (t *tx) Rollback() error { return ended(t.c.s.Rollback()) }

// ended passes over a transaction that was ended by SQL before, about which
// PostgreSQL only warns.
func ended(err error) error {
	if errors.Is(err, engine.ErrNoTransaction) {
		return nil
	}
	return outward(err)
}
