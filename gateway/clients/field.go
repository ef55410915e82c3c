package main

import (
	"context"
	"embed"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

//go:embed programs
var files embed.FS

// field is what the programs run on: a plain server, and a gateway before a set of three.
type field struct {
	plain   *pgtest.Server
	servers []*pgtest.Server
	gateway *gateway.Server
	addr    string
	dir     string // of the programs
}

func open(ctx context.Context) (_ *field, err error) {
	f := &field{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.dir, err = os.MkdirTemp("", "pgdist-clients-"); err != nil {
		return nil, err
	}
	if err := os.CopyFS(f.dir, files); err != nil {
		return nil, err
	}
	all, err := pgtest.LaunchSet(4, pgtest.Options{})
	if err != nil {
		return nil, err
	}
	f.plain, f.servers = all[0], all[1:]
	var config mirror.Config
	var hosts []string
	for _, s := range f.servers {
		c, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			return nil, err
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, s.Addr())
	}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := mirror.Init(limited, config, mirror.InitOptions{}); err != nil {
		return nil, err
	}
	dsn := "pgdist://postgres@" + strings.Join(hosts, ",") + "/postgres?sslmode=disable&pool_rotate=on" // what depends on a connection and should not shows
	if f.gateway, err = gateway.Open(limited, gateway.Config{DSN: dsn, Auth: gateway.Trust}); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f.addr = l.Addr().String()
	go func() { _ = f.gateway.Serve(l) }() // ends with close
	return f, nil
}

func (f *field) close() error {
	var errs []error
	if f.gateway != nil {
		errs = append(errs, f.gateway.Close())
	}
	for _, s := range append(f.servers, f.plain) {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}

// programTime bounds one run of a program.
const programTime = 10 * time.Minute

// runOn runs a program on a server, or what looks like one, and returns what it prints, as
// far as that must be the same.
func (f *field) runOn(ctx context.Context, p program, addr string) []string {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	host, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	cmd.Dir = filepath.Join(f.dir, "programs")
	cmd.Env = append(environment(), "PGHOST="+host, "PGPORT="+port, "PGUSER=postgres", "PGDATABASE=postgres", "PGSSLMODE=disable",
		"TARGET_PORT="+strconv.Itoa(f.plain.Port()), "LC_ALL=C.UTF-8", "PSQL_PAGER=", "PYTHONHASHSEED=0", "PGX="+pgxDir())
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	var lines []string
	for _, line := range strings.Split(string(out), "\n") {
		if !own.MatchString(line) {
			lines = append(lines, strings.ReplaceAll(varies.ReplaceAllString(line, "…"), port, "PORT"))
		}
	}
	if p.keep != nil {
		lines = p.keep(lines)
	}
	if err != nil && p.keep == nil {
		lines = append(lines, failed+err.Error())
	}
	return lines
}

// failed begins the last line of a program that did not end well.
const failed = "the program failed: "

// environment is ours without what would lead programs elsewhere.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "PG") })
}

var (
	// own are lines that pgdist's triggers and schema add to descriptions of tables.
	own = regexp.MustCompile(`pgdist|^Triggers:|^Triggers firing always:`)
	// varies differs from run to run.
	varies = regexp.MustCompile(`\b(PID|pid) \d+|0x[0-9a-f]{6,}|[0-9.]+ ?ms\b|__asyncpg_\w+|\boid=\d+|(LOCATION: .*)`)
)

// pgxDir is where pgx's module lies.
func pgxDir() string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/jackc/pgx/v5").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
