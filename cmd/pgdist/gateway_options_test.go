//go:build unix

package main

import (
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/engine"
)

// optionsOf reads a file's text with flags as the command does.
func optionsOf(t *testing.T, text string, args ...string) (*gatewayOptions, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgdist.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := newGateway(&options{})
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return readGatewayOptions(path, cmd.Flags())
}

var commentedOption = regexp.MustCompile(`(?m)^( +)#((?:  )?["*a-z_]+:.*|  - .*)$`)

// The example has every key of the gateway, each as the command takes it, and says the
// truth about defaults.
func TestExampleOfTheGateway(t *testing.T) {
	text := readExample(t)
	o, err := optionsOf(t, text)
	if err != nil {
		t.Fatal(err)
	}
	d := newGatewayOptions()
	d.path = o.path
	d.admin, d.maxClients, d.maxStarting, d.maxPrepared, d.loginTimeout = "127.0.0.1:9187", 10000, 100, 500, 30*time.Second
	if !reflect.DeepEqual(o, d) {
		t.Errorf("the example says %+v, the defaults are %+v", o, d)
	}
	_, section, _ := strings.Cut(text, "# ---- The gateway")
	all := commentedOption.ReplaceAllString("#"+section, "$1$2")
	path := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := engine.ReadSection(path, "gateway", freeKeys...)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, e := range s.Entries {
		keys = append(keys, e.Key)
	}
	for _, key := range append(slices.Sorted(maps.Keys(gatewayKeys)), usersKey) {
		if !slices.Contains(keys, key) {
			t.Errorf("%s is not in the example", key)
		}
	}
	if o, err = optionsOf(t, all); err != nil || len(o.users) != 2 || len(o.admins) != 1 || o.cert == "" || len(o.hba) != 4 || len(o.databaseOpts) != 3 || len(o.userOpts) != 1 {
		t.Errorf("%+v %v", o, err)
	}
	if err := (gateway.Config{DSN: "pgdist://a,b/c", Users: o.users, DatabaseOptions: o.databaseOpts, UserOptions: o.userOpts}).Validate(); err != nil {
		t.Error(err)
	}
	o.hbaFile, o.identFile = "", ""
	if err := o.rules(&gateway.Config{}); err != nil {
		t.Error(err)
	}
}

func TestGatewayRules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"good": "host all all all reject\n", "bad": "# x\nhost all all nowhere trust\n", "ident": "m a b\n", "empty.pem": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		text string
		args []string
		want string // of the error; "" is none
		hba  bool
	}{
		{text: "gateway: {auth: trust}"},
		{text: "gateway: {hba: [host all all all trust, local all all md5]}", hba: true},
		{text: "gateway: {hba: local all all trust}", hba: true},
		{text: "gateway: {hba: [host all all all trust, host all all], hba_file: x}", want: "there must be one list"},
		{text: "gateway: {hba: [host all all all trust, host all all]}", want: "pgdist.yaml, line 2: the line ends before the address"},
		{text: "gateway: {hba: [host all all all trust]}", args: []string{"--hba", dir + "/good"}, hba: true},
		{text: "gateway: {hba_file: " + dir + "/good}", args: []string{"--hba", dir + "/bad"}, want: dir + "/bad, line 2: address \"nowhere\""},
		{text: "gateway: {hba_file: " + dir + "/nosuch}", want: "nosuch"},
		{text: "gateway: {hba_file: " + dir + "/good, ident_file: " + dir + "/ident}", hba: true},
		{text: "gateway: {ident_file: " + dir + "/good}", want: "good, line 1: a map's name"},
		{text: "gateway: {tls: {client_ca: x}}", want: "name tls.cert and tls.key"},
		{text: "gateway: {tls: {crl: x}}", want: "name tls.cert and tls.key"},
	} {
		o, err := optionsOf(t, c.text, c.args...)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		config, err := o.config("", nil)
		if err == nil && c.want != "" || err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want)) || (config.HBA != nil) != c.hba {
			t.Errorf("%s %v: %v, want %q; rules %t", c.text, c.args, err, c.want, config.HBA != nil)
		}
	}
}

func TestListenAtSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(path, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	if _, err := listen(path, 0o700); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a socket in use: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = listen(path, 0o777); err != nil {
		t.Fatalf("a socket that was left behind: %v", err)
	}
	_ = l.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(path, 0o777); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q %v", text, err)
	}
}

func TestGatewayOptionsAreStrict(t *testing.T) {
	for text, want := range map[string]string{
		"gateway:\n  listn: 1":                                 "line 2: unknown key listn of gateway: did you mean listen?",
		"host: a\ngateway:\n  tls:\n    certt: x":              "line 4: unknown key tls_certt of gateway: did you mean tls_cert?",
		"gateway:\n  max_clients: many":                        "line 2: max_clients: not a whole number",
		"gateway:\n  drain: soon":                              "line 2: drain: not a duration",
		"gateway:\n  auth: [a, b]":                             "line 2: auth: one value is wanted",
		"gateway:\n  trust_remote: maybe":                      "line 2: trust_remote: neither true nor false",
		"gateway:\n  users: 5":                                 "line 2: users must be names and values",
		"gateway:\n  users:\n    a: {b: secret}":               "line 3: unknown key b of users a: the keys are max_user_client_connections, max_user_connections, password, pool_mode",
		"gateway:\n  log_level: loud":                          "line 2: log_level",
		"gateway:\n  users:\n    a: [secret]":                  "line 3: users must be names and single values",
		"gateway:\n  users:\n    a: {password: [secret]}":      "line 3: password of users a must be a single value",
		"gateway:\n  databases:\n    a: {dns: x}":              "line 3: unknown key dns of databases a: did you mean dsn?",
		"gateway:\n  databases: {a: {max_db_connections: -1}}": "line 2: max_db_connections: not a whole number",
		"gateway: 7":                                 "line 1: expected keys and values",
		"gateway:\n  listen:\n    - {a: b}":          "line 2: listen must be a single value or a list of them",
		"gateway:\n  login_timeout: -3s\n  bogus: 1": "line 2: login_timeout: negative",
	} {
		_, err := optionsOf(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: a secret is told: %v", text, err)
		}
	}
	if _, err := loadText(t, "host: a,b\ngatewy:\n  listen: x\n"); err == nil || !strings.Contains(err.Error(), "gateway") {
		t.Errorf("a misspelt section: %v", err)
	}
	if _, err := loadText(t, "host: a,b\ngateway:\n  anything: [1, 2]\n"); err != nil {
		t.Errorf("another command minds the section: %v", err)
	}
}

func TestGatewayFlagsWin(t *testing.T) {
	text := "gateway:\n  listen: [a:1, b:2]\n  drain: 5\n  max_clients: 7\n  users: {Ann: x, bob: y}\n  slow_statement: 200ms\n  databases: one\n"
	o, err := optionsOf(t, text, "--listen", "c:3", "--drain", "9s", "--verbose")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.listen, []string{"c:3"}) || o.drain != 9*time.Second || o.maxClients != 7 || o.level != slog.LevelDebug || o.users["Ann"] != "x" ||
		o.slow != 200*time.Millisecond || !slices.Equal(o.databases, []string{"one"}) {
		t.Errorf("%+v", o)
	}
	if o, err = optionsOf(t, text); err != nil || !slices.Equal(o.listen, []string{"a:1", "b:2"}) || o.drain != 5*time.Second {
		t.Errorf("%+v %v", o, err)
	}
}

func TestLoopback(t *testing.T) {
	for in, want := range map[string]string{
		"9187": "127.0.0.1:9187", ":9187": "127.0.0.1:9187", "0.0.0.0:1": "0.0.0.0:1", "[::1]:2": "[::1]:2", "/run/x": "/run/x", "host:3": "host:3",
	} {
		if got := loopback(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
