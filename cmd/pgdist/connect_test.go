//go:build unix

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// Each way in which a database cannot be used is one line that names it and
// says what to do.
func TestInitCannotConnect(t *testing.T) {
	two := pgtest.Set(t, 2, pgtest.Options{})
	b := two[1].Addr()

	t.Run("database missing", func(t *testing.T) {
		databases(t, "half", "", two[0])
		pgdist(t, "init", dsn("half", two...)).wantErrors(t, 1, b, `database "half" does not exist`, "create it: createdb -h 127.0.0.1 -p")
	})
	t.Run("role missing", func(t *testing.T) {
		pgdist(t, "init", dsnAs("nobody_here", "postgres", two...)).wantErrors(t, 1, `role "nobody_here" does not exist`, "check user, password")
	})
	t.Run("wrong password", func(t *testing.T) {
		requirePassword(t, two[1], "guarded")
		everywhere(t, "postgres", "CREATE ROLE guarded SUPERUSER LOGIN PASSWORD 'right-one'", two...)
		set := dsnAs("guarded:wrong-one", "postgres", two...)
		r := pgdist(t, "init", set)
		r.wantErrors(t, 1, b, `password authentication failed for user "guarded"`, "check user, password and the server's pg_hba.conf")
		if strings.Contains(r.out+r.errs, "wrong-one") {
			t.Errorf("the password is shown:\n%s", r.errs)
		}
		pgdist(t, "init", dsnAs("guarded", "postgres", two...)).wantErrors(t, 1, b, "password")
		pgdist(t, "init", strings.Replace(set, "wrong-one", "right-one", 1)).want(t, statusOK)
		pgdist(t, "uninstall", strings.Replace(set, "wrong-one", "right-one", 1)).want(t, statusOK)
	})
	t.Run("refused by pg_hba.conf", func(t *testing.T) {
		prependHBA(t, two[1], "host barred all all reject\n")
		databases(t, "barred", "", two...)
		pgdist(t, "init", dsn("barred", two...)).wantErrors(t, 1, b, "pg_hba.conf rejects connection", "check user, password and the server's pg_hba.conf")
	})
	t.Run("standby", func(t *testing.T) {
		standby(t, two[1])
		pgdist(t, "init", dsn("postgres", two...)).wantErrors(t, 1, b, "standby in recovery", "use its primary, or promote it")
	})
	t.Run("server down", func(t *testing.T) {
		if err := two[1].Kill(); err != nil {
			t.Fatal(err)
		}
		pgdist(t, "init", dsn("postgres", two...)).wantErrors(t, 1, b, "connection refused", "is the server running")
	})
	t.Run("server too old", func(t *testing.T) {
		addr := oldServer(t)
		set := "pgdist://postgres@" + two[0].Addr() + "," + addr + "/postgres?sslmode=disable"
		pgdist(t, "init", set).wantErrors(t, 1, addr, "PostgreSQL 12.22", "pgdist needs PostgreSQL 13 or later; upgrade this server")
	})
}

// requirePassword lets a role in with its password only.
func requirePassword(t *testing.T, s *pgtest.Server, role string) {
	t.Helper()
	prependHBA(t, s, "host all "+role+" all scram-sha-256\n")
}

func prependHBA(t *testing.T, s *pgtest.Server, rule string) {
	t.Helper()
	path := filepath.Join(s.DataDir(), "pg_hba.conf")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte(rule), old...), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded := ask(t, s, "SELECT pg_conf_load_time()::text")
	on(t, s, "postgres", "SELECT pg_reload_conf()")
	eventually(t, "the server reads its configuration", func() bool { return ask(t, s, "SELECT pg_conf_load_time()::text") != loaded })
}

// standby restarts a server as a standby that follows nobody.
func standby(t *testing.T, s *pgtest.Server) {
	t.Helper()
	if err := s.Stop(pgtest.Fast); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.DataDir(), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.StartAgain(); err != nil {
		t.Fatal(err)
	}
}

// oldServer speaks just enough of the protocol to say that it is PostgreSQL 12.
func oldServer(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			greet(c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// greet answers a start-up packet and waits until the client leaves.
func greet(c net.Conn) {
	defer c.Close()
	b := pgproto3.NewBackend(c, c)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "12.22 (Debian 12.22-1)"})
	b.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if b.Flush() != nil {
		return
	}
	for {
		msg, err := b.Receive()
		if err != nil {
			return
		}
		if _, bye := msg.(*pgproto3.Terminate); bye {
			return
		}
		b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "XX000", Message: "this server knows nothing"})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
	}
}
