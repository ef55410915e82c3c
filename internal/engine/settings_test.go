package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
)

// settingsAfter follows statements as a session does.
func settingsAfter(s *settings, statements ...string) *settings {
	for _, sql := range statements {
		v := classify.Parse(sql)
		s = s.after(&v.Statements[0], sql, nil)
	}
	return s
}

func TestSettingsFollowStatements(t *testing.T) {
	for _, c := range []struct {
		statements []string
		reads      string
		writes     string
	}{
		{nil, "", ""},
		{[]string{"SET work_mem = '1MB'"}, "SET work_mem = '1MB'", "SET work_mem = '1MB'"},
		{[]string{"SET a.b = 1", "SET a.c = 2", "SET a.b = 3"}, "SET a.c = 2; SET a.b = 3", "SET a.c = 2; SET a.b = 3"},
		{[]string{"SET a.b = 1", "SET LOCAL a.c = 2"}, "SET a.b = 1", "SET a.b = 1"},
		{[]string{"SET a.b = 1", "RESET a.b"}, "", ""},
		{[]string{"SET a.b = 1", "SET a.b TO DEFAULT"}, "", ""},
		{[]string{"SET a.b = 1", "SET ROLE x", "RESET ALL"}, "SET ROLE x", "SET ROLE x"},
		{[]string{"SET a.b = 1", "SET ROLE x", "DISCARD ALL"}, "", ""},
		{[]string{"SET ROLE x", "SET SESSION AUTHORIZATION y"}, "SET SESSION AUTHORIZATION y", "SET SESSION AUTHORIZATION y"},
		{[]string{"SET default_transaction_read_only = off", "SET a.b = 1"}, "SET a.b = 1", "SET default_transaction_read_only = off; SET a.b = 1"},
		{[]string{"SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"}, "", "SET default_transaction_read_only = 'off'"},
		{ // as drivers have it, one mode at a time
			[]string{"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"},
			"SET default_transaction_isolation = 'serializable'", "SET default_transaction_isolation = 'serializable'; SET default_transaction_read_only = 'on'",
		},
		{
			[]string{"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, DEFERRABLE", "RESET default_transaction_isolation"},
			"SET default_transaction_deferrable = 'on'", "SET default_transaction_deferrable = 'on'",
		},
		{[]string{"SET datestyle = 'SQL'", "SET datestyle = dmy"}, "SET datestyle = 'SQL'; SET datestyle = dmy", "SET datestyle = 'SQL'; SET datestyle = dmy"},
		{[]string{"SET datestyle = 'SQL'", "SET datestyle = dmy", "SET datestyle = 'European'"}, "SET datestyle = 'SQL'; SET datestyle = 'European'", "SET datestyle = 'SQL'; SET datestyle = 'European'"},
		{[]string{"SET datestyle = German", "SET datestyle = iso"}, "SET datestyle = German; SET datestyle = iso", "SET datestyle = German; SET datestyle = iso"},
		{[]string{"SET datestyle = dmy", "SET datestyle = iso, mdy", "SET a.b = 1"}, "SET datestyle = iso, mdy; SET a.b = 1", "SET datestyle = iso, mdy; SET a.b = 1"},
		{[]string{"SET datestyle = 'SQL'", "SET datestyle = dmy", "RESET datestyle"}, "", ""},
		{[]string{"SHOW a.b"}, "", ""},
	} {
		s := settingsAfter(nil, c.statements...)
		for p, want := range map[purpose]string{readOnly: c.reads, readWrite: c.writes} {
			if want != "" {
				want = "; " + want
			}
			if got := s.text(p); got != resetSQL+want {
				t.Errorf("%v on %v: %s", c.statements, p, got)
			}
		}
	}
}

func TestSettingsAreImmutable(t *testing.T) {
	one := settingsAfter(nil, "SET a.b = 1")
	text := one.text(readWrite)
	settingsAfter(one, "SET a.b = 2", "SET a.c = 3", "RESET ALL")
	if one.text(readWrite) != text {
		t.Error("a later change reached an older value")
	}
	if !settingsAfter(nil, "SET a.b = 1").same(one, readOnly) || one.same(nil, readOnly) || one.same(unknownSettings, readOnly) {
		t.Error("same")
	}
}

func TestSettingsThatChangeBegin(t *testing.T) {
	for sql, want := range map[string]bool{
		"SET a.b = 1": false, "SET default_transaction_isolation = 'serializable'": true,
		"SET default_transaction_read_only = on": true, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": true,
	} {
		if settingsAfter(nil, sql).transactionDefaults() != want {
			t.Error(sql)
		}
	}
}

func TestQuoteLiteral(t *testing.T) {
	for v, want := range map[string]string{"a": "'a'", "o'x": "'o''x'", `a\b'`: ` E'a\\b'''`, "": "''"} {
		if got := quoteLiteral(v); got != want {
			t.Errorf("%q: %s", v, got)
		}
	}
}

