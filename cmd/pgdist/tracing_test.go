//go:build unix

package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestTracing has spans exported to a collector if, and only if, somebody asks for it.
func TestTracing(t *testing.T) {
	got := make(chan *collector.ExportTraceServiceRequest, 10)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		m := &collector.ExportTraceServiceRequest{}
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, m) != nil {
			t.Errorf("%s %v", r.URL.Path, err)
		}
		got <- m
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer web.Close()
	for _, c := range []struct {
		endpoint string
		env      string
		on       bool
		err      string
	}{
		{},
		{endpoint: web.URL, on: true},
		{env: "OTEL_EXPORTER_OTLP_ENDPOINT=" + web.URL, on: true},
		{env: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + web.URL + "/v1/traces", on: true},
		{env: "OTEL_EXPORTER_OTLP_ENDPOINT=" + web.URL + " OTEL_TRACES_EXPORTER=none"},
		{env: "OTEL_EXPORTER_OTLP_ENDPOINT=" + web.URL + " OTEL_SDK_DISABLED=true"},
		{env: "OTEL_EXPORTER_OTLP_HEADERS=a=b"},
		{env: "OTEL_EXPORTER_OTLP_ENDPOINT=" + web.URL + " OTEL_TRACES_EXPORTER=zipkin", err: "otlp only"},
		{env: "OTEL_EXPORTER_OTLP_PROTOCOL=http/json", endpoint: web.URL, err: "http/protobuf or grpc"},
		{endpoint: "localhost:4318", err: "no URL"},
	} {
		t.Run(c.endpoint+" "+c.env, func(t *testing.T) {
			for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
				t.Setenv(name, "")
			}
			for pair := range strings.FieldsSeq(c.env) {
				name, value, _ := strings.Cut(pair, "=")
				t.Setenv(name, value)
			}
			provider, stop, err := tracing(context.Background(), c.endpoint, slog.New(slog.DiscardHandler))
			if err == nil && c.err != "" || err != nil && (c.err == "" || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("%v, want %q", err, c.err)
			}
			if (provider != nil) != c.on {
				t.Fatalf("on: %t", provider != nil)
			}
			if provider == nil {
				return
			}
			_, span := provider.Tracer("test").Start(context.Background(), "a statement")
			span.End()
			stop()
			m := <-got
			if s := m.String(); !strings.Contains(s, "a statement") || !strings.Contains(s, "pgdist-gateway") {
				t.Error(s)
			}
		})
	}
}
