package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
)

var (
	// ErrClosed is returned by whatever is asked of a closed Engine or Session.
	ErrClosed = errors.New("pgdist: closed")
	// ErrNotSent is what a front door hands to Lease.Done when a connection
	// turned out to be unusable before anything was sent over it.
	ErrNotSent = errors.New("connection lost before anything was sent")
	// ErrDiffers is what a front door hands to Lease.Done when a statement that is run
	// again, and of whose result the client has the beginning, begins otherwise now.
	ErrDiffers = errors.New("the result is another one than before")
	// ErrBusy is returned by Session.Acquire while the rows of the session's
	// previous statement are still open.
	ErrBusy = errors.New("pgdist: rows of the previous statement are still open on this connection")
	// ErrPoolWait: no connection of the member's pool became free in time.
	ErrPoolWait = errors.New("no connection became free in time")
	// ErrNoTransaction is returned by Commit and Rollback outside a transaction.
	ErrNoTransaction = errors.New("pgdist: no transaction is open")
	// ErrCommitRolledBack: COMMIT of a failed transaction, which PostgreSQL
	// answers with the tag ROLLBACK and without an error.
	ErrCommitRolledBack = errors.New("commit unexpectedly resulted in rollback")
)

// Error is what the engine itself reports, as opposed to what a server said.
type Error struct {
	// Op is what was being done, such as "connect" or "read".
	Op string
	// Member is the database concerned; 0 if it is the set as a whole.
	Member health.MemberID
	// Host is "host:port" of Member, or empty.
	Host string
	// Err is the cause.
	Err error
	// Hint says what to do about it; may be empty.
	Hint string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("pgdist: ")
	b.WriteString(e.Op)
	if e.Host != "" {
		fmt.Fprintf(&b, " on %s", e.Host)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// The SQLSTATEs that pgdist raises itself are chosen here and nowhere else.
const (
	codeSerialization  = "40001"
	codeUnknownOutcome = "08007"
	codeLost           = "57P01"
	codeUnavailable    = "57P03"
	codeNotSupported   = "0A000"
	codeReadOnly       = "25006"
	codeNotReady       = "55000"
	codeStalePlan      = "0A000"
	codeCancelled      = "57014"
	codeFailedTx       = "25P02"
	codeActiveTx       = "25001"
	codeTooManyConns   = "53300"
)

func pgError(code, message, hint string) *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "ERROR", SeverityUnlocalized: "ERROR",
		Code: code, Message: message, Hint: hint, Routine: "pgdist",
	}
}

// errLeaderChanged is given to a client whose open transaction was lost.
func errLeaderChanged() error {
	return pgError(codeSerialization, "transaction rolled back because the leader changed or its connection was lost",
		"The connection is usable: run the transaction again.")
}

// errMemberLost is given to a client whose read-only transaction lost its member.
func errMemberLost() error {
	return pgError(codeSerialization, "transaction rolled back because the database it read from is no longer in sync or reachable",
		"The connection is usable: run the transaction again.")
}

// errEvicted is given to a client whose read, or reading transaction, had to give
// way to a change and cannot be run again unseen. PostgreSQL's own hot standbys
// answer such conflicts with the same SQLSTATE.
func errEvicted() error {
	return pgError(codeSerialization, "cancelled because its locks held up a change to the database it read from for longer than ddl_conflict_timeout",
		"The connection is usable: run it again. Long reads beside schema changes need a longer ddl_conflict_timeout, or the leader (route them there).")
}

// errNotHere is given to a client whose snapshot is a follower's, and who then read what only
// the leader can tell.
func errNotHere() error {
	return pgError(codeSerialization, "transaction rolled back because it read values whose types have other numbers on the leader after it had begun on another database",
		"The connection is usable: run the transaction again. It will run on the leader.")
}

// errActs is given to a client whose READ ONLY transaction has begun on a follower, and who then
// did in it what other sessions should meet.
func errActs() error {
	return pgError(codeSerialization, "transaction rolled back because it notifies or takes an advisory lock after it had begun on a database that is only read",
		"The connection is usable: run the transaction again. It will run on the leader. BEGIN without READ ONLY avoids it.")
}

// errHollow is given to a client whose snapshot is a follower's, and who then read
// what only the leader can show.
func errHollow() error {
	return pgError(codeSerialization, "transaction rolled back because it read a materialized view after it had begun on a database that holds no data in it",
		"The connection is usable: run the transaction again. It will run on the leader.")
}

// errUnknownOutcome is given for a COMMIT whose outcome nothing reachable could tell.
func errUnknownOutcome(cause error) error {
	e := pgError(codeUnknownOutcome, "whether the transaction was committed could not be found out",
		"Check the data before running it again; `pgdist status` shows which databases are reachable.")
	if cause != nil {
		e.Detail = cause.Error()
	}
	return e
}

// errNotMirrored is given for a write that is committed on the leader while
// nothing is known of the followers, for example because ctx ended.
func errNotMirrored(cause error) error {
	e := pgError(codeUnknownOutcome, "the write is committed on the leader, but whether every in-sync database has it is not known",
		"It reaches them with the next acknowledged write, unless the leader is lost first. Check the data before running it again.")
	if cause != nil {
		e.Detail = cause.Error()
	}
	return &causedError{e, cause}
}

// pgErrorOf is err as what a server might have said.
func pgErrorOf(err error) *pgconn.PgError {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe
	}
	return pgError("XX000", err.Error(), "")
}

// errResultLost is given for a statement that was committed while its answer was lost.
func errResultLost() error {
	return pgError(codeUnknownOutcome, "the statement was committed, but its result was lost with the connection to the leader",
		"Do not run it again.")
}

