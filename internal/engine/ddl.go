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
const lockableSQL = `SELECT n.nspname, t.relname, pg_catalog.bool_or(u.shut), t.oid
  FROM unnest($1::text[], $2::boolean[]) AS u(name, shut)
  JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(u.name)
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  JOIN pg_catalog.pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE t.relkind IN ('r', 'p') AND t.relpersistence <> 't'
   AND pg_catalog.has_table_privilege(t.oid, 'UPDATE, DELETE, TRUNCATE')
 GROUP BY 1, 2, 4 ORDER BY 1, 2`

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
// So nothing is held while readers are waited for, not even a place in the queue, in which
// the mirror would stand behind, which reads rows; and who has come by the time that the
// followers are up to date is waited for again. Only tables that always have readers are
// asked for with writers kept out, in the end.
func (s *Session) lockTables(ctx context.Context, c *conn, st *classify.Statement) error {
	tables, shut, oids, err := lockable(ctx, c, st)
	if err != nil || tables == "" {
		return err
	}
	if shut == "" {
		return s.lockWriters(ctx, c, tables, "")
	}
	wait := lockWait{c: c, tables: oids}
	for i := 1; ; i++ {
		first := ""
		if i == 1 {
			first = "SAVEPOINT " + beforeLocks + "; "
		}
		if err := s.lockWriters(ctx, c, tables, first); err != nil {
			return err
		}
		polite, nowait := i <= shutPolite && !wait.over, ""
		if polite {
			nowait = " NOWAIT"
		}
		_, err := c.exec(ctx, "LOCK TABLE "+shut+" IN ACCESS EXCLUSIVE MODE"+nowait+"; RELEASE SAVEPOINT "+beforeLocks)
		if err == nil || i == shutAtAll || !isBusy(err, polite) {
			return err
		}
		if _, err := c.exec(ctx, "ROLLBACK TO SAVEPOINT "+beforeLocks); err != nil {
			return err
		}
		if err := wait.readers(ctx, min(time.Duration(i)*10*time.Millisecond, shutPause)); err != nil {
			return err
		}
	}
}

// isBusy tells that a lock was not to be had: for NOWAIT, or without a deadlock.
func isBusy(err error, nowait bool) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (nowait && pe.Code == "55P03" || pe.Code == "40P01")
}

// lockWriters locks writers out of the tables, after what comes first, and brings the followers
// up to date.
func (s *Session) lockWriters(ctx context.Context, c *conn, tables, first string) error {
	if _, err := c.exec(ctx, first+"LOCK TABLE "+tables+" IN EXCLUSIVE MODE"); err != nil {
		return err
	}
	return s.catchUp(ctx)
}

// lockable lists the tables that a statement is about as LOCK TABLE wants them, and
// which of them readers are to be shut out of, these also by their numbers.
func lockable(ctx context.Context, c *conn, st *classify.Statement) (tables, shut, oids string, err error) {
	if len(st.Relations) == 0 {
		return "", "", "", nil
	}
	names, shuts := make([]string, len(st.Relations)), make([]string, len(st.Relations))
	for i, r := range st.Relations {
		names[i] = quoteName(r)
		shuts[i] = strconv.FormatBool(slices.Contains(st.Shut, r))
	}
	rows, err := c.Rows(ctx, lockableSQL, textArray(names), array(shuts))
	if err != nil {
		return "", "", "", err
	}
	var all, some, numbers []string
	for _, row := range rows {
		name := pgx.Identifier{string(row[0]), string(row[1])}.Sanitize()
		if all = append(all, name); string(row[2]) == "t" {
			some, numbers = append(some, name), append(numbers, string(row[3]))
		}
	}
	return strings.Join(all, ", "), strings.Join(some, ", "), array(numbers), nil
}

// array is a PostgreSQL array of elements that need no quotes.
func array(elements []string) string { return "{" + strings.Join(elements, ",") + "}" }

// lockWait waits for those who read tables, for no longer than lock_timeout and
// statement_timeout say: over is set then.
type lockWait struct {
	c      *conn
	tables string // an array of their numbers
	until  time.Time
	over   bool
}

// holdersSQL lists the transactions that hold a lock on tables, or what is below these.
const holdersSQL = `SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks l
 WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   AND l.relation IN (WITH RECURSIVE below(oid) AS (SELECT pg_catalog.unnest($1::oid[]) UNION SELECT h.inhrelid FROM below b JOIN pg_catalog.pg_inherits h ON h.inhparent = b.oid)
       SELECT b.oid FROM below b)`

// patienceSQL is how many milliseconds a statement may wait for a lock, NULL if for ever.
const patienceSQL = `SELECT (pg_catalog.date_part('epoch', least(nullif(pg_catalog.current_setting('lock_timeout')::interval, '0'),
  nullif(pg_catalog.current_setting('statement_timeout')::interval, '0'))) * 1000)::int8`

// readers waits until all that hold a lock now have ended, and a pause of up to most besides. It
// sleeps in the server, where a cancel request finds the statement.
func (w *lockWait) readers(ctx context.Context, most time.Duration) error {
	if w.until.IsZero() {
		if err := w.begin(ctx); err != nil {
			return err
		}
	}
	left, err := w.holders(ctx)
	if err != nil {
		return err
	}
	for pause := rand.N(most); ; pause = min(pause+5*time.Millisecond, shutPause) {
		if _, err := w.c.exec(ctx, fmt.Sprintf("SELECT pg_catalog.pg_sleep(%f)", pause.Seconds())); err != nil {
			return err
		}
		if w.over = time.Now().After(w.until); w.over {
			return nil
		}
		now, err := w.holders(ctx)
		if err != nil {
			return err
		}
		left = slices.DeleteFunc(left, func(who string) bool { return !slices.Contains(now, who) })
		if len(left) == 0 {
			return nil
		}
	}
}

func (w *lockWait) begin(ctx context.Context) error {
	rows, err := w.c.Rows(ctx, patienceSQL)
	if err != nil {
		return err
	}
	w.until = time.Now().Add(10 * 365 * 24 * time.Hour)
	if v := rows[0][0]; v != nil {
		ms, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return err
		}
		w.until = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	return nil
}

// holders are the transactions that hold a lock, the mirror's among them.
func (w *lockWait) holders(ctx context.Context) ([]string, error) {
	rows, err := w.c.Rows(ctx, holdersSQL, w.tables)
	there := make([]string, len(rows))
	for i, row := range rows {
		there[i] = string(row[0])
	}
	return there, err
}

// quoteName writes a relation's name so that it means the same anywhere.
func quoteName(r classify.RelRef) string {
	if r.Schema == "" {
		return pgx.Identifier{r.Name}.Sanitize()
	}
	return pgx.Identifier{r.Schema, r.Name}.Sanitize()
}
