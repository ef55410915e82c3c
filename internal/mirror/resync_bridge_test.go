package mirror

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// issue makes a certificate by the issuer, or by itself, and returns both in PEM.
func issue(t *testing.T, name string, issuer *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, []byte, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: issuer == nil, BasicConstraintsValid: true}
	if issuer == nil {
		issuer, by = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// A member is copied over connections as its DSN has them: by TLS with the servers' issuer and a
// certificate of one's own in files that the DSN names, which is all that lets in here.
func TestResyncByTLS(t *testing.T) {
	for _, name := range []string{"PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLMODE", "PGPASSWORD"} {
		t.Setenv(name, "") // what the machine of the test says is no matter
		os.Unsetenv(name)
	}
	dir := t.TempDir()
	ca, caKey, caPEM, _ := issue(t, "issuer", nil, nil)
	_, _, mine, mineKey := issue(t, "postgres", ca, caKey)
	for name, text := range map[string][]byte{"ca.crt": caPEM, "me.crt": mine, "me.key": mineKey} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{t: t, servers: pgtest.Set(t, 3, pgtest.Options{})}
	for _, s := range r.servers {
		s.Exec(t, `CREATE TABLE t (k int PRIMARY KEY, v text)`)
		byCertificate(t, s, ca, caKey, caPEM)
		conn, err := pgconn.ParseConfig("host=127.0.0.1 port=" + s.Addr()[strings.LastIndexByte(s.Addr(), ':')+1:] + " user=postgres dbname=postgres sslmode=verify-full sslrootcert=" + dir + "/ca.crt sslcert=" + dir + "/me.crt sslkey=" + dir + "/me.key")
		if err != nil {
			t.Fatal(err)
		}
		r.cfg.Members = append(r.cfg.Members, MemberConfig{Conn: conn})
	}
	r.cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	unhurried(&r.cfg)
	if _, err := Init(r.ctx(), r.cfg, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	r.open()
	c := r.tlsClient()
	if _, err := c.Exec(r.ctx(), `INSERT INTO t VALUES (1, 'a')`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	r.ack()
	if _, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) { yes(o); o.Force = true }); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 || len(rep.Unread) > 0 {
		t.Errorf("%v %v", said(rep), rep.Unread)
	}
}

// A program that finds no server says why: the bridge's reason, not its own.
func TestBridgeTellsWhy(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // what others have left is no matter
	cfg, err := pgconn.ParseConfig("host=127.0.0.1 port=1 user=nobody dbname=none connect_timeout=5 sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := pgtest.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	out, err := (&tools{dump: filepath.Join(bin, "pg_dump"), encoding: utf8Name}).dumping(context.Background(), cfg, "--schema-only")
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || len(out) > 0 {
		t.Errorf("%q %v", out, err)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "pgdist-*", ".s.PGSQL.5432"))
	if err != nil || len(left) > 0 {
		t.Errorf("left are %v %v", left, err)
	}
}

func (r *rig) tlsClient() *pgconn.PgConn {
	r.t.Helper()
	c, err := pgconn.ConnectConfig(r.ctx(), r.cfg.Members[r.set.View().Leader-1].Conn)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// byCertificate has a server let in by certificates alone.
func byCertificate(t *testing.T, s *pgtest.Server, ca *x509.Certificate, caKey *ecdsa.PrivateKey, caPEM []byte) {
	t.Helper()
	_, _, cert, key := issue(t, "server", ca, caKey)
	admin := pgtest.Connect(t, s.DSN())
	for name, text := range map[string][]byte{"server.crt": cert, "server.key": key, "root.crt": caPEM, "pg_hba.conf": []byte("hostssl all all 127.0.0.1/32 cert\n")} {
		path := filepath.Join(s.DataDir(), name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(s.DataDir())
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, sql := range []string{"ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"} {
		if _, err := admin.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(ages); ; time.Sleep(20 * time.Millisecond) {
		var ssl string
		if err := admin.QueryRow(context.Background(), "SHOW ssl").Scan(&ssl); err != nil || time.Now().After(end) {
			t.Fatal(ssl, err)
		}
		if ssl == "on" {
			return
		}
	}
}
