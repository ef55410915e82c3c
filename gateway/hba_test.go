package gateway

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rulesOf parses rules that must be sound.
func rulesOf(tb testing.TB, text string) *HBA {
	tb.Helper()
	h, err := ParseHBA("test", text)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// TestHBA says which rule fits whom, as PostgreSQL's documentation has it.
func TestHBA(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"names": "one, two # three\n\"all\"\n", "empty": "# nobody\n", "more.conf": "host included all all trust\n", "z.txt": "nonsense"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is := func(_ context.Context, user, role string) (bool, error) {
		return user == role || user == "ann" && role == "staff", nil
	}
	for _, c := range []struct {
		rules string
		kind  connKind
		from  string
		user  string
		db    string
		want  Auth // "" if none fits
	}{
		{"local all all trust", viaSocket, "", "u", "d", Trust},
		{"local all all trust", viaPlain, "127.0.0.1", "u", "d", ""},
		{"host all all all trust", viaSocket, "", "u", "d", ""},
		{"host all all all trust", viaTLS, "8.8.8.8", "u", "d", Trust},
		{"hostssl all all all trust", viaPlain, "8.8.8.8", "u", "d", ""},
		{"hostnossl all all all trust", viaTLS, "8.8.8.8", "u", "d", ""},
		{"hostgssenc all all all trust", viaTLS, "8.8.8.8", "u", "d", ""},
		{"hostnogssenc all all all trust", viaTLS, "8.8.8.8", "u", "d", Trust},
		{"host all all 10.0.0.0/8 trust", viaPlain, "10.9.8.7", "u", "d", Trust},
		{"host all all 10.0.0.0/8 trust", viaPlain, "11.9.8.7", "u", "d", ""},
		{"host all all 10.1.2.3/8 trust", viaPlain, "10.9.8.7", "u", "d", Trust},
		{"host all all 10.0.0.0 255.0.0.0 trust", viaPlain, "10.9.8.7", "u", "d", Trust},
		{"host all all 10.0.0.1 255.255.255.255 trust", viaPlain, "10.0.0.2", "u", "d", ""},
		{"host all all 10.0.0.0/8 trust", viaPlain, "::ffff:10.9.8.7", "u", "d", Trust},
		{"host all all ::1/128 trust", viaPlain, "::1", "u", "d", Trust},
		{"host all all fe80::/10 trust", viaPlain, "fe80::1%lo", "u", "d", Trust},
		{"host all all ::/0 trust", viaPlain, "10.0.0.1", "u", "d", ""},
		{"host all all samehost trust", viaPlain, "127.0.0.1", "u", "d", Trust},
		{"host all all samehost trust", viaPlain, "127.0.0.2", "u", "d", ""},
		{"host all all samenet trust", viaPlain, "127.0.0.2", "u", "d", Trust},
		{"host all all samenet trust", viaPlain, "8.8.8.8", "u", "d", ""},
		{"host d all all trust", viaPlain, "8.8.8.8", "u", "d", Trust},
		{"host D all all trust", viaPlain, "8.8.8.8", "u", "d", ""},
		{"host a,d all all trust", viaPlain, "8.8.8.8", "u", "d", Trust},
		{"host a, d all all trust", viaPlain, "8.8.8.8", "u", "d", Trust},
		{`host "all" all all trust`, viaPlain, "8.8.8.8", "u", "d", ""},
		{`host "all" all all trust`, viaPlain, "8.8.8.8", "u", "all", Trust},
		{`host "a b" all all trust`, viaPlain, "8.8.8.8", "u", "a b", Trust},
		{`host "a""b" all all trust`, viaPlain, "8.8.8.8", "u", `a"b`, Trust},
		{"host sameuser all all trust", viaPlain, "8.8.8.8", "u", "d", ""},
		{"host sameuser all all trust", viaPlain, "8.8.8.8", "d", "d", Trust},
		{"host samerole all all trust", viaPlain, "8.8.8.8", "ann", "staff", Trust},
		{"host samegroup all all trust", viaPlain, "8.8.8.8", "bob", "staff", ""},
		{"host replication all all trust", viaPlain, "8.8.8.8", "u", "replication", ""},
		{`host "replication" all all trust`, viaPlain, "8.8.8.8", "u", "replication", Trust},
		{"host /^d$ all all trust", viaPlain, "8.8.8.8", "u", "d", Trust},
		{"host /^d$ all all trust", viaPlain, "8.8.8.8", "u", "dd", ""},
		{`host "/^d,?$" all all trust`, viaPlain, "8.8.8.8", "u", "d", "trust"},
		{`host all /^a|b$ all trust`, viaPlain, "8.8.8.8", "bob", "d", Trust},
		{"host all u all trust", viaPlain, "8.8.8.8", "u", "d", Trust},
		{"host all +staff all trust", viaPlain, "8.8.8.8", "ann", "d", Trust},
		{"host all +staff all trust", viaPlain, "8.8.8.8", "staff", "d", Trust},
		{"host all +staff all trust", viaPlain, "8.8.8.8", "bob", "d", ""},
		{`host all "+staff" all trust`, viaPlain, "8.8.8.8", "ann", "d", ""},
		{"host +staff all all trust", viaPlain, "8.8.8.8", "ann", "+staff", Trust},
		{"# host all all all trust", viaPlain, "8.8.8.8", "u", "d", ""},
		{"host all all all reject # trust", viaPlain, "8.8.8.8", "u", "d", Reject},
		{"host all u all reject\nhost all all all trust", viaPlain, "8.8.8.8", "u", "d", Reject},
		{"host all v all reject\nhost all all all trust", viaPlain, "8.8.8.8", "u", "d", Trust},
		{"host all \\\n all all \\\r\n md5", viaPlain, "8.8.8.8", "u", "d", MD5},
		{"host @names all all trust", viaPlain, "8.8.8.8", "u", "two", Trust},
		{"host @names all all trust", viaPlain, "8.8.8.8", "u", "three", ""},
		{"host @names all all trust", viaPlain, "8.8.8.8", "u", "all", Trust},
		{"host @empty all all trust", viaPlain, "8.8.8.8", "u", "d", ""},
		{"include more.conf", viaPlain, "8.8.8.8", "u", "included", Trust},
		{"include_if_exists nosuch.conf\nhost all all all trust", viaPlain, "8.8.8.8", "u", "d", Trust},
		{"include_dir .\n", viaPlain, "8.8.8.8", "u", "included", Trust},
		{"hostssl all all all cert map=m", viaTLS, "8.8.8.8", "u", "d", Cert},
		{"hostssl all all all scram-sha-256 clientcert=verify-ca", viaTLS, "8.8.8.8", "u", "d", SCRAM},
	} {
		h, err := ParseHBA(filepath.Join(dir, "test"), c.rules)
		if err != nil {
			t.Errorf("%q: %v", c.rules, err)
			continue
		}
		p := peer{kind: c.kind, user: c.user, database: c.db}
		if c.from != "" {
			p.from = netip.MustParseAddr(c.from)
		}
		r, err := h.find(context.Background(), p, is)
		got := Auth("")
		if r != nil {
			got = r.method
		}
		if err != nil || got != c.want {
			t.Errorf("%q for %s from %q: %q %v, want %q", c.rules, p, c.from, got, err, c.want)
		}
	}
}

// TestHBAIsStrict has every mistake named, with its line.
func TestHBAIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		"hots all all all trust":                                      "test, line 1: type \"hots\"",
		"host":                                                        "test, line 1: the line ends before the database",
		"host all":                                                    "the line ends before the user",
		"host all all":                                                "the line ends before the address",
		"host all all all":                                            "the line ends before the method",
		"local all all":                                               "the line ends before the method",
		"\n\nhost all all 10.0.0.0/33 trust":                          "test, line 3: address \"10.0.0.0/33\"",
		"host all all example.com trust":                              "names of hosts are not looked up",
		"host all all 10.0.0.1 trust":                                 "after an address without /prefix its mask must follow",
		"host all all 10.0.0.1 255.0.255.0 trust":                     "does not fit",
		"host all all 10.0.0.1 ffff:: trust":                          "does not fit",
		"host all all all,samehost trust":                             "the address is a list",
		"host all all all nonsense":                                   "method \"nonsense\"",
		"host all all all ldap":                                       "method ldap is not one of the gateway's",
		"host all all all password":                                   "use scram-sha-256",
		"host all all all cert":                                       "hostssl",
		"host all all all md5 clientcert=verify-ca":                   "hostssl",
		"hostssl all all all cert clientcert=verify-ca":               "less than",
		"hostssl all all all md5 clientcert=1":                        "verify-ca or verify-full",
		"hostssl all all all md5 map=m":                               "map is for methods cert and peer",
		"hostssl all all all cert clientname=SAN":                     "it must be CN or DN",
		"host all all all md5 clientname=DN":                          "clientname can only be asked of hostssl",
		"host all all all peer":                                       "peer can only be asked of local",
		"host all all all trust nonsense":                             "not in the form name=value",
		"host all all all trust radiusport=1":                         "option radiusport",
		"host /( all all trust":                                       "error parsing regexp",
		"host \"all all all trust":                                    "a quote is not closed",
		"host all, all, all trust,":                                   "a word is missing behind a comma",
		"host @nosuch all all trust":                                  "nosuch",
		"include nosuch":                                              "nosuch",
		"include test":                                                "test",
		"host all all all trust\nhost x\nlocal all all all trust\n\n": "test, line 3: method \"all\"",
	} {
		_, err := ParseHBA("test", text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.WriteFile(loop, []byte("include loop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadHBA(loop); err == nil || !strings.Contains(err.Error(), "10 deep") {
		t.Errorf("a file that includes itself: %v", err)
	}
}

func TestIdent(t *testing.T) {
	m, err := ParseIdent("test", `
		# map  certificate           user
		m      Ann\ Smith            ann
		m      "Ann Smith"           ann
		m      /^(.*)@example\.com$  \1
		m      /^admin               all
		m      ops                   +staff
		m      /^(x)                 "\1"
		n      /^(.*)$               \1
		n      bob                   /^b`)
	if err == nil {
		t.Fatal("a line of four words is taken")
	}
	m, err = ParseIdent("test", `
		m      "Ann Smith"           ann
		m      /^(.*)@example\.com$  \1
		m      /^admin               all
		m      ops                   +staff
		m      /^(x)                 "\1"
		n      bob                   /^b`)
	if err != nil {
		t.Fatal(err)
	}
	is := func(_ context.Context, user, role string) (bool, error) { return user == "ann" && role == "staff", nil }
	for _, c := range []struct {
		name, system, user string
		want               bool
	}{
		{"m", "Ann Smith", "ann", true}, {"m", "Ann Smith", "bob", false}, {"n", "Ann Smith", "ann", false},
		{"m", "bob@example.com", "bob", true}, {"m", "bob@example.com", "ann", false}, {"m", "bob@example_com", "bob", false},
		{"m", "admin7", "anybody", true}, {"m", "ops", "ann", true}, {"m", "ops", "bob", false}, {"m", "x", "x", false}, {"m", "x", `\1`, true},
		{"n", "bob", "bill", true}, {"n", "bob", "ann", false}, {"nosuch", "bob", "bob", false},
	} {
		if got, err := m.allows(context.Background(), c.name, c.system, c.user, is); err != nil || got != c.want {
			t.Errorf("%+v: %t %v", c, got, err)
		}
	}
	for text, want := range map[string]string{"m a": "test, line 1", "m /( b": "regexp", `m /a \1`: "parentheses", "m a,b c": "wanted"} {
		if _, err := ParseIdent("test", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzHBA(f *testing.F) {
	f.Add("host all all 10.0.0.0/8 scram-sha-256\nlocal \"a b\",c +r reject # x")
	f.Add("hostssl /^a(b) @x samenet cert map=m \\\n clientcert=verify-full")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHBA(filepath.Join(t.TempDir(), "test"), text)
		if err != nil {
			return
		}
		p := peer{kind: viaPlain, from: netip.MustParseAddr("10.0.0.1"), user: "u", database: "d"}
		if _, err := h.find(context.Background(), p, func(context.Context, string, string) (bool, error) { return false, nil }); err != nil {
			t.Error(err)
		}
	})
}
