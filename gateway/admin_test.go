package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// fetch asks the admin handler for a path.
func fetch(t *testing.T, h http.Handler, path string, change func(*http.Request)) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9187"+path, nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Result().Body)
	if w.Header().Get("Content-Security-Policy") == "" {
		t.Errorf("%s: no CSP", path)
	}
	return w.Code, string(body)
}

func TestAdmin(t *testing.T) {
	s := newSet(t, nil)
	h := s.gateway.AdminHandler("gw.example")
	ctx := context.Background()
	a := connect(t, s.url(""))
	for _, sql := range []string{"CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)", "SELECT * FROM t", "BEGIN", "INSERT INTO t VALUES (2)", "COMMIT"} {
		if _, err := a.Exec(ctx, sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	if _, err := a.Exec(ctx, "SELECT 1/0"); code(err) != "22012" {
		t.Fatal(err)
	}
	if _, err := a.Exec(ctx, "INSERT INTO t VALUES (1)"); code(err) != "23505" {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		_, body := fetch(t, h, "/metrics", nil)
		return strings.Contains(body, `pgdist_clients{state="idle"} 1`)
	})
	_, metrics := fetch(t, h, "/metrics", nil)
	for _, want := range []string{
		`pgdist_ready 1`, `pgdist_check_rows_total{database="postgres"} 0`, `pgdist_check_round_timestamp_seconds{database="postgres"} 0`, `pgdist_differences_total{database="postgres",`, `pgdist_errors_total{class="22"} 1`, `pgdist_errors_total{class="23"} 1`, `pgdist_statement_duration_seconds_count{kind="commit"} 1`,
		`pgdist_statement_duration_seconds_bucket{kind="read",le="+Inf"}`, `pgdist_logins_total 1`, `pgdist_view_epoch{database="postgres"} `, `pgdist_failovers_total 0`,
		`purpose="read",state="idle"`, `pgdist_received_bytes_total`, `pgdist_prepared_statements`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
	if strings.Count(metrics, "pgdist_member_leader{") != 3 || strings.Count(metrics, `"} 1`) == 0 {
		t.Error("members are missing")
	}
	for path, want := range map[string]int{"/": 200, "/page.js": 200, "/page.css": 200, "/healthz": 200, "/readyz": 200, "/status.json": 200, "/nothing": 404} {
		if got, _ := fetch(t, h, path, nil); got != want {
			t.Errorf("%s: %d", path, got)
		}
	}
	var st status
	_, text := fetch(t, h, "/status.json", nil)
	if err := json.Unmarshal([]byte(text), &st); err != nil || len(st.Members) != 3 || !st.Ready || st.Clients["idle"] != 1 || len(st.Events) == 0 {
		t.Errorf("%v %s", err, text)
	}
	adminRefuses(t, h)
	s.gateway.refuse()
	if got, _ := fetch(t, h, "/readyz", nil); got != 503 {
		t.Errorf("ready while it shuts down: %d", got)
	}
	if got, _ := fetch(t, h, "/healthz", nil); got != 200 {
		t.Errorf("not alive while it shuts down: %d", got)
	}
}

func adminRefuses(t *testing.T, h http.Handler) {
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"POST":         {func(r *http.Request) { r.Method = "POST" }, 405},
		"cross-site":   {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		"same-site":    {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, 403},
		"same-origin":  {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }, 200},
		"rebound":      {func(r *http.Request) { r.Host = "evil.example:9187" }, 421},
		"look-alike":   {func(r *http.Request) { r.Host = "127.0.0.1.evil.example" }, 421},
		"named":        {func(r *http.Request) { r.Host = "GW.example:9187" }, 200},
		"localhost":    {func(r *http.Request) { r.Host = "localhost:9187" }, 200},
		"IPv6 address": {func(r *http.Request) { r.Host = "[::1]:9187" }, 200},
		"no host":      {func(r *http.Request) { r.Host = "" }, 421},
	} {
		for _, path := range []string{"/status.json", "/metrics", "/"} {
			if got, _ := fetch(t, h, path, c.change); got != c.want {
				t.Errorf("%s of %s: %d, want %d", name, path, got, c.want)
			}
		}
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i, d := range []time.Duration{0, histogramUnit - 1, histogramUnit, time.Millisecond, time.Second, time.Hour} {
		h.observe(uint32(i), int64(d))
	}
	c := h.read()
	if c.total != 6 || c.counts[0] != 2 || c.counts[1] != 1 || c.counts[histogramSteps] != 1 {
		t.Errorf("%+v", c)
	}
	if q := c.quantile(0.5); q != 1024*time.Microsecond {
		t.Errorf("half are below %v", q)
	}
}
