package driver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// CopyFrom loads rows into a table by COPY and returns how many once every
// in-sync database has them. Within a transaction of conn's, COMMIT waits for that.
func CopyFrom(ctx context.Context, conn *sql.Conn, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (n int64, err error) {
	err = conn.Raw(func(dc any) error {
		c, ok := dc.(*Conn)
		if !ok {
			return fmt.Errorf("pgdist: CopyFrom needs a connection of driver %q, not %T", Name, dc)
		}
		pc, err := c.leader(ctx)
		if err != nil {
			return err
		}
		n, err = pc.CopyFrom(ctx, table, columns, source)
		return errors.Join(err, outward(c.s.Settle(ctx)))
	})
	return n, err
}
