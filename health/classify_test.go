package health

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func server(severity, code string) error {
	return fmt.Errorf("query: %w", &pgconn.PgError{Severity: "FATAL in another language", SeverityUnlocalized: severity, Code: code})
}

func dial(errno syscall.Errno) error {
	return fmt.Errorf("connect: %w", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)})
}

func TestClassify(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		client Kind // of client work
		own    Kind // of a statement of ours
	}{
		{"success", nil, Success, Success},

		{"refused", dial(syscall.ECONNREFUSED), Failure, Failure},
		{"no route", dial(syscall.EHOSTUNREACH), Failure, Failure},
		{"reset", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, Failure, Failure},
		{"tcp gave up", &net.OpError{Op: "read", Err: syscall.ETIMEDOUT}, Failure, Failure},
		{"reset, bare", syscall.ECONNRESET, Failure, Failure},
		{"eof", io.EOF, Failure, Failure},
		{"eof within a message", fmt.Errorf("receive: %w", io.ErrUnexpectedEOF), Failure, Failure},
		{"name not found", &net.DNSError{Err: "no such host", IsNotFound: true}, Failure, Failure},

		{"closed by us", &net.OpError{Op: "read", Err: net.ErrClosed}, Ignored, Failure},
		{"driver's connection closed", fmt.Errorf("query: %w", pgconn.ErrConnClosed), Ignored, Failure},
		{"no descriptors left", dial(syscall.EMFILE), Ignored, Ignored},
		{"no local ports left", dial(syscall.EADDRNOTAVAIL), Ignored, Ignored},
		{"a file of ours is missing", &fs.PathError{Op: "open", Path: "passfile", Err: syscall.ENOENT}, Ignored, Failure},
		{"certificate", fmt.Errorf("connect: %w", x509.UnknownAuthorityError{}), Ignored, Failure},
		{"certificate refused", &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, Ignored, Failure},
		{"a value that cannot be encoded", errors.New("cannot encode"), Ignored, Failure},

		{"cancelled", fmt.Errorf("query: %w", context.Canceled), Ignored, Ignored},
		{"deadline of unknown origin", fmt.Errorf("query: %w", context.DeadlineExceeded), Ignored, Ignored},
		{"i/o deadline of unknown origin", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, Ignored, Ignored},
		{"deadline of ours", &TimeoutError{Err: context.DeadlineExceeded}, Failure, Failure},

		{"syntax error", server("ERROR", "42601"), Ignored, Failure},
		{"unique violation", server("ERROR", "23505"), Ignored, Failure},
		{"read-only transaction", server("ERROR", "25006"), Ignored, Failure},
		{"disk full", server("ERROR", "53100"), Ignored, Failure},
		{"I/O error", server("ERROR", "58030"), Ignored, Failure},
		{"data corrupted", server("ERROR", "XX001"), Ignored, Failure},
		{"COPY from a missing file", server("ERROR", "58P01"), Ignored, Failure},
		{"dblink to a dead server", server("ERROR", "08001"), Ignored, Failure},
		{"raised by hand to have the database excluded", server("ERROR", "57P03"), Ignored, Failure},

		{"serialization", server("ERROR", "40001"), Ignored, Ignored},
		{"deadlock", server("ERROR", "40P01"), Ignored, Ignored},
		{"lock not available", server("ERROR", "55P03"), Ignored, Ignored},
		{"query cancelled", server("ERROR", "57014"), Ignored, Ignored},
		{"backend terminated, or fast shutdown", server("FATAL", "57P01"), Ignored, Ignored},
		{"idle session", server("FATAL", "57P05"), Ignored, Ignored},
		{"idle in transaction", server("FATAL", "25P03"), Ignored, Ignored},
		{"transaction too long", server("FATAL", "25P04"), Ignored, Ignored},
		{"too many connections", server("FATAL", "53300"), Ignored, Ignored},

		{"wrong password", server("FATAL", "28P01"), Ignored, Failure},
		{"no such database", server("FATAL", "3D000"), Ignored, Failure},
		{"protocol broken by the client", server("FATAL", "08P01"), Ignored, Failure},

		{"crash of another backend", server("FATAL", "57P02"), Failure, Failure},
		{"starting up or shutting down", server("FATAL", "57P03"), Failure, Failure},
		{"database dropped", server("FATAL", "57P04"), Failure, Failure},
		{"proxy without a server", server("FATAL", "08006"), Failure, Failure},
		{"I/O error at start", server("FATAL", "58030"), Failure, Failure},
		{"configuration unreadable", server("FATAL", "F0000"), Failure, Failure},
		{"panic", server("PANIC", "XX000"), Failure, Failure},
		{"out of memory at start", server("FATAL", "53200"), Failure, Failure},
		{"no code", server("FATAL", ""), Ignored, Failure},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Classify(tt.err); got != tt.client {
				t.Errorf("Classify(%v) = %v, want %v", tt.err, got, tt.client)
			}
			if got := ClassifyOwn(tt.err); got != tt.own {
				t.Errorf("ClassifyOwn(%v) = %v, want %v", tt.err, got, tt.own)
			}
		})
	}
}