func TestClassifyError(t *testing.T) {
	alive := context.Background()
	ended, cancel := context.WithCancel(alive)
	cancel()
	server := func(code, severity, message string) error {
		return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code, Severity: "FEHLER", SeverityUnlocalized: severity, Message: message, Routine: "ProcessInterrupts"})
	}
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want failure
	}{
		{"none", alive, nil, failNone},
		{"a constraint", alive, server("23505", "ERROR", "duplicate"), failStatement},
		{"read-only", alive, server("25006", "ERROR", "read-only"), failReadOnly},
		{"the fence", alive, &pgconn.PgError{Code: "25006", Where: "PL/pgSQL function pgdist.refuse() line 12 at RAISE"}, failFenced},
		{"the fence, in German", alive, &pgconn.PgError{Code: "25006", Where: "PL/pgSQL-Funktion pgdist.refuse() Zeile 12 bei RAISE\nSQL-Anweisung »…«"}, failFenced},
		{"one that names the fence", alive, &pgconn.PgError{Code: "25006", Where: "PL/pgSQL function f() line 1 at RAISE\nSQL statement \"PERFORM pgdist.refuse()\""}, failReadOnly},
		{"a serialization failure", alive, server("40001", "ERROR", "could not serialize"), failStatement},
		{"a stale plan", alive, &pgconn.PgError{Code: "0A000", Message: "gecachter Plan darf den Ergebnistyp nicht ändern", Routine: "RevalidateCachedQuery"}, failStale},
		{"not supported", alive, server("0A000", "ERROR", "not supported"), failStatement},
		{"statement_timeout", alive, server("57014", "ERROR", "canceling statement due to statement timeout"), failStatement},
		{"cancelled by somebody", alive, server("57014", "ERROR", "canceling statement due to user request"), failEvicted},
		{"cancelled by somebody, in German", alive, server("57014", "ERROR", "storniere Anfrage wegen Benutzeraufforderung"), failEvicted},
		{"statement_timeout, in German", alive, server("57014", "ERROR", "storniere Anfrage wegen Zeitüberschreitung der Anfrage"), failStatement},
		{"cancelled by the client", ended, server("57014", "ERROR", "canceling statement due to user request"), failStatement},
		{"terminated", alive, server("57P01", "FATAL", "terminating connection"), failLost},
		{"raised with a code of shutdown", alive, server("57P01", "ERROR", "raised"), failStatement},
		{"unsent", alive, fmt.Errorf("x: %w", ErrNotSent), failUnsent},
		{"cut", alive, fmt.Errorf("x: %w", io.ErrUnexpectedEOF), failLost},
		{"killed here", alive, net.ErrClosed, failLost},
		{"cut after the client left", ended, io.ErrUnexpectedEOF, failCancelled},
		{"arguments that pgx cannot encode", alive, errors.New("cannot encode"), failStatement},
	} {
		if got := classifyError(c.ctx, c.err); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestErrorsTellWhatToDo(t *testing.T) {
	cause := errors.New("the cause")
	for _, err := range []error{errLeaderChanged(), errMemberLost(), errEvicted(), errUnknownOutcome(cause), errNotMirrored(cause), errResultLost(), errPinLost("listen"), errNoLeader(cause)} {
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code == "" || pe.Hint == "" || pe.Severity != "ERROR" {
			t.Errorf("%v", err)
		}
	}
	if !errors.Is(errNotMirrored(context.Canceled), context.Canceled) {
		t.Error("the context's end is not found in the error")
	}
	e := &Error{Op: "connect", Host: "h:1", Err: cause, Hint: "do this"}
	if got := e.Error(); got != "pgdist: connect on h:1: the cause (do this)" || !errors.Is(e, cause) {
		t.Error(got)
	}
}

func TestTxOptionsText(t *testing.T) {
	yes, no := true, false
	for want, o := range map[string]TxOptions{
		"BEGIN": {}, "BEGIN ISOLATION LEVEL serializable READ ONLY DEFERRABLE": {"serializable", &yes, &yes},
		"BEGIN READ WRITE NOT DEFERRABLE": {"", &no, &no},
	} {
		if got := o.sql(); !strings.EqualFold(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestRuns(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT 1": false, "": false, "INSERT INTO t VALUES (1)": false, "CREATE TABLE t (id int)": true, "BEGIN": true,
		"SET a.b = 1": true, "SELECT set_config('a.b', '1', false)": false, "TRUNCATE t": true, "VACUUM": true, "nonsense": false,
		"SELECT 1; SELECT 2": false, "SELECT 1; CREATE TABLE t (id int)": true, "SHOW a.b": false, "LISTEN x": false,
		"CALL p()": false, "DISCARD ALL": true, "EXPLAIN SELECT 1": false,
	} {
		if got := Runs(classify.Parse(sql)); got != want {
			t.Errorf("%s: %v", sql, got)
		}
	}
}
