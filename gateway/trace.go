package gateway

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/engine"
)

// tracerName is the instrumentation's, as OpenTelemetry wants it.
const tracerName = "github.com/pgdist/pgdist/gateway"

// span tells of a statement that is over: text and verdict are its own, began and ended on
// engine.Now's clock, u is who ran it, nil for nobody. It is called if there is a tracer only.
func (c *client) span(sql string, v *classify.Verdict, began, ended int64, u *upstream, err error) {
	now, wall := engine.Now(), time.Now()
	at := func(t int64) time.Time { return wall.Add(time.Duration(t - now)) }
	operation := "statement"
	if len(v.Statements) > 0 {
		operation = v.Statements[0].Tag
	}
	list := []attribute.KeyValue{
		attribute.String("db.system.name", "postgresql"), attribute.String("db.namespace", c.db), attribute.String("db.operation.name", operation),
		attribute.String("db.query.text", statementText(sql, v)), attribute.String("pgdist.user", c.user), attribute.Int64("pgdist.client", int64(c.id)),
	}
	if u != nil {
		list = append(list, attribute.String("server.address", u.origin.host), attribute.Int("server.port", int(u.origin.port)), attribute.Bool("pgdist.leader", u.writes))
	}
	parent := sql
	if c.whole != "" {
		parent = c.whole
	}
	_, span := c.server.tracer.Start(remoteSpan(parent), operation+" "+c.db, trace.WithTimestamp(at(began)), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(list...))
	if err != nil {
		class := "error"
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			class = pe.Code
			span.SetAttributes(attribute.String("db.response.status_code", class))
		}
		span.SetAttributes(attribute.String("error.type", class))
		span.SetStatus(codes.Error, "") // the message may have values in it
	}
	span.End(trace.WithTimestamp(at(ended)))
}

// remoteSpan is the context that a statement's comment names.
func remoteSpan(sql string) context.Context {
	carrier := propagation.MapCarrier(commentTags(sql))
	return propagation.TraceContext{}.Extract(context.Background(), carrier)
}

// commentTags are the traceparent and the tracestate in a comment before or behind a statement, in
// the format of sqlcommenter: /*key='value',key='value'*/, values as in URLs (OpenTelemetry's
// sqlcommenter specification). nil if there are none.
func commentTags(sql string) map[string]string {
	if !strings.Contains(sql, "traceparent") {
		return nil
	}
	sql = strings.TrimRight(sql, "; \t\r\n")
	if strings.HasSuffix(sql, "*/") {
		if at := strings.LastIndex(sql, "/*"); at >= 0 {
			if tags := tagsOf(sql[at+2 : len(sql)-2]); tags != nil {
				return tags
			}
		}
	}
	for {
		sql = strings.TrimLeft(sql, " \t\r\n")
		rest, ok := strings.CutPrefix(sql, "/*")
		if !ok {
			return nil
		}
		comment, behind, ok := strings.Cut(rest, "*/")
		if !ok {
			return nil
		}
		if tags := tagsOf(comment); tags != nil {
			return tags
		}
		sql = behind
	}
}

// tagsOf takes a comment apart; nil if it has no traceparent.
func tagsOf(comment string) map[string]string {
	tags := map[string]string{}
	for pair := range strings.SplitSeq(comment, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || len(value) < 2 || value[0] != '\'' || value[len(value)-1] != '\'' {
			continue
		}
		if key != "traceparent" && key != "tracestate" {
			continue
		}
		if plain, err := url.PathUnescape(value[1 : len(value)-1]); err == nil {
			tags[key] = plain
		}
	}
	if tags["traceparent"] == "" {
		return nil
	}
	return tags
}
