//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// output is what a command that runs on says, safe to look at meanwhile.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// wait waits until the command has said it, and returns the first group.
func (o *output) wait(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(ages); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if m := re.FindStringSubmatch(o.String()); m != nil {
			return m[len(m)-1]
		}
	}
	t.Fatalf("%s is not said:\n%s", pattern, o)
	return ""
}

// certify writes a certificate that is good for localhost, and its key.
func certify(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, "server."+name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serial is the number of the certificate that a gateway shows.
func serial(t *testing.T, addr string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// TestGatewayRun runs the command with a file, tells it to read it again by SIGHUP and by
// the console, and stops it from the console. systemd hears of all that.
func TestGatewayRun(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	pgdist(t, "init", dsn("postgres", three...)).want(t, statusOK)
	dir := t.TempDir()
	certify(t, dir, 1)
	file := filepath.Join(dir, "pgdist.yaml")
	write := func(more string) {
		t.Helper()
		text := fmt.Sprintf("gateway:\n  listen: ['127.0.0.1:0']\n  admin: '127.0.0.1:0'\n  tls: {cert: %[1]s/server.crt, key: %[1]s/server.key}\n%s", dir, more)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("  users: {boss: secret, postgres: pw}\n  admins: [boss]\n")
	said := make(chan string, 100)
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	go func() {
		var b [1000]byte
		for {
			n, err := notified.Read(b[:])
			if err != nil {
				return
			}
			said <- string(b[:n])
		}
	}()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	hears := func(want string) {
		t.Helper()
		select {
		case got := <-said:
			if !strings.HasPrefix(got, want) {
				t.Fatalf("systemd hears %q, want %q", got, want)
			}
		case <-time.After(ages):
			t.Fatalf("systemd does not hear %s", want)
		}
	}

	out, errs, done := &output{}, &output{}, make(chan int, 1)
	ctx, cancel := context.WithTimeout(t.Context(), ages)
	defer cancel()
	go func() {
		done <- run(ctx, []string{"gateway", dsn("postgres", three...), "--config", file}, strings.NewReader(""), out, errs)
	}()
	hears("READY=1")
	addr, admin := out.wait(t, `serving at (\S+)`), out.wait(t, `status at (\S+)`)
	if r, err := http.Get("http://" + admin + "/readyz"); err != nil || r.StatusCode != 200 {
		t.Errorf("readyz: %v %v", r, err)
	}
	url := func(user, password, db string) string {
		return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=require", user, password, addr, db)
	}
	client, err := pgx.Connect(ctx, url("postgres", "pw", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(ctx)
	boss, err := pgx.Connect(ctx, url("boss", "secret", "pgdist"))
	if err != nil {
		t.Fatal(err)
	}
	defer boss.Close(ctx)
	if _, err := pgx.Connect(ctx, url("postgres", "pw", "pgdist")); err == nil {
		t.Error("postgres, who is no admin, is let into the console")
	}
	if got := serial(t, addr); got != 1 {
		t.Errorf("certificate %d", got)
	}

	certify(t, dir, 2)
	write("  users: {boss: secret, postgres: other}\n  admins: [boss, postgres]\n  max_prepared: 7\n  slow_statement: 1ms\n  log_level: debug\n")
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	hears("RELOADING=1")
	hears("READY=1")
	errs.wait(t, `settings=.*max_prepared`)
	if got := serial(t, addr); got != 2 {
		t.Errorf("certificate %d after SIGHUP", got)
	}
	again, err := pgx.Connect(ctx, url("postgres", "other", "pgdist"))
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close(ctx)
	if _, err := client.Exec(ctx, "SELECT pg_sleep(0.01), 'secret words', $1::text", "secret too"); err != nil {
		t.Fatal(err)
	}
	errs.wait(t, `slow statement.*SELECT pg_sleep\(\?\), \?, \$1::text`)
	if strings.Contains(errs.String(), "secret words") || strings.Contains(errs.String(), "secret too") {
		t.Error("values are in the log")
	}

	rules := filepath.Join(dir, "hba")
	for text, want := range map[string]string{"hostssl all all all scram-sha-256\nhost all boss nowhere scram-sha-256\n": "hba, line 2: address \"nowhere\"", "hostssl all all all cert\n": "tls.client_ca"} {
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		write("  users: {boss: secret, postgres: other}\n  admins: [boss, postgres]\n  hba_file: " + rules + "\n")
		if _, err := boss.Exec(ctx, "RELOAD"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("RELOAD with a wrong rule: %v", err)
		}
		hears("RELOADING=1")
		hears("READY=1")
	}
	if again, err = pgx.Connect(ctx, url("postgres", "other", "pgdist")); err != nil {
		t.Errorf("after rules were refused: %v", err)
	} else {
		_ = again.Close(ctx)
	}

	write("  max_cliets: 5\n")
	if _, err := boss.Exec(ctx, "RELOAD"); err == nil || !strings.Contains(err.Error(), "max_clients") {
		t.Errorf("RELOAD of a broken file: %v", err)
	}
	if err := client.Ping(ctx); err != nil {
		t.Error(err)
	}
	hears("RELOADING=1")
	hears("READY=1")
	if _, err := boss.Exec(ctx, "SHUTDOWN"); err != nil {
		t.Fatal(err)
	}
	hears("STOPPING=1")
	if code := <-done; code != statusOK {
		t.Errorf("exit status %d: %s", code, errs)
	}
}

// TestInheritedSockets hands two sockets over as systemd does, to a process of its own.
func TestInheritedSockets(t *testing.T) {
	if os.Getenv("PGDIST_TEST_INHERITS") != "" {
		if err := os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid())); err != nil {
			t.Fatal(err)
		}
		clients, admins, err := inherited()
		if err != nil || len(clients) != 1 || len(admins) != 1 || os.Getenv("LISTEN_FDS") != "" {
			t.Fatalf("%v %v %v", clients, admins, err)
		}
		fmt.Printf("clients %s admins %s\n", clients[0].Addr(), admins[0].Addr())
		return
	}
	var files []*os.File
	var addrs []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, addrs = append(files, f), append(addrs, l.Addr().String())
	}
	p, err := os.StartProcess(os.Args[0], []string{os.Args[0], "-test.run=^TestInheritedSockets$", "-test.v"}, &os.ProcAttr{
		Env:   append(os.Environ(), "PGDIST_TEST_INHERITS=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=admin:clients"),
		Files: append([]*os.File{nil, os.Stdout, os.Stderr}, files...),
	})
	if err != nil {
		t.Fatal(err)
	}
	state, err := p.Wait()
	if err != nil || !state.Success() {
		t.Fatalf("%v %v (sockets %v)", state, err, addrs)
	}
}
