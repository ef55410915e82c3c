package gateway

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/crl"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// value is an attribute of a distinguished name.
type value struct {
	oid  string
	tag  int
	text string
}

// subject makes the DER of a distinguished name, most general part first.
func subject(t *testing.T, parts ...[]value) []byte {
	t.Helper()
	var sets []rdnSET
	for _, part := range parts {
		var set rdnSET
		for _, v := range part {
			var oid asn1.ObjectIdentifier
			for _, n := range strings.Split(v.oid, ".") {
				var k int
				if _, err := fmt.Sscan(n, &k); err != nil {
					t.Fatal(err)
				}
				oid = append(oid, k)
			}
			set = append(set, nameAttribute{oid, asn1.RawValue{Tag: v.tag, Bytes: []byte(v.text)}})
		}
		sets = append(sets, set)
	}
	der, err := asn1.Marshal(sets)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestDistinguishedName compares names with what OpenSSL writes in a PostgreSQL server: an entry of
// its map is the name as the gateway writes it. Then certificates are revoked, there and here.
func TestDistinguishedName(t *testing.T) {
	const utf8, printable, ia5 = asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String
	cn := []value{{"2.5.4.3", utf8, "carl"}}
	cases := []struct {
		name, want string
		subject    []byte
	}{
		{"plain", "CN=carl,OU=shop,O=Example,C=DE", subject(t, []value{{"2.5.4.6", printable, "DE"}}, []value{{"2.5.4.10", utf8, "Example"}}, []value{{"2.5.4.11", utf8, "shop"}}, cn)},
		{"characters", `CN=carl,OU=\ #1\ ,OU=\#a#b,O=\C3\9C \"x\"\, a\+b\\c \<\>\;=\0A\7F~`, subject(t, []value{{"2.5.4.10", utf8, "Ü \"x\", a+b\\c <>;=\n\x7f~"}}, []value{{"2.5.4.11", utf8, "#a#b"}}, []value{{"2.5.4.11", utf8, " #1 "}}, cn)},
		{"several in one", "UID=77+CN=carl,DC=example,DC=org", subject(t, []value{{"0.9.2342.19200300.100.1.25", ia5, "org"}}, []value{{"0.9.2342.19200300.100.1.25", ia5, "example"}},
			[]value{{"0.9.2342.19200300.100.1.1", utf8, "77"}, cn[0]})},
		{"mail", "emailAddress=carl@example.org,CN=carl,street=x,ST=y,L=z,serialNumber=5,SN=s,GN=g,title=t", subject(t, []value{{"2.5.4.12", utf8, "t"}}, []value{{"2.5.4.42", utf8, "g"}}, []value{{"2.5.4.4", utf8, "s"}},
			[]value{{"2.5.4.5", printable, "5"}}, []value{{"2.5.4.7", utf8, "z"}}, []value{{"2.5.4.8", utf8, "y"}}, []value{{"2.5.4.9", utf8, "x"}}, cn, []value{{"1.2.840.113549.1.9.1", ia5, "carl@example.org"}})},
		{"unknown", "1.2.3.4=#0C0178,CN=carl", subject(t, cn, []value{{"1.2.3.4", utf8, "x"}})},
	}
	const rules = "hostssl all carl 127.0.0.1/32 cert clientname=DN map=dn\nhostssl all other 127.0.0.1/32 cert clientname=CN map=cn\nhost all all 127.0.0.1/32 trust\n"
	a, dir, later := newAuthority(t), t.TempDir(), time.Now().Add(time.Hour)
	ident := "cn /^c(.*)l$ \\1\ndn \"/^CN=pattern,OU=([a-z]+)$\" \\1\n"
	certs, numbers := map[string]string{}, map[string]int64{}
	add := func(name string, der []byte) {
		cert, key := a.issueTo(der, later)
		certs[name], numbers[name] = a.write(dir, strings.ReplaceAll(name, " ", "_"), cert, key), a.last
		block, _ := pem.Decode(cert)
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			if c.name == name {
				dn, err := distinguishedName(parsed)
				if err != nil || dn != c.want {
					t.Errorf("%s: %s %v\nwant %s", name, dn, err, c.want)
				}
			}
		}
	}
	for _, c := range cases {
		add(c.name, c.subject)
		ident += "dn \"" + strings.ReplaceAll(c.want, `"`, `""`) + "\" carl\n"
	}
	add("pattern", subject(t, []value{{"2.5.4.11", utf8, "carl"}}, []value{{"2.5.4.3", utf8, "pattern"}}))
	add("pattern of another", subject(t, []value{{"2.5.4.11", utf8, "dan"}}, []value{{"2.5.4.3", utf8, "pattern"}}))
	add("cn", subject(t, []value{{"2.5.4.11", utf8, "x"}}, []value{{"2.5.4.3", utf8, "cotherl"}}))

	plain, s := pgtest.Start(t, pgtest.Options{}), newSet(t, nil)
	for _, dsn := range []string{plain.DSN(), s.url("")} {
		execute(t, connect(t, dsn), "CREATE USER carl; CREATE USER other")
	}
	path := filepath.Join(dir, "lists.pem")
	publish := func(text string) {
		t.Helper()
		writeAs(t, filepath.Join(plain.DataDir(), "lists.pem"), text)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		reload(t, plain.DSN())
	}
	publish(a.revoked())
	admin := connect(t, plain.DSN())
	execute(t, admin, "ALTER SYSTEM SET ssl_crl_file = 'lists.pem'")
	serverTLS(t, plain, a, rules, ident)
	maps, err := ParseIdent("test", ident)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := crl.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	s.serve(t, func(c *Config) {
		c.Auth, c.HBA, c.Ident, c.TLS = "", rulesOf(t, rules), maps, a.tls()
		c.TLS.VerifyConnection = lists.CheckClient
	})
	try := func(addr, user, cert string) string {
		host, port, _ := net.SplitHostPort(addr)
		conn, err := pgconn.Connect(context.Background(), fmt.Sprintf("host=%s port=%s user=%s dbname=postgres sslmode=require %s", host, port, user, certs[cert]))
		var pe *pgconn.PgError
		switch {
		case errors.As(err, &pe):
			return pe.Code + " " + pe.Message
		case err != nil:
			return "no connection"
		}
		_ = conn.Close(context.Background())
		return "in"
	}
	both := func(user, cert, want string) {
		t.Helper()
		if theirs, ours := try(plain.Addr(), user, cert), try(s.addr, user, cert); theirs != want || ours != want {
			t.Errorf("%s with %q: want %s\nPostgreSQL  %s\nthe gateway %s", user, cert, want, theirs, ours) // the server's log has what it calls the client
		}
	}
	refused := func(user string) string { return `28000 certificate authentication failed for user "` + user + `"` }
	for _, c := range cases {
		if c.name != "unknown" { // PostgreSQL 15 falls over it
			both("carl", c.name, "in")
		}
	}
	both("carl", "pattern", "in")
	both("carl", "pattern of another", refused("carl"))
	both("carl", "cn", refused("carl"))
	both("other", "cn", "in")
	both("other", "plain", refused("other"))
	publish(a.revoked(numbers["plain"]))
	both("carl", "plain", "no connection")
	both("carl", "mail", "in")
	both("postgres", "plain", "no connection") // though its rule asks for none
	both("postgres", "", "in")
	publish(newAuthority(t).revoked())
	both("carl", "mail", "no connection")
	both("postgres", "", "in")
}

