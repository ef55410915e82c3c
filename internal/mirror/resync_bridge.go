package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// bridge lends a program of PostgreSQL's a connection that is made as all of ours are: the
// certificates, passwords and fallbacks that a DSN names are in the configuration as they
// were read, and could not all be told to libpq again. The program finds a socket in a directory
// that is this user's alone; whoever connects there is logged in already.
type bridge struct {
	tmp    *scratch
	cfg    *pgconn.Config
	listen net.Listener
	done   sync.WaitGroup
	mu     sync.Mutex
	err    error // of connecting
}

// bridgePort is in the socket's name, nothing more.
const bridgePort = 5432

// newBridge waits for programs. params are the settings of their sessions.
func newBridge(ctx context.Context, cfg *pgconn.Config, params map[string]string) (*bridge, error) {
	tmp, err := newScratch()
	if err != nil {
		return nil, err
	}
	b := &bridge{tmp: tmp, cfg: cfg.Copy()}
	b.cfg.Fallbacks, b.cfg.RuntimeParams = cfg.Fallbacks, maps.Clone(params)
	if b.listen, err = net.Listen("unix", filepath.Join(tmp.dir, ".s.PGSQL."+strconv.Itoa(bridgePort))); err != nil {
		return nil, errors.Join(err, tmp.close())
	}
	b.done.Go(func() {
		for {
			program, err := b.listen.Accept()
			if err != nil {
				return // closed
			}
			b.done.Go(func() { b.carry(ctx, program) })
		}
	})
	return b, nil
}

// env is where the program finds the bridge.
func (b *bridge) env() []string {
	return []string{"PGHOST=" + b.tmp.dir, "PGPORT=" + strconv.Itoa(bridgePort), "PGSSLMODE=disable", "PGUSER=" + b.cfg.User, "PGDATABASE=" + b.cfg.Database, "PGGSSENCMODE=disable"}
}

// close ends it, and tells why no connection could be made.
func (b *bridge) close() error {
	err := errors.Join(b.listen.Close(), b.tmp.close())
	b.done.Wait()
	return errors.Join(b.err, err)
}

// carry is one program's connection from its beginning to its end.
func (b *bridge) carry(ctx context.Context, program net.Conn) {
	defer program.Close()
	front := pgproto3.NewBackend(program, program)
	if _, err := front.ReceiveStartupMessage(); err != nil {
		return // the program has changed its mind
	}
	server, err := b.greet(ctx, front)
	if err != nil {
		b.mu.Lock()
		b.err = errors.Join(b.err, err)
		b.mu.Unlock()
		front.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08001", Message: err.Error()})
		_ = front.Flush() // the program hears of it, or of a connection that is closed
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { server.Close(); program.Close() })
	defer stop()
	var answers sync.WaitGroup
	answers.Go(func() {
		_, _ = io.Copy(program, server) // whichever side ends it, the program tells what it misses
		program.Close()
	})
	_, _ = io.Copy(server, program)
	server.Close()
	answers.Wait()
}

// greet connects to the server and tells the program what the server has said.
func (b *bridge) greet(ctx context.Context, front *pgproto3.Backend) (net.Conn, error) {
	pg, err := pgconn.ConnectConfig(ctx, b.cfg)
	if err != nil {
		return nil, err
	}
	h, err := pg.Hijack()
	if err != nil {
		return nil, err
	}
	front.Send(&pgproto3.AuthenticationOk{})
	for name, value := range h.ParameterStatuses {
		front.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	front.Send(&pgproto3.BackendKeyData{ProcessID: h.PID, SecretKey: h.SecretKey})
	front.Send(&pgproto3.ReadyForQuery{TxStatus: h.TxStatus})
	if err := front.Flush(); err != nil {
		h.Conn.Close()
		return nil, fmt.Errorf("greet the program: %w", err)
	}
	return h.Conn, nil
}
