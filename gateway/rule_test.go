package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// authority issues certificates.
type authority struct {
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	last int64
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{tb: tb, last: 1}
	a.key = newKey(tb)
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a.pem = a.sign(a.cert, a.key)
	block, _ := pem.Decode(a.pem)
	var err error
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil { // with what was added to it
		tb.Fatal(err)
	}
	return a
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	a.tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		a.tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issue makes a certificate for a name, good until then, and its key.
func (a *authority) issue(name string, until time.Time) (cert, key []byte) {
	a.tb.Helper()
	subject, err := asn1.Marshal(pkix.Name{CommonName: name}.ToRDNSequence())
	if err != nil {
		a.tb.Fatal(err)
	}
	return a.issueTo(subject, until)
}

// issueTo is issue for a whole distinguished name, in DER.
func (a *authority) issueTo(subject []byte, until time.Time) (cert, key []byte) {
	a.tb.Helper()
	k := newKey(a.tb)
	a.last++
	cert = a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(a.last), RawSubject: subject, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, k)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.tb.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// files writes a certificate and its key beside each other and returns libpq's parameters for them.
func (a *authority) files(dir, name string, until time.Time) string {
	a.tb.Helper()
	cert, key := a.issue(name, until)
	return a.write(dir, strings.ReplaceAll(name, " ", "_")+fmt.Sprint(a.last), cert, key)
}

// write is files for a certificate that there is already.
func (a *authority) write(dir, name string, cert, key []byte) string {
	a.tb.Helper()
	path := filepath.Join(dir, name)
	for suffix, text := range map[string][]byte{".crt": cert, ".key": key} {
		if err := os.WriteFile(path+suffix, text, 0o600); err != nil {
			a.tb.Fatal(err)
		}
	}
	return fmt.Sprintf("sslcert=%[1]s.crt sslkey=%[1]s.key", path)
}

// revoked is the authority's list of certificates, by their numbers, in PEM.
func (a *authority) revoked(numbers ...int64) string {
	a.tb.Helper()
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, n := range numbers {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: list.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// tls is what the gateway offers; it checks certificates of a's.
func (a *authority) tls() *tls.Config {
	a.tb.Helper()
	cert, key := a.issue("gateway", time.Now().Add(time.Hour))
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		a.tb.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: x509.NewCertPool()}
	c.ClientCAs.AppendCertsFromPEM(a.pem)
	return c
}

// serverTLS has a server do TLS, check clients' certificates, and let in whom rules say.
func serverTLS(tb testing.TB, s *pgtest.Server, a *authority, rules, ident string) {
	tb.Helper()
	cert, key := a.issue("server", time.Now().Add(time.Hour))
	admin := connect(tb, s.DSN()) // before the rules change
	for name, text := range map[string]string{"server.crt": string(cert), "server.key": string(key), "root.crt": string(a.pem), "pg_hba.conf": rules, "pg_ident.conf": ident} {
		writeAs(tb, filepath.Join(s.DataDir(), name), text)
	}
	for _, sql := range []string{"ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"} {
		if _, err := admin.Exec(context.Background(), sql); err != nil {
			tb.Fatal(err)
		}
	}
	for end := time.Now().Add(ages); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var ssl string
		if err := admin.QueryRow(context.Background(), "SHOW ssl").Scan(&ssl); err != nil {
			tb.Fatal(err)
		}
		if ssl == "on" {
			return
		}
	}
	tb.Fatal("the server does no TLS")
}

// writeAs writes a file that is its directory's owner's.
func writeAs(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		tb.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
			tb.Fatal(err)
		}
	}
}

const ruleUsers = `CREATE ROLE staff; CREATE ROLE ann LOGIN PASSWORD 'pw' IN ROLE staff; CREATE ROLE carl LOGIN PASSWORD 'pw';
	SET password_encryption = 'md5'; CREATE ROLE bob LOGIN PASSWORD 'pw'; CREATE ROLE dan LOGIN PASSWORD 'pw'; RESET password_encryption; CREATE ROLE eve LOGIN`

