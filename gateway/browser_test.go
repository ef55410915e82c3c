//go:build browser

package gateway

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestBrowser has chromium run the page's script and looks at what it made of the page.
// It is not part of make test: chromium is large.
func TestBrowser(t *testing.T) {
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		t.Fatal("chromium is not installed: apt-get install chromium")
	}
	s := newSet(t, func(c *Config) { c.MaxClients = 4321 })
	a := connect(t, s.url(""))
	ctx := context.Background()
	if _, err := a.Exec(ctx, "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	s.gateway.history.add("", "%s", `<img src=x onerror="document.title='injected'"><script>document.title='injected'</script>`)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: s.gateway.AdminHandler(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()
	defer func() { _ = web.Close(); <-served }()
	limited, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	run := func(args ...string) string {
		t.Helper()
		args = append([]string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
			"--disable-sync", "--disable-dev-shm-usage", "--user-data-dir=" + t.TempDir(), "--virtual-time-budget=4000",
		}, args...)
		out, err := exec.CommandContext(limited, chromium, args...).Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	page := run("--dump-dom", "http://"+l.Addr().String()+"/")
	for _, want := range []string{
		`class="badge good" role="status">ready`, s.servers[0].Addr(), s.servers[2].Addr(), ">leader<", ">follower<", "1 of 4321", "statements/s", "gateway started:",
		"&lt;img src=x", "<title>ready – pgdist gateway</title>",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Count(page, `data-role="`) != 3 || strings.Contains(page, "<img") {
		t.Error("not three members, or an injected element")
	}
	if t.Failed() {
		t.Log(page)
	}
}