// TestPeer believes the operating system about who is at the other end of a Unix socket.
func TestPeer(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	maps, err := ParseIdent("test", "m "+me.Username+" mapped\nm nobody-at-all unmapped\n")
	if err != nil {
		t.Fatal(err)
	}
	const rules = "local all mapped,unmapped peer map=m\nlocal all all peer\nhost all all all trust"
	s := newSet(t, func(c *Config) { c.Auth, c.HBA, c.Ident = "", rulesOf(t, rules), maps })
	execute(t, connect(t, s.url("")), fmt.Sprintf("CREATE USER mapped; CREATE USER unmapped; CREATE USER another; CREATE USER %s", pgx.Identifier{me.Username}.Sanitize()))
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.6432"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.gateway.Serve(l) }()
	for name, want := range map[string]string{
		me.Username: "", "mapped": "", "unmapped": `Peer authentication failed for user "unmapped"`, "another": `Peer authentication failed for user "another"`,
	} {
		conn, err := pgconn.Connect(context.Background(), fmt.Sprintf("host=%s port=6432 user='%s' dbname=postgres", dir, name))
		var pe *pgconn.PgError
		switch {
		case err == nil && want == "":
			_ = conn.Close(context.Background())
		case !errors.As(err, &pe) || pe.Code != "28000" || pe.Message != want:
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestServersRevoked: a server is not talked to whose certificate is revoked.
func TestServersRevoked(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	s := newSet(t, nil)
	var numbers []int64
	for _, server := range s.servers {
		serverTLS(t, server, a, "host all all 127.0.0.1/32 trust\n", "")
		numbers = append(numbers, a.last)
	}
	root, path := filepath.Join(dir, "root.crt"), filepath.Join(dir, "lists.pem")
	for name, text := range map[string]string{root: string(a.pem), path: a.revoked()} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain := s.dsn
	for _, mode := range []string{"verify-full", "verify-ca"} {
		if err := os.WriteFile(path, []byte(a.revoked()), 0o600); err != nil {
			t.Fatal(err)
		}
		s.dsn = strings.Replace(plain, "sslmode=disable", "sslmode="+mode+"&sslrootcert="+root+"&sslcrl="+path, 1)
		s.serve(t, nil)
		if got := ask(t, connect(t, s.url("")), "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); got != "true" {
			t.Errorf("over TLS: %s", got)
		}
		if err := os.WriteFile(path, []byte(a.revoked(numbers...)), 0o600); err != nil {
			t.Fatal(err)
		}
		limited, stop := context.WithTimeout(context.Background(), patience)
		g, err := Open(limited, Config{DSN: s.dsn, Auth: Trust, Logger: slog.New(slog.DiscardHandler)})
		stop()
		if err == nil || !strings.Contains(err.Error(), "the certificate is revoked: CN=server") {
			t.Errorf("%s: servers that are revoked: %v", mode, err)
		}
		if g != nil {
			_ = g.Close()
		}
	}
}
