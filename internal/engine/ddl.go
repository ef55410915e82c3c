package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
	if err := s.lockTables(ctx, c, st); err != nil {
		return "", err
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
// that exist and that the user may lock, and whether readers are to be shut out of them.
// (unnest of several arrays is the grammar's own, and PostgreSQL's whatever search_path says.)
const lockableSQL = `SELECT n.nspname, t.relname, pg_catalog.bool_or(u.shut)
  FROM unnest($1::text[], $2::boolean[]) AS u(name, shut)
  JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(u.name)
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  JOIN pg_catalog.pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE t.relkind IN ('r', 'p') AND t.relpersistence <> 't'
   AND pg_catalog.has_table_privilege(t.oid, 'UPDATE, DELETE, TRUNCATE')
 GROUP BY 1, 2 ORDER BY 1, 2`

const (
	// beforeLocks is the savepoint that gives the locks of a statement back.
	beforeLocks = `"pgdist: before the locks of a statement"`
	// shutPolite is how often a statement looks whether a table happens to have no readers,
	// shutAtAll how often it tries to get it.
	shutPolite, shutAtAll = 20, 40
	// shutPause is the longest pause between two such looks.
	shutPause = 200 * time.Millisecond
)

// lockTables locks writers out of the tables that a statement is about, brings the
// followers up to date, and then locks readers out where the statement will.
//
// Who waits for readers and keeps writers out meanwhile is in the way of all that have read
// and are about to write: PostgreSQL ends one of them with 40P01, where it lets them
// pass if nothing is held yet ("Explicit Locking", ProcSleep of the server's proc.c).
// So nothing is held while readers are waited for; and who has come by the time that the
// followers are up to date is waited for again. Only tables that always have readers are
// asked for with writers kept out, in the end.
func (s *Session) lockTables(ctx context.Context, c *conn, st *classify.Statement) error {
	tables, shut, err := lockable(ctx, c, st)
	if err != nil || tables == "" {
		return err
	}
	if shut == "" {
		return s.lockWriters(ctx, c, tables)
	}
	if _, err := c.exec(ctx, "SAVEPOINT "+beforeLocks); err != nil {
		return err
	}
	for i := 1; ; i++ {
		if err := s.lockWriters(ctx, c, tables); err != nil {
			return err
		}
		lock := "LOCK TABLE " + shut + " IN ACCESS EXCLUSIVE MODE"
		if i <= shutPolite {
			lock += " NOWAIT"
		}
		_, err := c.exec(ctx, lock)
		switch {
		case err == nil:
			_, err = c.exec(ctx, "RELEASE SAVEPOINT "+beforeLocks)
			return err
		case i == shutAtAll || !isBusy(err, i <= shutPolite):
			return err
		}
		// The pause is the server's, where a cancel request finds the statement.
		pause := rand.Float64() * min(float64(i)/100, shutPause.Seconds())
		if _, err := c.exec(ctx, fmt.Sprintf("ROLLBACK TO SAVEPOINT %[1]s; LOCK TABLE %[2]s IN ACCESS EXCLUSIVE MODE; ROLLBACK TO SAVEPOINT %[1]s; SELECT pg_catalog.pg_sleep(%[3]f)",
			beforeLocks, shut, pause)); err != nil {
			return err
		}
	}
}

// isBusy tells that a lock was not to be had: for NOWAIT, or without a deadlock.
func isBusy(err error, nowait bool) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (nowait && pe.Code == "55P03" || pe.Code == "40P01")
}

// lockWriters locks writers out of the tables and brings the followers up to date.
func (s *Session) lockWriters(ctx context.Context, c *conn, tables string) error {
	if _, err := c.exec(ctx, "LOCK TABLE "+tables+" IN EXCLUSIVE MODE"); err != nil {
		return err
	}
	return s.catchUp(ctx)
}

// lockable lists the tables that a statement is about as LOCK TABLE wants them, and
// which of them readers are to be shut out of.
func lockable(ctx context.Context, c *conn, st *classify.Statement) (tables, shut string, err error) {
	if len(st.Relations) == 0 {
		return "", "", nil
	}
	names, shuts := make([]string, len(st.Relations)), make([]string, len(st.Relations))
	for i, r := range st.Relations {
		names[i] = `"` + strings.ReplaceAll(quoteName(r), `"`, `\"`) + `"`
		shuts[i] = strconv.FormatBool(slices.Contains(st.Shut, r))
	}
	rows, err := c.Rows(ctx, lockableSQL, "{"+strings.Join(names, ",")+"}", "{"+strings.Join(shuts, ",")+"}")
	if err != nil {
		return "", "", err
	}
	var all, some []string
	for _, row := range rows {
		name := pgx.Identifier{string(row[0]), string(row[1])}.Sanitize()
		if all = append(all, name); string(row[2]) == "t" {
			some = append(some, name)
		}
	}
	return strings.Join(all, ", "), strings.Join(some, ", "), nil
}

// quoteName writes a relation's name so that it means the same anywhere.
func quoteName(r classify.RelRef) string {
	if r.Schema == "" {
		return pgx.Identifier{r.Name}.Sanitize()
	}
	return pgx.Identifier{r.Schema, r.Name}.Sanitize()
}
