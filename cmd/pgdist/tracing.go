package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// farewellTimeout bounds the time in which the last spans are sent.
const farewellTimeout = 5 * time.Second

// setting is the first of OpenTelemetry's variables that is set.
func setting(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}

// tracing exports spans by OTLP, if an endpoint is given, by a flag, in the file or as OpenTelemetry
// has it in the environment (OpenTelemetry docs, "OTLP Exporter Configuration"). provider is nil if
// none is.
func tracing(ctx context.Context, endpoint string, log *slog.Logger) (provider trace.TracerProvider, stop func(), err error) {
	stop = func() {}
	exporter := setting("OTEL_TRACES_EXPORTER")
	configured := exporter == "otlp" || setting("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") != ""
	switch {
	case strings.EqualFold(setting("OTEL_SDK_DISABLED"), "true"), endpoint == "" && (!configured || exporter == "none"):
		return nil, stop, nil
	case exporter != "" && exporter != "otlp" && exporter != "none":
		return nil, stop, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: spans are exported by otlp only", exporter)
	}
	client, err := otlpClient(endpoint)
	if err != nil {
		return nil, stop, err
	}
	// The environment has the last word: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "pgdist-gateway")), resource.WithTelemetrySDK(), resource.WithHost(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, stop, fmt.Errorf("OpenTelemetry: %w", err)
	}
	export, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, stop, fmt.Errorf("OpenTelemetry: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans are not exported", "error", err) }))
	p := sdk.NewTracerProvider(sdk.WithBatcher(export), sdk.WithResource(about))
	return p, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTimeout)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			log.Warn("the last spans are not exported", "error", err)
		}
	}, nil
}

// otlpClient speaks the protocol that the environment names, http/protobuf by default. An endpoint
// of ours wins over the environment's.
func otlpClient(endpoint string) (otlptrace.Client, error) {
	if endpoint != "" {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("otlp_endpoint %q is no URL such as http://localhost:4318", endpoint)
		}
	}
	switch protocol := setting("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol {
	case "", "http/protobuf":
		var options []otlptracehttp.Option
		if endpoint != "" {
			options = append(options, otlptracehttp.WithEndpointURL(strings.TrimSuffix(endpoint, "/")+"/v1/traces"))
		}
		return otlptracehttp.NewClient(options...), nil
	case "grpc":
		var options []otlptracegrpc.Option
		if endpoint != "" {
			options = append(options, otlptracegrpc.WithEndpointURL(endpoint))
		}
		return otlptracegrpc.NewClient(options...), nil
	default:
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%s: it must be http/protobuf or grpc", protocol)
	}
}
