package engine

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// cleanEnv keeps the machine's own PG* variables and files out of a test.
func cleanEnv(t *testing.T) {
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("PGPASSFILE", filepath.Join(t.TempDir(), "none"))
}

// addresses lists user:password@host:port/database of each member.
func addresses(c Config) []string {
	var list []string
	for _, m := range c.Members {
		list = append(list, fmt.Sprintf("%s:%s@%s/%s", m.Conn.User, m.Conn.Password, hostPort(m.Conn), m.Conn.Database))
	}
	return list
}

func TestParseForms(t *testing.T) {
	cleanEnv(t)
	want := []string{"u:p@h1:5432/db", "u:p@h2:5433/db", "u:p@[::1]:5434/db"}
	for _, dsn := range []string{
		"pgdist://u:p@h1,h2:5433,[::1]:5434/db",
		"postgres://u:p@h1:5432,h2:5433,[::1]:5434/db?sslmode=disable",
		"host=h1,h2,::1 port=5432,5433,5434 user=u password=p dbname=db",
		"host='h1,h2,::1' port='5432,5433,5434' user=u password='p' dbname=db sslmode=require",
		"pgdist:///db?host=h1,h2,::1&port=5432,5433,5434&user=u&password=p",
	} {
		c, err := Parse(dsn)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		if diff := cmp.Diff(want, addresses(c)); diff != "" {
			t.Errorf("%s: %s", dsn, diff)
		}
		for _, m := range c.Members {
			if m.Conn.ConnectTimeout != defaultConnectTimeout {
				t.Errorf("%s: connect timeout %v", dsn, m.Conn.ConnectTimeout)
			}
			if m.Conn.TLSConfig != nil && m.Conn.TLSConfig.ServerName != "" && m.Conn.TLSConfig.ServerName != m.Conn.Host {
				t.Errorf("%s: TLS name %s for %s", dsn, m.Conn.TLSConfig.ServerName, m.Conn.Host)
			}
		}
	}
}

