package engine

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/classify"
)

// ownersSQL lists whom everything in this database belongs to. Sequences of a
// column go with their table.
const ownersSQL = `SELECT d.classid::pg_catalog.text || ' ' || d.objid, d.refobjid, i.type, i.identity, pg_catalog.pg_get_userbyid(d.refobjid)
  FROM pg_catalog.pg_shdepend d, LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) i
 WHERE d.deptype = 'o' AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND i.type NOT IN ('event trigger', 'extension')
   AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend p WHERE p.classid = d.classid AND p.objid = d.objid AND p.refobjsubid <> 0 AND i.type = 'sequence' AND p.deptype IN ('a', 'i'))
 ORDER BY i.type, i.identity`

// reassign runs REASSIGN OWNED, of which PostgreSQL tells no event trigger, and
// then says of each object what has become of it: an ALTER … OWNER that changes
// nothing on the leader, but is shipped.
func (s *Session) reassign(ctx context.Context, c *conn, st *classify.Statement, text string) (string, error) {
	before := map[string]string{}
	rows, err := c.Rows(ctx, ownersSQL)
	if err != nil {
		return "", err
	}
	for _, row := range rows {
		before[string(row[0])] = string(row[1])
	}
	tag, err := c.exec(ctx, text)
	if err != nil {
		return "", err
	}
	if rows, err = c.Rows(ctx, ownersSQL); err != nil {
		return "", err
	}
	for _, row := range rows {
		if before[string(row[0])] == string(row[1]) {
			continue
		}
		kind := string(row[2])
		switch kind {
		case "foreign-data wrapper":
			kind = "foreign data wrapper"
		case "statistics object":
			kind = "statistics"
		}
		alter := fmt.Sprintf("ALTER %s %s OWNER TO %s", strings.ToUpper(kind), row[3], pgx.Identifier{string(row[4])}.Sanitize())
		if err := announce(ctx, c, alter, true); err != nil {
			return "", err
		}
		if _, err := c.exec(ctx, alter); err != nil {
			return "", fmt.Errorf("%s: %w", alter, err)
		}
	}
	return tag, withdraw(ctx, c, st)
}
