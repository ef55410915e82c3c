//go:build unix

package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/engine"
)

const examplePath = "pgdist.example.yaml"

// commented is a key that is there as a comment, within a group or not.
var commented = regexp.MustCompile(`(?m)^( *)#([a-z_]+):(.*)$`)

func readExample(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// setPart is the file without the section of the gateway, which has tests of its own.
func setPart(text string) string {
	set, _, _ := strings.Cut(text, "# ---- The gateway")
	return set
}

// loadText reads a configuration as the command does.
func loadText(t *testing.T, text string) (engine.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgdist.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return (&options{config: path}).set(nil)
}

func TestExampleIsStrictlyValid(t *testing.T) {
	text := readExample(t)
	config, err := loadText(t, text)
	if err != nil {
		t.Fatal(err)
	}
	if len(config.Members) != 3 || config.MirrorUser != "pgdist_mirror" || config.Members[1].Health.Failures != 3 || config.Members[1].Conn.Port != 5433 {
		t.Errorf("read as %v", config)
	}
	for _, m := range commented.FindAllStringSubmatch(setPart(text), -1) {
		key := m[2] + ":" + m[3]
		if m[1] != "" {
			key = "mirror_" + key
		}
		_, err := loadText(t, "host: a,b\n"+strings.Replace(key, "host:", "application_name:", 1)+"\n")
		if err != nil && strings.Contains(err.Error(), "unknown") {
			t.Errorf("the comment %q: %v", m[0], err)
		}
	}
}

// A key that the configuration knows and the example does not is found here.
func TestExampleHasEveryKey(t *testing.T) {
	text := setPart(readExample(t))
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for key, value := range tree {
		group, ok := value.(map[string]any)
		if !ok {
			known[key] = true
			continue
		}
		for sub := range group {
			known[key+"_"+sub] = true
		}
	}
	for _, m := range commented.FindAllStringSubmatch(text, -1) {
		known[strings.Repeat("mirror_", len(m[1])/2)+m[2]] = true
	}
	want := slices.Collect(maps.Keys(engine.Params()))
	want = slices.DeleteFunc(want, func(key string) bool { return key == "config" }) // not within a file
	want = append(want, "members", "host", "port", "database", "dbname", "user", "password", "passfile", "service", "servicefile", "options",
		"sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslsni", "sslnegotiation", "sslcertmode", "application_name", "connect_timeout",
		"channel_binding", "require_auth", "krbsrvname", "krbspn", "min_protocol_version", "max_protocol_version",
		"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity")
	for _, key := range want {
		if !known[key] {
			t.Errorf("%s is not in %s", key, examplePath)
		}
	}
}

// The values given as defaults are the defaults.
func TestExampleShowsDefaults(t *testing.T) {
	config, err := loadText(t, readExample(t))
	if err != nil {
		t.Fatal(err)
	}
	if want := (health.Config{}).WithDefaults(); config.Health != want {
		t.Errorf("health is %+v, the defaults are %+v", config.Health, want)
	}
	plain, err := loadText(t, "host: a,b\n")
	if err != nil {
		t.Fatal(err)
	}
	fields := func(c engine.Config) string { _, after, _ := strings.Cut(c.String(), "consistency="); return after }
	if got, want := strings.TrimSuffix(fields(config), " mirror_user=pgdist_mirror"), fields(plain); got != want {
		t.Errorf("the example says %q, the defaults are %q", got, want)
	}
}