func TestParseParameters(t *testing.T) {
	cleanEnv(t)
	c, err := Parse("pgdist://u@h1,h2,h3/db?balance=latency&consistency=strict&weights=2,1,0&pool_size=7&pool_max_idle=90&pool_wait_timeout=1.5s" +
		"&breaker_failures=5&probe_interval=1s&sync_timeout=2s&mirror_user=m&mirror_password=s&application_name=app&search_path=x&connect_timeout=3" +
		"&default_query_exec_mode=exec&failover_timeout=-1s")
	if err != nil {
		t.Fatal(err)
	}
	if c.Balance != Latency || c.Consistency != StrictLevel || c.Pool.Size != 7 || c.Pool.MaxIdle != 90*time.Second || c.Pool.WaitTimeout != 1500*time.Millisecond {
		t.Errorf("%+v", c)
	}
	if c.Health.Failures != 5 || c.Health.ProbeInterval != time.Second || c.Health.SyncTimeout != 2*time.Second || c.MirrorUser != "m" || c.MirrorPassword != "s" {
		t.Errorf("%+v", c.Health)
	}
	if c.withDefaults().FailoverTimeout != never {
		t.Error(c.FailoverTimeout)
	}
	weights := []int{}
	for _, m := range c.Members {
		weights = append(weights, m.effectiveWeight())
		if m.Conn.ConnectTimeout != 3*time.Second {
			t.Error(m.Conn.ConnectTimeout)
		}
		if diff := cmp.Diff(map[string]string{"application_name": "app", "search_path": "x"}, m.Conn.RuntimeParams); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff([]int{2, 1, 0}, weights); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{c.String(), fmt.Sprintf("%v", c), fmt.Sprintf("%#v", c)} {
		if strings.Contains(text, "mirror_password") || strings.Contains(text, ":s") {
			t.Errorf("tells a secret: %s", text)
		}
	}
}

func TestParseEnvironment(t *testing.T) {
	cleanEnv(t)
	t.Setenv("PGHOST", "e1,e2")
	t.Setenv("PGPORT", "6000,6001")
	t.Setenv("PGUSER", "eu")
	t.Setenv("PGDATABASE", "edb")
	passfile := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(passfile, []byte("e1:6000:edb:eu:one\ne2:6001:edb:eu:two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGPASSFILE", passfile)
	c, err := Parse("pool_size=3")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"eu:one@e1:6000/edb", "eu:two@e2:6001/edb"}, addresses(c)); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	cleanEnv(t)
	for dsn, want := range map[string]string{
		"":                                                            "empty",
		"pgdist://u@h1,h2/db?pool_sise=3":                             "did you mean pool_size?",
		"pgdist://u@h1,h2/db?balence=latency":                         "did you mean balance?",
		"pgdist://u@h1,h2/db?breaker_failure=3":                       "did you mean breaker_failures?",
		"pgdist://u@h1,h2/db?balance=fastest":                         `balance is "fastest"`,
		"pgdist://u@h1,h2/db?consistency=eventual":                    `consistency is "eventual"`,
		"pgdist://u@h1,h2/db?weights=1":                               "one for each",
		"pgdist://u@h1,h2/db?weights=1,x":                             "not a whole number",
		"pgdist://u@h1,h1/db":                                         "name each database once",
		"pgdist://u@h1,h2/db?pool_size=many":                          "not a whole number",
		"pgdist://u@h1,h2/db?pool_max_idle=long":                      "not a duration",
		"pgdist://u@h1,h2/db?breaker_failures=x":                      "failures",
		"pgdist://u@h1,h2/db?target_session_attrs=read-write":         "must be any",
		"pgdist://u@h1,h2/db?default_transaction_read_only=on":        "pgdist's own",
		"pgdist://u@h1,h2/db?mirror_password=secret":                  "without mirror_user",
		"pgdist://u@h1,h2/db?mirror_user=m&mirror_password=&balance=": "",
		"pgdist://u@h1:x/db":                                          "port",
		"pgdist://u@h1,h2/db?config=/does/not/exist.yaml":             "config file",
		"host=h1 nonsense":                                            "keyword/value",
	} {
		_, err := Parse(dsn)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", dsn, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", dsn, err, want)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: tells a secret: %v", dsn, err)
		}
	}
}

const exampleFile = `# members and what they are used for
user: app
password: "p 'x"
database: shop
balance: round_robin
pool:
  size: 9
  max_idle: 10s
breaker:
  failures: 4
sync_timeout: 4s
runtime:
  search_path: a, b
members:
  - host: h1
    weight: 2
  - host: h2:5433
    weight: 0
    breaker: {failures: 9}
  - {host: h3, port: 5434}
`

func TestFile(t *testing.T) {
	cleanEnv(t)
	path := filepath.Join(t.TempDir(), "pgdist.yaml")
	if err := os.WriteFile(path, []byte(exampleFile), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Parse("pgdist:///?config=" + path + "&pool_size=11&user=other")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"other:p 'x@h1:5432/shop", "other:p 'x@h2:5433/shop", "other:p 'x@h3:5434/shop"}
	if diff := cmp.Diff(want, addresses(c)); diff != "" {
		t.Error(diff)
	}
	if c.Pool.Size != 11 || c.Pool.MaxIdle != 10*time.Second || c.Balance != RoundRobin || c.Health.Failures != 4 || c.Health.SyncTimeout != 4*time.Second {
		t.Errorf("%+v", c)
	}
	if c.Members[0].effectiveWeight() != 2 || !c.Members[1].LastResort || c.Members[1].Health.Failures != 9 || c.Members[2].effectiveWeight() != 1 {
		t.Errorf("%+v", c.Members)
	}
	if got := c.Members[0].Conn.RuntimeParams["search_path"]; got != "a, b" {
		t.Error(got)
	}
}