// errInPart is given for a statement that committed several transactions, of which some
// are lost with the leader.
func errInPart() error {
	return pgError(codeUnknownOutcome, "the leader was lost while the statement's transactions were on their way to the other databases: the first of them are kept, the last may not be",
		"A procedure or DO block that commits inside is several transactions. Look how far it came before you go on.")
}

// errPinLost is given to a session whose state lived on a lost connection.
func errPinLost(reason string) error {
	return pgError(codeLost, "the leader's connection was lost, and with it this session's state: "+reason,
		"The connection is usable: set the state up again (LISTEN, temporary tables, advisory locks, prepared statements).")
}

// errNoLeader is given when no leader could be reached before the time was up.
func errNoLeader(cause error) error {
	e := pgError(codeUnavailable, "no leader can be reached", "`pgdist status` shows which databases are reachable and why a new leader is not chosen.")
	if cause != nil {
		e.Detail = cause.Error()
	}
	return e
}

// errUnconfirmed is given when no majority says whether the view is the present one.
func errUnconfirmed(cause error) error {
	e := pgError(codeUnavailable, "no majority of the databases can be reached", "Bring enough of them back: `pgdist status` shows which do not answer. Nothing was done.")
	e.Detail = cause.Error()
	return e
}

// noReader makes of errNoLeader what a read hears that found no member at all.
func noReader(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != codeUnavailable {
		return err
	}
	e := *pe
	e.Message = "no database in sync can be reached"
	return &e
}

func errRefused(message, hint string) error { return pgError(codeNotSupported, message, hint) }

// isOurs tells what pgdist itself says about a statement from what a server says.
func isOurs(err error) bool {
	var pe *pgconn.PgError
	var mine *Error
	return errors.As(err, &pe) && pe.Routine == "pgdist" || errors.As(err, &mine)
}

// causedError is a server-like error that errors.Is also finds the cause of.
type causedError struct {
	*pgconn.PgError
	cause error
}

func (e *causedError) Unwrap() []error { return []error{e.PgError, e.cause} }

// failure says what an error from a server connection means for the session.
type failure int

const (
	failNone      failure = iota
	failStatement         // the server's own answer; the connection goes on
	failReadOnly          // 25006: the transaction is read-only
	failHollow            // a materialized view holds no data here; the leader's may
	failFenced            // capture refused: no leader, or none since its crash, or an old snapshot
	failStale             // a cached plan no longer fits; run it again
	failOvertaken         // a strict read, which another leader has overtaken
	failEvicted           // cancelled, though the client did not ask for it
	failCancelled         // the client's context ended
	failUnsent            // the connection is gone; nothing was sent
	failLost              // the connection is gone, perhaps with the statement done
)

func (f failure) connectionGone() bool { return f == failUnsent || f == failLost }

// classifyError tells what err, from a statement run under ctx, means.
func classifyError(ctx context.Context, err error) failure {
	if err == nil {
		return failNone
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return classifyServerError(ctx, pe)
	}
	switch {
	case errors.Is(err, ErrNotHere):
		return failReadOnly
	case errors.Is(err, ErrNotSent):
		return failUnsent
	case errors.Is(err, ErrTermOver):
		return failOvertaken
	case ctx.Err() != nil:
		return failCancelled
	case isNetworkError(err):
		return failLost
	}
	return failStatement
}

func classifyServerError(ctx context.Context, pe *pgconn.PgError) failure {
	severity := pe.SeverityUnlocalized
	if severity == "" {
		severity = pe.Severity
	}
	switch {
	case severity == "FATAL" || severity == "PANIC":
		return failLost
	case fenced(pe):
		return failFenced
	case pe.Code == codeReadOnly:
		return failReadOnly
	case pe.Code == codeNotReady && pe.Routine == "ExecOpenScanRelation":
		return failHollow
	case pe.Code == codeStalePlan && pe.Routine == "RevalidateCachedQuery":
		return failStale
	case pe.Code == codeCancelled && ctx.Err() == nil && pe.Routine == "ProcessInterrupts" && requested[pe.Message]:
		return failEvicted
	}
	return failStatement
}

// requested are the messages of a statement that somebody cancelled, in the languages that
// PostgreSQL 15 speaks. Code and routine are those of statement_timeout, too.
var requested = map[string]bool{
	"annulation de la requête à la demande de l'utilisateur":    true,
	"annullamento dell'istruzione su richiesta dell'utente":     true,
	"avbryter sats på användares begäran":                       true,
	"cancelando la sentencia debido a una petición del usuario": true,
	"canceling statement due to user request":                   true,
	"storniere Anfrage wegen Benutzeraufforderung":              true,
	"виконання оператора скасовано по запиту користувача":       true,
	"выполнение оператора отменено по запросу пользователя":     true,
	"ユーザーからの要求により文をキャンセルしています":                                  true,
	"由于用户请求而正在取消查询":                                             true,
	"사용자 요청에 의해 작업을 취소합니다.":                                     true,
}

// fenced tells an error of pgdist.refuse()'s own. Servers speak many languages (lc_messages): what
// they say besides names is not to be relied on.
func fenced(pe *pgconn.PgError) bool {
	innermost, _, _ := strings.Cut(pe.Where, "\n")
	return strings.Contains(innermost, "pgdist.refuse()") && (pe.Code == codeReadOnly || pe.Code == codeSerialization)
}

// isNetworkError tells a broken connection from an error that pgx found in the
// client's own arguments, after which the connection is as good as before.
func isNetworkError(err error) bool {
	var ne net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &ne) || errors.Is(err, pgconn.ErrConnClosed)
}
