package engine

import (
	"context"

	"github.com/pgdist/pgdist/classify"
)

// tellSQL changes nothing, and anybody may run it: there are no sequences in pg_catalog.
const tellSQL = "GRANT USAGE ON ALL SEQUENCES IN SCHEMA pg_catalog TO PUBLIC"

// reassign runs REASSIGN OWNED, of which PostgreSQL tells no event trigger, and then a
// statement of which it does tell one: the mirror journals whatever has another owner by
// then (sql/04_owners.sql), in this transaction.
func (s *Session) reassign(ctx context.Context, c *conn, st *classify.Statement, text string) (string, error) {
	tag, err := c.exec(ctx, text)
	if err != nil {
		return "", err
	}
	if err := announce(ctx, c, tellSQL, true); err != nil {
		return "", err
	}
	if _, err := c.exec(ctx, tellSQL); err != nil {
		return "", err
	}
	return tag, withdraw(ctx, c, st)
}
