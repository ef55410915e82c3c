//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A DSN that cannot be used is told so in one line that says what to do; what
// may be a password never shows.
func TestBadDSN(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "pgdist.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cases := []struct {
		name string
		args []string
		want []string
	}{
		{"none", nil, []string{"no set is named", "PGDIST_DSN", "--config"}},
		{"port", []string{"pgdist://u:sesame77@h:x/db"}, []string{"the DSN cannot be read", "invalid port"}},
		{"slash in the password", []string{"pgdist://u:ses/ame77@h:5432,h2/db"}, []string{"the DSN cannot be read", "%2F"}},
		{"at in the password", []string{"pgdist://u:ses@sesame77:x@h:5432,h2/db"}, []string{"the DSN cannot be read", "%40"}},
		{"keyword", []string{"host=a,b password='sesame77' port=x"}, []string{"the DSN cannot be read", "port"}},
		{"misspelt parameter", []string{"pgdist://u:sesame77@a,b,c/db?pool_sise=3"}, []string{"unknown parameter pool_sise", "did you mean pool_size"}},
		{"value", []string{"pgdist://u:sesame77@a,b,c/db?consistency=perfect"}, []string{`consistency is "perfect"`, "session strict leader"}},
		{"secret value", []string{"host=a,b mirror_password=sesame77"}, []string{"mirror_password", "without mirror_user"}},
		{"twice", []string{"pgdist://u:sesame77@a:1,b:1,a:1/db"}, []string{"name each database once"}},
		{"argument and flag", []string{"pgdist://u:sesame77@a,b,c/db", "--dsn", "pgdist://u:sesame77@a,b/db"}, []string{"the set is named twice", "--dsn"}},
		{"flag", []string{"--dsn", "pgdist://u:sesame77@a:1,b:1,a:1/db"}, []string{"name each database once"}},
		{"no such file", []string{"--config", filepath.Join(t.TempDir(), "none.yaml")}, []string{"config file", "none.yaml", "no such file"}},
		{"unknown key", []string{"--config", file("host: a,b\npool:\n  sice: 3\n")}, []string{"line 3", "pool_sice", "did you mean pool_size"}},
		{"not YAML", []string{"--config", file("host: [a\n")}, []string{"config file"}},
	}
	for _, command := range []string{"init", "status", "verify", "uninstall"} {
		for _, c := range cases {
			t.Run(command+"/"+c.name, func(t *testing.T) {
				t.Setenv(dsnVariable, "")
				r := pgdist(t, append([]string{command}, c.args...)...)
				r.wantErrors(t, 1, c.want...)
				for _, piece := range []string{"sesame77", "ame77"} {
					if strings.Contains(r.errs, piece) {
						t.Errorf("a password shows: %s", r.errs)
					}
				}
			})
		}
	}
}

// Argument, file and environment: who counts when.
func TestWhereTheSetComesFrom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "it's a file.yaml")
	text := "user: filer\nmirror: {user: mirrorer, password: m}\nmembers:\n  - {host: f1, port: 1}\n  - {host: f2}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	hostless := filepath.Join(t.TempDir(), "hostless.yaml")
	if err := os.WriteFile(hostless, []byte("user: filer\ndatabase: shop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name      string
		env, file string
		args      []string
		want      string
	}{
		{"environment", "pgdist://e@e1,e2/shop", "", nil, "e@e1:5432/shop,e@e2:5432/shop"},
		{"argument before environment", "pgdist://e@e1,e2/shop", "", []string{"host=a1,a2 user=a dbname=shop"}, "a@a1:5432/shop,a@a2:5432/shop"},
		{"file, not the environment", "pgdist://e@e1,e2/shop", path, nil, "filer@f1:1/,filer@f2:5432/ "},
		{"argument over file, keywords", "", hostless, []string{"host=a1,a2 user=a"}, "a@a1:5432/shop,a@a2:5432/shop"},
		{"argument over file, URL", "", hostless, []string{"pgdist://a1,a2?sslmode=disable"}, "filer@a1:5432/shop,filer@a2:5432/shop"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(dsnVariable, c.env)
			o := &options{config: c.file}
			config, err := o.set(c.args)
			if err != nil {
				t.Fatal(err)
			}
			if got := config.String(); !strings.HasPrefix(got, c.want) {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
	t.Run("roles", func(t *testing.T) {
		config, err := (&options{config: path}).set(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := mirrorConfig(config, asUser).Members[0].Conn.User; got != "filer" {
			t.Errorf("who installs is %s, want filer", got)
		}
		m := mirrorConfig(config, asMirror).Members[0].Conn
		if m.User != "mirrorer" || m.Password != "m" {
			t.Errorf("who mirrors is %s, want mirrorer", m.User)
		}
	})
}