func TestFileRefuses(t *testing.T) {
	cleanEnv(t)
	for text, want := range map[string]string{
		"balance: latency\npool:\n  sise: 3\n":    "line 3: unknown key pool_sise: did you mean pool_size?",
		"ballance: latency\n":                     "line 1: unknown key ballance: did you mean balance?",
		"members:\n  - host: h1\n    wieght: 1\n": "line 3: unknown key wieght of a member: did you mean weight?",
		"members:\n  - weight: 1\n":               "has no host",
		"members: h1\n":                           "must be a list",
		"pool_size: [1]\n":                        "must be a single value",
		"pool_size: x\n":                          "line 1: pool_size: not a whole number",
		"a: b: c\n":                               "config file",
		"- x\n":                                   "expected keys and values",
		"config: other.yaml\n":                    "unknown key config",
		"members:\n  - host: h1\n    breaker: {failures: x}\n": "line 3",
	} {
		f, err := parseFile("f.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v (%+v), want %q", text, err, f, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, dsn := range []string{"pgdist://u:p@h1,h2/db?pool_size=1", "host=a,b port=1,2", "pgdist://[::1]:1,/x?weights=1,2", "host='a\\'b'"} {
		f.Add(dsn)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		if strings.Contains(dsn, "config") || strings.Contains(dsn, "service") || strings.Contains(dsn, "ssl") || strings.Contains(dsn, "passfile") {
			return // these read files
		}
		c, err := Parse(dsn)
		if err == nil && (len(c.Members) == 0 || c.Validate() != nil) {
			t.Errorf("%q: accepted, and yet wrong: %v", dsn, c.Validate())
		}
	})
}

// What bounds locks and the journal reaches the mirror, units and all.
func TestParseBounds(t *testing.T) {
	cleanEnv(t)
	c, err := Parse("pgdist://h1,h2/db?ddl_conflict_timeout=1500ms&journal_max_size=2GB&journal_max_age=24h")
	if err != nil {
		t.Fatal(err)
	}
	if m := c.mirror(); m.BlockedTimeout != 1500*time.Millisecond || m.JournalMax != 2<<30 || m.JournalMaxAge != 24*time.Hour || m.Validate() != nil {
		t.Errorf("%+v, %v", m, m.Validate())
	}
	for param, want := range map[string]string{
		"ddl_conflict_timeout=-1s":   "must not be negative",
		"journal_max_size=2gallons":  "not a number of bytes",
		"journal_max_size=1MB":       "at least 256MB",
		"journal_max_size=-1":        "at least 256MB",
		"journal_max_size=9000000TB": "not a number of bytes",
		"journal_max_age=1s":         "at least 30m",
		"journal_max_agee=1h":        "did you mean journal_max_age?",
	} {
		if _, err := Parse("pgdist://h1,h2/db?" + param); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", param, err, want)
		}
	}
}

// Lists of revoked certificates are for certificates that are verified, and are no setting of the server's.
func TestParseRevoked(t *testing.T) {
	cleanEnv(t)
	dir := t.TempDir()
	nothing := filepath.Join(dir, "nothing")
	if err := os.WriteFile(nothing, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "revoked.pem")
	if err := os.WriteFile(list, emptyList(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for params, want := range map[string]string{
		"sslmode=disable&sslcrl=" + nothing:       "there is no list in it",
		"sslcrl=" + filepath.Join(dir, "missing"): "no such file",
		"sslmode=prefer&sslcrl=" + list:           "say sslmode=verify-full",
		"sslmode=require&sslcrl=" + list:          "say sslmode=verify-full",
		"sslmode=disable&sslcrl=" + list:          "say sslmode=verify-full",
		"sslmode=verify-full&sslcrl=" + list:      "",
	} {
		c, err := Parse("pgdist://h1,h2/db?" + params)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", params, err, want)
		}
		for _, m := range c.Members {
			if _, sent := m.Conn.RuntimeParams["sslcrl"]; sent || m.Conn.TLSConfig.VerifyConnection == nil {
				t.Errorf("%s: sent to the server: %t", params, sent)
			}
		}
	}
}

// emptyList is a list of certificates that an authority has revoked, with none.
func emptyList(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}
