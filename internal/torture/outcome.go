package torture

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Outcome is what a client knows of one operation.
type Outcome int

const (
	// Unknown may or may not have happened; the zero value, also of what is
	// still under way.
	Unknown Outcome = iota
	// Acked was acknowledged: it must be there, everywhere, for ever.
	Acked
	// Failed was refused or rolled back: it must never be seen.
	Failed
)

// String returns the outcome in lower case.
func (o Outcome) String() string {
	return [...]string{"unknown", "acknowledged", "failed"}[o]
}

// errBroken marks answers that are wrong by themselves, whatever failed.
var errBroken = errors.New("the database under test is wrong")

// state returns the SQLSTATE that err carries, or "".
func state(err error) string {
	var s interface{ SQLState() string }
	if errors.As(err, &s) {
		return s.SQLState()
	}
	return ""
}

// OutcomeOf judges the answer to an autocommit statement or a COMMIT. A
// statement of a transaction whose COMMIT was not sent has Failed whatever the
// error.
func OutcomeOf(err error) Outcome {
	switch code := state(err); {
	case err == nil:
		return Acked
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Unknown
	case errors.Is(err, pgx.ErrTxCommitRollback), errors.Is(err, driver.ErrBadConn):
		return Failed // ErrBadConn promises that nothing was executed
	case code == "", code == "40003", strings.HasPrefix(code, "08"), strings.HasPrefix(code, "57P"):
		return Unknown
	default:
		return Failed
	}
}

// disconnect tells whether err is the end of a connection or a server's
// shutdown instead of an answer to the statement.
func disconnect(err error) bool {
	code := state(err)
	if code == "" {
		return !errors.Is(err, pgx.ErrTxCommitRollback) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errBroken)
	}
	return strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P")
}

// matches tells whether code is, or begins with, one of the patterns.
func matches(code string, patterns []string) bool {
	return code != "" && slices.ContainsFunc(patterns, func(p string) bool { return p != "" && strings.HasPrefix(code, p) })
}
