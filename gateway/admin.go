package gateway

import (
	"embed"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed page
var page embed.FS

// AdminHandler serves /metrics (Prometheus), /healthz, /readyz, /status.json and, at /, a
// page that shows the latter. It shows and changes nothing, and asks nobody who they are:
// it belongs on an address that others do not reach. Requests are answered if their Host is
// an address, localhost, the machine's name or one of hosts, so that no web page elsewhere
// can have a browser read it (DNS rebinding).
func (s *Server) AdminHandler(hosts ...string) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s})
	a := &admin{server: s, hosts: hosts}
	if name, err := os.Hostname(); err == nil {
		a.hosts = append(slices.Clone(hosts), name)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("alive\n")) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.Ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	mux.HandleFunc("/status.json", a.status)
	for path, file := range map[string]struct{ name, kind string }{
		"/{$}": {"page/index.html", "text/html; charset=utf-8"}, "/page.js": {"page/page.js", "text/javascript; charset=utf-8"}, "/page.css": {"page/page.css", "text/css; charset=utf-8"},
	} {
		body, err := page.ReadFile(file.name)
		if err != nil {
			panic(err) // it is part of the program
		}
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", file.kind)
			_, _ = w.Write(body)
		})
	}
	return a.guarded(mux)
}

// admin is what the handlers share.
type admin struct {
	server *Server
	hosts  []string

	mu   sync.Mutex // guards what follows: the rates of the latest second or more
	at   time.Time
	last reading
	rate rates
}

// guarded refuses what no administrator's browser or scraper sends.
func (a *admin) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
			http.Error(w, "requests of other sites are refused", http.StatusForbidden)
			return
		}
		if !a.expects(r.Host) {
			http.Error(w, "this is not the host that you are looking for", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// expects tells whether a request may name that host: an address cannot be rebound.
func (a *admin) expects(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if net.ParseIP(host) != nil || host == "localhost" {
		return true
	}
	return slices.ContainsFunc(a.hosts, func(h string) bool { return h != "" && strings.ToLower(h) == host })
}

func (a *admin) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a.report()) // a reader that has left is no loss
}