func TestClassifySeverityOfOldServers(t *testing.T) {
	err := &pgconn.PgError{Severity: "FATAL", Code: "57P03"} // no unlocalized field
	if got := Classify(err); got != Failure {
		t.Errorf("got %v", got)
	}
}

// A refusal found while dialling for real has the shape that Classify expects.
func TestClassifyRealRefusal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=u database=d sslmode=prefer", addr.Port))
	if err != nil {
		t.Fatal(err)
	}
	_, err = pgconn.ConnectConfig(t.Context(), cfg)
	if Classify(err) != Failure {
		t.Errorf("%v is no failure", err)
	}
}

// A server that accepts and says nothing, as one does that was stopped: the
// driver's error is the same whoever's deadline it was. Blame tells.
func TestBlameRealDriver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func(ctx context.Context, params string) error {
		cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=u database=d sslmode=disable %s", l.Addr().(*net.TCPAddr).Port, params))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pgconn.ConnectConfig(ctx, cfg)
		return Blame(ctx, err)
	}
	const short = 30 * time.Millisecond
	ours, cancel := WithTimeout(t.Context(), short)
	defer cancel()
	theirs, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		params string
		want   Kind
	}{
		{"deadline of ours", ours, "", Failure},
		{"the client's deadline", theirs, "", Ignored},
		{"connect_timeout below a live context", t.Context(), "connect_timeout=1", Failure},
		{"cancelled", cancelled, "", Ignored},
	} {
		err := connect(tt.ctx, tt.params)
		if got := Classify(err); err == nil || got != tt.want {
			t.Errorf("%s: %v is %v, want %v", tt.name, err, got, tt.want)
		}
	}
}

func TestBlame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timeout := fmt.Errorf("query: %w", context.DeadlineExceeded)
		blamed := func(ctx context.Context, err error) bool {
			got := Blame(ctx, err)
			if !errors.Is(got, err) {
				t.Errorf("Blame lost the error: %v", got)
			}
			return errors.Is(got, ErrTimeout)
		}
		client, cancelClient := context.WithTimeout(t.Context(), time.Second)
		defer cancelClient()
		shorter, cancel := WithTimeout(client, time.Millisecond)
		defer cancel()
		longer, cancel := WithTimeout(client, time.Minute)
		defer cancel()
		under, cancel := context.WithTimeout(longer, time.Hour)
		defer cancel()

		if !blamed(client, timeout) {
			t.Error("a time-out while the client still waits is ours")
		}
		if blamed(client, context.Canceled) || blamed(client, io.EOF) || Blame(client, nil) != nil {
			t.Error("only time-outs are blamed")
		}
		time.Sleep(10 * time.Millisecond)
		if !blamed(shorter, timeout) || !blamed(shorter, os.ErrDeadlineExceeded) {
			t.Error("our deadline has passed and is not blamed")
		}
		time.Sleep(time.Second)
		if blamed(client, timeout) {
			t.Error("the client's own deadline is blamed")
		}
		if blamed(longer, timeout) || blamed(under, timeout) {
			t.Error("the client's own deadline is blamed, above ours")
		}
		cancelClient()
		if blamed(client, timeout) {
			t.Error("blamed after the client went away")
		}
	})
}

// late is a context whose deadline has passed and which has not noticed yet.
type late struct {
	context.Context
	deadline time.Time
}

func (l late) Deadline() (time.Time, bool) { return l.deadline, true }

func TestBlameBeforeTheContextNotices(t *testing.T) {
	past := time.Now().Add(-time.Millisecond)
	if err := Blame(late{context.Background(), past}, os.ErrDeadlineExceeded); errors.Is(err, ErrTimeout) {
		t.Error("a client's deadline is blamed because its context is late")
	}
	ours := context.WithValue(context.Background(), deadlineKey{}, past)
	if err := Blame(late{ours, past}, os.ErrDeadlineExceeded); !errors.Is(err, ErrTimeout) {
		t.Error("our deadline is not blamed because its context is late")
	}
}