// TestRules tries the same rules on a plain server and through the gateway, and compares who is
// let in, and what is said to the others.
func TestRules(t *testing.T) {
	const rules = `
		local   all            all                   trust
		host    all            postgres  127.0.0.1/32 trust
		host    all            eve       10.0.0.0/8   trust
		hostnossl all          +staff    samehost     reject
		hostssl all            carl      127.0.0.1/32 cert map=m
		hostssl all            dan       127.0.0.1/32 md5 clientcert=verify-full
		hostssl all            ann       127.0.0.1/32 scram-sha-256 clientcert=verify-ca
		host    postgres       bob,nobody 127.0.0.0 255.0.0.0 md5
		host    elsewhere      carl      127.0.0.1/32 scram-sha-256
		host    sameuser       all       all          trust`
	const ident = "m mapped carl\nm carl carl\n"
	a, b := newAuthority(t), newAuthority(t)
	plain, s := pgtest.Start(t, pgtest.Options{}), newSet(t, nil)
	for _, dsn := range []string{plain.DSN(), s.url("")} {
		if _, err := connect(t, dsn).Exec(context.Background(), ruleUsers, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	serverTLS(t, plain, a, rules, ident)
	for _, server := range s.servers { // the gateway must prove what its clients have proved
		writeAs(t, filepath.Join(server.DataDir(), "pg_hba.conf"), "host all ann 127.0.0.1/32 scram-sha-256\nhost all bob,dan 127.0.0.1/32 md5\nhost all all 127.0.0.1/32 trust\n")
		reload(t, server.DSN())
	}
	maps, err := ParseIdent("test", ident)
	if err != nil {
		t.Fatal(err)
	}
	s.serve(t, func(c *Config) { c.Auth, c.HBA, c.Ident, c.TLS = "", rulesOf(t, rules), maps, a.tls() })
	dir := t.TempDir()
	later := time.Now().Add(time.Hour)
	cert := map[string]string{
		"": "", "carl": a.files(dir, "carl", later), "ann": a.files(dir, "ann", later), "dan": a.files(dir, "dan", later), "mapped": a.files(dir, "mapped", later),
		"foreign": b.files(dir, "carl", later), "old": a.files(dir, "carl", time.Now().Add(-time.Hour)),
	}
	try := func(addr, user, db, password, mode, who string) string {
		host, port, _ := net.SplitHostPort(addr)
		conn, err := pgconn.Connect(context.Background(), fmt.Sprintf("host=%s port=%s user=%s dbname=%s password='%s' sslmode=%s %s", host, port, user, db, password, mode, cert[who]))
		var pe *pgconn.PgError
		switch {
		case errors.As(err, &pe):
			return fmt.Sprintf("%s %s %s", pe.Severity, pe.Code, pe.Message)
		case err != nil:
			return "no connection" // TLS says it in its own way
		}
		defer conn.Close(context.Background())
		r, err := conn.Exec(context.Background(), "SELECT session_user").ReadAll()
		if err != nil {
			return err.Error()
		}
		return "is " + string(r[0].Rows[0][0])
	}
	for _, c := range []struct{ user, db, password, mode, cert, want string }{
		{"postgres", "postgres", "", "disable", "", "is postgres"},
		{"eve", "postgres", "", "disable", "", `FATAL 28000 no pg_hba.conf entry for host "127.0.0.1", user "eve", database "postgres", no encryption`},
		{"eve", "postgres", "", "require", "", `FATAL 28000 no pg_hba.conf entry for host "127.0.0.1", user "eve", database "postgres", SSL encryption`},
		{"ann", "postgres", "pw", "disable", "", `FATAL 28000 pg_hba.conf rejects connection for host "127.0.0.1", user "ann", database "postgres", no encryption`},
		{"ann", "postgres", "pw", "require", "", "FATAL 28000 connection requires a valid client certificate"},
		{"ann", "postgres", "pw", "require", "carl", "is ann"},
		{"ann", "postgres", "wrong", "require", "ann", `FATAL 28P01 password authentication failed for user "ann"`},
		{"carl", "postgres", "", "require", "carl", "is carl"},
		{"carl", "postgres", "", "require", "mapped", "is carl"},
		{"carl", "postgres", "", "require", "ann", `FATAL 28000 certificate authentication failed for user "carl"`},
		{"carl", "postgres", "", "require", "", "FATAL 28000 connection requires a valid client certificate"},
		{"carl", "postgres", "", "require", "foreign", "no connection"},
		{"carl", "postgres", "", "require", "old", "no connection"},
		{"carl", "postgres", "pw", "disable", "", `FATAL 28000 no pg_hba.conf entry for host "127.0.0.1", user "carl", database "postgres", no encryption`},
		{"dan", "postgres", "pw", "require", "dan", "is dan"},
		{"dan", "postgres", "pw", "require", "ann", `FATAL 28P01 password authentication failed for user "dan"`},
		{"bob", "postgres", "pw", "disable", "", "is bob"},
		{"bob", "postgres", "pw", "require", "", "is bob"},
		{"bob", "postgres", "wrong", "disable", "", `FATAL 28P01 password authentication failed for user "bob"`},
		{"nobody", "postgres", "pw", "disable", "", `FATAL 28P01 password authentication failed for user "nobody"`},
		{"bob", "bob", "", "disable", "", `FATAL 3D000 database "bob" does not exist`},
		{"carl", "elsewhere", "pw", "disable", "", `FATAL 3D000 database "elsewhere" does not exist`},
		{"carl", "elsewhere", "wrong", "disable", "", `FATAL 28P01 password authentication failed for user "carl"`},
	} {
		want, got := try(plain.Addr(), c.user, c.db, c.password, c.mode, c.cert), try(s.addr, c.user, c.db, c.password, c.mode, c.cert)
		if want != got || want != c.want {
			t.Errorf("%+v:\nPostgreSQL %s\nthe gateway %s", c, want, got)
		}
	}
	t.Run("reload", func(t *testing.T) {
		config := *s.gateway.conf()
		config.HBA, config.TLS = rulesOf(t, rules), b.tls()
		if _, err := s.gateway.Reload(context.Background(), config); err != nil {
			t.Fatal(err)
		}
		if got := try(s.addr, "carl", "postgres", "", "require", "foreign"); got != "is carl" {
			t.Errorf("a certificate of the new authority's: %s", got)
		}
		if got := try(s.addr, "carl", "postgres", "", "require", "carl"); got != "no connection" {
			t.Errorf("a certificate of the old authority's: %s", got)
		}
		config.HBA = rulesOf(t, "host all postgres all trust")
		if _, err := s.gateway.Reload(context.Background(), config); err != nil {
			t.Fatal(err)
		}
		if got := try(s.addr, "bob", "postgres", "pw", "disable", ""); !strings.HasPrefix(got, "FATAL 28000 no pg_hba.conf entry") {
			t.Errorf("after the rules have changed: %s", got)
		}
		config.HBA, config.Ident = rulesOf(t, "hostssl all all all cert map=nosuch"), nil
		if _, err := s.gateway.Reload(context.Background(), config); err == nil || !strings.Contains(err.Error(), `there is no map "nosuch"`) {
			t.Errorf("a rule that cannot work: %v", err)
		}
		config.HBA, config.TLS = rulesOf(t, "hostssl all all all cert"), nil
		if _, err := s.gateway.Reload(context.Background(), config); err == nil || !strings.Contains(err.Error(), "tls.client_ca") {
			t.Errorf("a rule that cannot work: %v", err)
		}
	})
}

// TestKnownHash has the gateway log in by what its configuration says, for a client who is trusted.
func TestKnownHash(t *testing.T) {
	s := newSet(t, nil)
	if _, err := connect(t, s.url("")).Exec(context.Background(), ruleUsers, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	for _, server := range s.servers {
		writeAs(t, filepath.Join(server.DataDir(), "pg_hba.conf"), "host all bob 127.0.0.1/32 md5\nhost all all 127.0.0.1/32 trust\n")
		reload(t, server.DSN())
	}
	users := map[string]string{"bob": md5Answer("pw", []byte("bob"))} // as pg_authid has it
	if err := (Config{DSN: s.dsn, Users: users}).Validate(); err == nil || !strings.Contains(err.Error(), "md5 hash") {
		t.Errorf("a hash that no rule is for: %v", err)
	}
	for _, c := range []struct {
		users map[string]string
		want  string
	}{{users, ""}, {nil, "28P01"}} {
		s.serve(t, func(config *Config) {
			config.Users, config.HBA = c.users, rulesOf(t, "host all all all trust\nhost all all all md5")
		})
		conn, err := pgx.Connect(context.Background(), fmt.Sprintf("postgres://bob@%s/postgres?sslmode=disable", s.addr))
		if err == nil {
			_ = conn.Close(context.Background())
		}
		if err == nil && c.want != "" || err != nil && code(err) != c.want {
			t.Errorf("%v: %v, want %q", c.users, err, c.want)
		}
	}
}

// TestTrustIsLocal: a rule that trusts everybody trusts nobody from elsewhere unless forced.
func TestTrustIsLocal(t *testing.T) {
	own := ""
	for _, p := range ownPrefixes() {
		if !p.Addr().IsLoopback() && p.Addr().Is4() {
			own = p.Addr().String()
		}
	}
	s := newSet(t, func(c *Config) { c.HBA = rulesOf(t, "host all all all trust") })
	if own == "" {
		t.Log("this machine has no other address than 127.0.0.1, so a peer stands for one")
		own = "10.1.2.3"
	}
	st := &starting{server: s.gateway, config: s.gateway.conf(), conn: &peerAt{addr: &net.TCPAddr{IP: net.ParseIP(own)}}}
	if _, err := st.rule(context.Background(), "postgres", "postgres"); code(err) != "28000" {
		t.Errorf("a client at %s: %v", own, err)
	}
	forced := *s.gateway.conf()
	forced.TrustRemote = true
	st.config = &forced
	if _, err := st.rule(context.Background(), "postgres", "postgres"); err != nil {
		t.Error(err)
	}
}

// peerAt is a connection from an address.
type peerAt struct {
	net.Conn
	addr net.Addr
}

func (f *peerAt) RemoteAddr() net.Addr { return f.addr }

// TestServersTakeCertificates has the gateway log in to servers by a certificate of its own: as
// its own user, and as those of clients whom it believes without a password.
func TestServersTakeCertificates(t *testing.T) {
	a := newAuthority(t)
	s := newSet(t, nil)
	if _, err := connect(t, s.url("")).Exec(context.Background(), ruleUsers, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	for _, server := range s.servers {
		serverTLS(t, server, a, "hostssl all carl,postgres 127.0.0.1/32 cert map=gw\nhost all postgres 127.0.0.1/32 trust\nhost all ann 127.0.0.1/32 scram-sha-256\n", "gw pgdist postgres\ngw pgdist carl\n")
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root.crt")
	if err := os.WriteFile(root, a.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	files := a.files(dir, "pgdist", time.Now().Add(time.Hour))
	plain := s.dsn
	s.dsn = strings.Replace(s.dsn, "sslmode=disable", "sslmode=verify-full&sslrootcert="+root+"&"+strings.ReplaceAll(files, " ", "&"), 1)
	s.serve(t, func(c *Config) {
		c.HBA, c.Databases = rulesOf(t, "host all carl,postgres all trust\nhost other all all trust\nhost all all all scram-sha-256"), []string{"other"}
		c.Logger = slog.New(slog.DiscardHandler)
	})
	ask := func(user, password string) (who, secured string, err error) {
		conn, err := pgx.Connect(context.Background(), fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", user, password, s.addr))
		if err != nil {
			return "", "", err
		}
		defer conn.Close(context.Background())
		err = conn.QueryRow(context.Background(), "SELECT session_user, coalesce(client_dn, 'no certificate') FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&who, &secured)
		return who, secured, err
	}
	for _, user := range []string{"postgres", "carl"} {
		if who, secured, err := ask(user, ""); err != nil || who != user || secured != "/CN=pgdist" && user == "postgres" {
			t.Errorf("%s: %s %s %v", user, who, secured, err)
		}
	}
	if who, _, err := ask("ann", "pw"); err != nil || who != "ann" {
		t.Errorf("ann: %s %v", who, err)
	}
	for range 3 { // who is trusted brings no key for ann, and takes none away
		conn := connect(t, fmt.Sprintf("postgres://ann@%s/other?sslmode=disable", s.addr))
		if _, err := conn.Exec(context.Background(), "BEGIN; SELECT txid_current()", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Error(err)
		}
	}
	s.dsn = plain // without the certificate the servers do not believe the gateway
	s.serve(t, func(c *Config) { c.HBA = rulesOf(t, "host all all all trust") })
	if _, _, err := ask("carl", ""); code(err) != "28000" {
		t.Errorf("without a certificate: %v", err)
	}
}

// TestPasswordsOfUsers: whose password, or verifier, is in the configuration logs in by it.
func TestPasswordsOfUsers(t *testing.T) {
	v, err := newVerifier("hers", []byte("sixteen of these"), scramIterations)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString
	hers := fmt.Sprintf("%s$%d:%s$%s:%s", mechanism, v.iterations, text(v.salt), text(v.stored), text(v.server))
	s := newSet(t, func(c *Config) {
		c.HBA, c.Users = rulesOf(t, "host all joe,ann all scram-sha-256\nhost all all all trust"), map[string]string{"joe": "secret", "ann": hers}
	})
	execute(t, connect(t, s.url("")), "CREATE ROLE joe LOGIN PASSWORD 'secret'; CREATE ROLE ann LOGIN PASSWORD '"+hers+"'")
	for _, server := range s.servers {
		requireScram(t, server.DataDir(), "joe,ann")
		reload(t, server.DSN())
	}
	log := func(user, password string) error {
		conn, err := pgx.Connect(context.Background(), fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", user, password, s.addr))
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		if who := ask(t, conn, "SELECT session_user"); who != user {
			t.Errorf("%s is %s", user, who)
		}
		return nil
	}
	for user, password := range map[string]string{"joe": "secret", "ann": "hers"} {
		if err := log(user, password); err != nil {
			t.Errorf("%s: %v", user, err)
		}
		if err := log(user, "wrong"); code(err) != "28P01" {
			t.Errorf("%s with another password: %v", user, err)
		}
	}
}
