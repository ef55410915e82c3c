package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/mirror"
)

// The exit statuses; the help text says what they mean.
const (
	statusOK          = 0
	statusNotAsItIs   = 1
	statusFailed      = 2
	statusInterrupted = 130
)

// verdictError ends a command whose answer, already printed, is "no".
type verdictError struct{ what string }

func (e *verdictError) Error() string { return e.what }

// conclude prints an error, one line for each cause, and returns the exit status.
func conclude(ctx context.Context, w io.Writer, err error) int {
	var verdict *verdictError
	switch {
	case err == nil:
		return statusOK
	case errors.As(err, &verdict):
		fmt.Fprintln(w, "pgdist: "+verdict.what)
		return statusNotAsItIs
	case ctx.Err() != nil:
		fmt.Fprintln(w, "pgdist: interrupted")
		return statusInterrupted
	}
	for _, e := range causes(err) {
		fmt.Fprintln(w, "pgdist: "+strings.TrimPrefix(oneLine(e), "pgdist: "))
	}
	return statusFailed
}

// causes takes joined errors apart.
func causes(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, causes(e)...)
	}
	return list
}

// oneLine is an error's text without line breaks, a failed connection's reduced
// to its reason.
func oneLine(err error) string {
	var m *mirror.Error
	if errors.As(err, &m) {
		short := *m
		short.Err = errors.New(reason(m.Err))
		// What is said around it may be what to do.
		return flat(strings.Replace(err.Error(), m.Error(), short.Error(), 1))
	}
	return flat(reason(err))
}

func flat(s string) string { return strings.Join(strings.Fields(s), " ") }

// reason is what an error comes down to.
func reason(err error) string {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		// The DSN that is quoted first may be long and hold secrets.
		if _, why, ok := strings.Cut(parse.Error(), "`: "); ok {
			return "the DSN cannot be read: " + why + " (in a URL's user and password, @ : / ? # are written %40 %3A %2F %3F %23)"
		}
	}
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) {
		return serverText(err)
	}
	var why []string
	for _, e := range causes(connect.Unwrap()) {
		if s := connectReason(e); !slices.Contains(why, s) {
			why = append(why, s)
		}
	}
	return strings.Join(why, "; ")
}

// serverText adds what a server said besides the message.
func serverText(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err.Error()
	}
	s := err.Error()
	for _, more := range []string{pg.Detail, pg.Hint} {
		if more != "" {
			s += " " + more
		}
	}
	return s
}

// connectReason is why one attempt to connect failed.
func connectReason(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)
	}
	if pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err.Error()
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Error()
	}
	return err.Error()
}
