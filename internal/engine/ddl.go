package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/classify"
)

// define runs one DDL statement, or TRUNCATE, on the leader's connection, inside
// a transaction: writers of the tables concerned are locked out and the
// followers brought up to date first, so that theirs are the rows that the
// leader's DDL saw. The text is announced to the event trigger that ships it.
func (s *Session) define(ctx context.Context, c *conn, st *classify.Statement, text string) (string, error) {
	if st.Temp {
		return c.exec(ctx, text)
	}
	locked, err := lockTables(ctx, c, st.Relations)
	if err != nil {
		return "", err
	}
	if locked {
		if err := s.catchUp(ctx); err != nil {
			return "", err
		}
	}
	if st.Tag == "TRUNCATE TABLE" { // captured by its own trigger
		return c.exec(ctx, text)
	}
	if st.Tag == "REASSIGN OWNED" {
		return s.reassign(ctx, c, st, text)
	}
	if err := s.foreign(st); err != nil {
		return "", err
	}
	if err := announce(ctx, c, text, true); err != nil {
		return "", err
	}
	tag, err := c.exec(ctx, text)
	if err != nil {
		return "", err
	}
	return tag, withdraw(ctx, c, st)
}

// foreign refuses to change what belongs to another database of the servers.
func (s *Session) foreign(st *classify.Statement) error {
	if st.Database == "" || st.Database == s.e.config.database() {
		return nil
	}
	return errRefused(fmt.Sprintf("%s of database %q is not supported: the set is database %q of each server", st.Tag, st.Database, s.e.config.database()),
		"Connect to each server itself.")
}

// catchUp brings the followers up to date within the transaction that is about
// to run DDL. What this transaction has done to sequences comes with its COMMIT.
func (s *Session) catchUp(ctx context.Context) error {
	err := s.e.mirror.Ack(ctx, s.held.view.Term, Change{})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrTermOver):
		return ErrNotSent // the transaction is lost with its leader
	}
	return &Error{Op: "bring the followers up to date before DDL", Err: err, Hint: "nothing was changed: run it again"}
}

// announce tells the event trigger which statement comes next; what is not
// announced, and run by no function, is refused.
func announce(ctx context.Context, c *conn, text string, local bool) error {
	_, err := c.Rows(ctx, "SELECT pg_catalog.set_config('pgdist.ddl', $1, $2)", text, strconv.FormatBool(local))
	return err
}

// shared are the statements for which PostgreSQL fires no event trigger (docs,
// "Event Trigger Firing Matrix"): what they change is shipped as state.
var shared = map[string]bool{
	"CREATE ROLE": true, "ALTER ROLE": true, "DROP ROLE": true, "GRANT ROLE": true, "REVOKE ROLE": true, "ALTER DATABASE": true,
	"GRANT": true, "REVOKE": true, "COMMENT": true, "CREATE EVENT TRIGGER": true, "ALTER EVENT TRIGGER": true, "DROP EVENT TRIGGER": true,
}

// withdraw takes the announcement back and fails if the event trigger has not taken
// it: the statement would stay on one server.
func withdraw(ctx context.Context, c *conn, st *classify.Statement) error {
	rows, err := c.Rows(ctx, "SELECT pg_catalog.current_setting('pgdist.ddl', true), pg_catalog.set_config('pgdist.ddl', '', true)")
	if err != nil || len(rows[0][0]) == 0 || shared[st.Tag] {
		return err
	}
	return errRefused(st.Tag+" cannot be mirrored: PostgreSQL reports it to no event trigger", "Run it on each server.")
}

// lockableSQL finds the tables among names, or behind them if they are indexes,
// that exist and that the user may lock.
const lockableSQL = `SELECT DISTINCT n.nspname, t.relname
  FROM pg_catalog.unnest($1::text[]) AS u(name)
  JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(u.name)
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  JOIN pg_catalog.pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE t.relkind IN ('r', 'p') AND t.relpersistence <> 't'
   AND pg_catalog.has_table_privilege(t.oid, 'UPDATE, DELETE, TRUNCATE')
 ORDER BY 1, 2`

// lockTables locks writers out of the tables and tells whether there were any.
func lockTables(ctx context.Context, c *conn, relations []classify.RelRef) (bool, error) {
	if len(relations) == 0 {
		return false, nil
	}
	names := make([]string, len(relations))
	for i, r := range relations {
		names[i] = `"` + strings.ReplaceAll(quoteName(r), `"`, `\"`) + `"`
	}
	array := "{" + strings.Join(names, ",") + "}"
	rows, err := c.Rows(ctx, lockableSQL, array)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	tables := make([]string, len(rows))
	for i, row := range rows {
		tables[i] = pgx.Identifier{string(row[0]), string(row[1])}.Sanitize()
	}
	_, err = c.exec(ctx, "LOCK TABLE "+strings.Join(tables, ", ")+" IN EXCLUSIVE MODE")
	return true, err
}

// quoteName writes a relation's name so that it means the same anywhere.
func quoteName(r classify.RelRef) string {
	if r.Schema == "" {
		return pgx.Identifier{r.Name}.Sanitize()
	}
	return pgx.Identifier{r.Schema, r.Name}.Sanitize()
}
