package health

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// Kind is what a result says about the database it came from.
type Kind int

const (
	// Ignored says nothing: the client's own error, a cancelled context.
	Ignored Kind = iota
	// Success: the database did what it was asked.
	Success
	// Failure: the database, or the way to it, does not work.
	Failure
)

func (k Kind) String() string {
	switch k {
	case Success:
		return "success"
	case Failure:
		return "failure"
	default:
		return "ignored"
	}
}

// Classify says what the result of client work tells about the database.
//
// Failures are broken and refused connections, time-outs of ours
// ([TimeoutError]; see [Blame]) and the server ending or refusing sessions
// because it is going down, starting or broken. The latter count only with
// severity FATAL or PANIC: any client can RAISE any SQLSTATE as an ERROR,
// and must not be able to have databases excluded. Everything else is the
// client's own affair and ignored, context.Canceled and deadlines of unknown
// origin among it.
func Classify(err error) Kind {
	if err == nil {
		return Success
	}
	if timeout := (*TimeoutError)(nil); errors.As(err, &timeout) {
		return Failure
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		if isFatal(pg) && brokenServer(pg.Code) {
			return Failure
		}
		return Ignored
	}
	if errors.Is(err, context.Canceled) || isDeadline(err) {
		return Ignored
	}
	if isConnectionError(err) {
		return Failure
	}
	return Ignored
}

// ClassifyOwn is [Classify] for statements of our own, such as probes. Nobody
// else wrote them, so a server that answers with an error cannot do what it
// is there for (no such database, wrong password, disk full, schema missing),
// unless the error is of the passing kind that says nothing about it. The same
// goes for errors that are not the server's, such as a certificate that does
// not fit. Only what is this process's own doing is ignored: a cancelled
// context, a deadline that [Blame] left alone, file descriptors used up.
func ClassifyOwn(err error) Kind {
	if kind := Classify(err); kind != Ignored {
		return kind
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		if passing(pg.Code) {
			return Ignored
		}
		return Failure
	}
	if errors.Is(err, context.Canceled) || isDeadline(err) || isExhausted(err) {
		return Ignored
	}
	return Failure
}

func isFatal(pg *pgconn.PgError) bool {
	severity := pg.SeverityUnlocalized
	if severity == "" {
		severity = pg.Severity
	}
	return severity == "FATAL" || severity == "PANIC"
}

// brokenServer decides about the SQLSTATEs with which a server ends or refuses
// a session (PostgreSQL documentation, appendix A). Not among them, though
// FATAL: 57P01 admin_shutdown, which one terminated backend gets as well as
// all at a shutdown (the next connection tells: refused or 57P03); 57P05,
// 25P03, 25P04, sessions that were idle or a transaction too long; 53300
// too_many_connections, under which the pooled connections go on working;
// 40001, a conflict with recovery; 28xxx and 3D000, a user or database that
// the client got wrong; 08P01, a client that broke the protocol.
func brokenServer(code string) bool {
	switch code {
	case "57P02", // crash_shutdown: another backend crashed, all are ended
		"57P03", // cannot_connect_now: starting up, shutting down, in recovery
		"57P04": // database_dropped: the database is gone
		return true
	case "08P01":
		return false
	}
	switch code[:min(2, len(code))] {
	case "08", // connection_exception, from a proxy in front of the server
		"58", // system_error: I/O error, missing files of the server's own
		"F0", // config_file_error
		"XX": // internal_error, data_corrupted, index_corrupted
		return true
	}
	// out_of_memory: the server could not set up a session. 53100 disk_full.
	return code == "53200" || code == "53100"
}

// passing are errors that a working server may give to a statement of ours.
func passing(code string) bool {
	switch code {
	case "53300", // too_many_connections: somebody else uses them all up
		"57014", // query_canceled: by hand or by a statement_timeout
		"57P01", // admin_shutdown: this backend was terminated
		"57P05", // idle_session_timeout
		"25P03", // idle_in_transaction_session_timeout
		"25P04", // transaction_timeout
		"55P03": // lock_not_available
		return true
	}
	return strings.HasPrefix(code, "40") // transaction_rollback: deadlock, serialization
}

// isConnectionError tells errors of the way to the server from errors of the
// program that uses it. It names types and codes one by one: many errors that
// have nothing to do with the server satisfy net.Error, a missing passfile's
// ENOENT among them.
func isConnectionError(err error) bool {
	if isClosedByUs(err) || isExhausted(err) {
		return false
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		// crypto/tls reports alerts in this guise: certificates, not databases.
		return op.Op != "remote error" && op.Op != "local error"
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return true
	}
	errno := syscall.Errno(0)
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
		syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.ENETUNREACH:
		return true
	}
	return false
}

// isClosedByUs tells the echo of an earlier error: a connection that this
// process has closed itself. What made it do so was reported then.
func isClosedByUs(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, pgconn.ErrConnClosed)
}

// isExhausted tells that this process, not the database, ran out of something.
func isExhausted(err error) bool {
	errno := syscall.Errno(0)
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL:
		return true
	}
	return false
}

// isTerminated tells that the server ended the session by order. It says
// nothing about the server, but is reason to look at once.
func isTerminated(err error) bool {
	pg := (*pgconn.PgError)(nil)
	return errors.As(err, &pg) && pg.Code == "57P01"
}
