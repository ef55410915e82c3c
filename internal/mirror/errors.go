package mirror

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
)

// Decisions that callers branch on.
var (
	// ErrTermOver: the leader's term ended before a commit was acknowledged.
	ErrTermOver = errors.New("the leader's term ended before the commit was acknowledged")
	// ErrOutcomeUnknown: nothing that could tell a commit's outcome was reached.
	ErrOutcomeUnknown = errors.New("whether the transaction was committed could not be found out")
	// ErrNotInstalled: a database has no pgdist schema.
	ErrNotInstalled = errors.New("the database is not part of a pgdist set")
	// ErrPlaceLost: a member is too far behind, or holds what cannot be undone
	// row by row; only a full copy makes it usable again.
	ErrPlaceLost = errors.New("the member lost its place and must be copied afresh (pgdist resync)")
	// ErrHalfCopied: a full copy of the member was begun and has not been completed.
	ErrHalfCopied = errors.New("the database is being copied afresh, or that was broken off")
	// ErrWasRemoved: what is in the member's database is of a time before it was removed
	// from the set and added again.
	ErrWasRemoved = errors.New("the database is of a time before it was removed from the set; it has to be copied afresh")
	// ErrNoMajority: not enough members answer to change the view.
	ErrNoMajority = errors.New("no majority of the set's members can be reached")
	// ErrUnconfirmed: no majority of the members has confirmed the view lately, so
	// nobody knows whether what a read would show is the present.
	ErrUnconfirmed = errors.New("no majority of the set's members confirms who may be read")
	// ErrCrashed: a member's UNLOGGED tables were emptied by a crash.
	ErrCrashed = errors.New("the database crashed, and its UNLOGGED tables are empty until they have been copied")
	// ErrClosed: the set was closed.
	ErrClosed = errors.New("the set is closed")
)

// SQLSTATEs that pgdist's own functions raise between themselves; class PD is
// not used by PostgreSQL (docs, appendix A).
const (
	codeFence     = "PD001" // another epoch, or the wrong role
	codePosition  = "PD002" // the follower is not where the batch starts
	codeRewritten = "PD003" // a table was rewritten after the batch's snapshot
	codeDiverged  = "PD004" // a row that must be there is not
	codeFenced    = "PD005" // the fence could not be taken in time
	codeCrashed   = "PD006" // UNLOGGED tables were emptied by a crash
	codeUnlike    = "PD007" // a table has other columns, or another key, than at the leader
)

// opApply is bringing a follower a batch, as errors name it.
const opApply = "apply"

// Error says what went wrong with which member, and what to do about it.
type Error struct {
	Op     string
	Member health.MemberID // 0: the set as a whole
	Host   string
	Err    error
	Hint   string
}

func (e *Error) Error() string {
	s := e.Op
	if e.Host != "" {
		s += " on " + e.Host
	}
	s += ": " + e.Err.Error()
	switch {
	case e.Hint != "":
		s += " (" + e.Hint + ")"
	case lockless(e.Err):
		s += " (increase max_locks_per_transaction of that server: init and copies take five locks for each table)"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

func (m *member) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	var mine *Error
	if errors.As(err, &mine) && mine.Host == m.host {
		return err
	}
	return &Error{Op: op, Member: m.id, Host: m.host, Err: err}
}

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// noDatabase tells that there is none of that name to connect to, or the rest of one: a
// server that crashes while it drops a database, for a copy say, has it "invalid" from then
// on (since 15.4 and its like), and lets it only be dropped. One that takes no connections
// by decree has the same code, and is told of by another of the server's routines.
func noDatabase(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "3D000" || pg.Code == "55000" && pg.Routine == "InitPostgres")
}

// ownReader is a generated function that reads a table's rows, as errors name it.
var ownReader = regexp.MustCompile(`pgdist\.[rxy]_\d+\(`)

// outdated tells an error of the leader's that passes with a newer snapshot: a table
// was rewritten or dropped after the one that the rows were to be read by. Generated
// functions are looked up as they are now, whatever the snapshot: with a dropped
// table its reader is gone, and what the reader names.
func outdated(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case codeRewritten:
		return true
	case "42883": // undefined_function
		return ownReader.MatchString(pg.Message)
	case "42P01", "42703", "3F000", "42704": // undefined_table, undefined_column, invalid_schema_name, undefined_object: what the reader names
		return ownReader.MatchString(pg.Where)
	case "XX000": // internal_error: what was looked up is gone before it was used
		return strings.HasPrefix(pg.Message, "cache lookup failed for ") || strings.HasPrefix(pg.Message, "could not open relation with OID ")
	}
	return false
}

// unreadable tells that users' code (of a column's type, or of a key's operator class) failed
// while a table's rows were read: the server works, and another leader's would do the same.
func unreadable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && ownReader.MatchString(pg.Where) && health.Classify(err) != health.Failure
}

// outdatedMost is how often in a row a batch is read again because what it reads is
// outdated: after so many times it is not, and users' code fails in the same way.
const outdatedMost = 400

// outdatedPause keeps a reader that comes too late again and again from being in
// the way of what it waits for.
const outdatedPause = 5 * time.Millisecond

// memberError marks an error as one member's, for whoever must decide which
// member to exclude.
type memberError struct {
	id  health.MemberID
	err error
}

func (e *memberError) Error() string { return fmt.Sprintf("member %d: %v", e.id, e.err) }
func (e *memberError) Unwrap() error { return e.err }
