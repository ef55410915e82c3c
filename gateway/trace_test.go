package gateway

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestCommentTags(t *testing.T) {
	tags := map[string]string{"traceparent": traceparent}
	for sql, want := range map[string]map[string]string{
		"SELECT 1": nil,
		"SELECT 1 /*traceparent='" + traceparent + "'*/":                                                       tags,
		"SELECT 1 /*traceparent='" + traceparent + "'*/ ; \n":                                                  tags,
		"/*traceparent='" + traceparent + "'*/ SELECT 1":                                                       tags,
		" /* x */\n/* action='a',traceparent='" + traceparent + "',db_driver='d%20e' */ SELECT 1":              tags,
		"SELECT 1 /*action='%2Fa*',traceparent='" + traceparent + "'*/":                                        tags,
		"SELECT 1 /*traceparent='" + traceparent + "',tracestate='congo%3Dt61rcWkgMzE%2Crojo%3D00f067aa0ba'*/": {"traceparent": traceparent, "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba"},
		"SELECT 1 /* x */ /*tracestate='a%3Db'*/":                                                              nil,
		"SELECT 1 -- traceparent='" + traceparent + "'":                                                        nil,
		"SELECT 'traceparent=''" + traceparent + "'''":                                                         nil,
		"SELECT /*traceparent='" + traceparent + "'*/ 1":                                                       nil,
		"SELECT 1 /*traceparent=" + traceparent + "*/":                                                         nil,
		"/*traceparent='":                  nil,
		"*/ traceparent":                   nil,
		"SELECT 1 /*traceparent='%zz'*/":   nil,
		"/*traceparent=''*/ SELECT 1":      nil,
		"SELECT traceparent */":            nil,
		"SELECT 1 /*traceparent='a'b'c'*/": {"traceparent": "a'b'c"},
	} {
		if diff := cmp.Diff(want, commentTags(sql)); diff != "" {
			t.Errorf("%s: %s", sql, diff)
		}
	}
}

func FuzzCommentTags(f *testing.F) {
	f.Add("SELECT 1 /*traceparent='" + traceparent + "'*/")
	f.Fuzz(func(_ *testing.T, sql string) { remoteSpan(sql) })
}

// TestSpans runs statements in all the ways there are and looks at what is told of them.
func TestSpans(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	s := newSet(t, func(c *Config) { c.Tracing = provider })
	ctx := context.Background()
	conn := connect(t, s.url(""))
	execute(t, conn, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	const comment = " /*traceparent='" + traceparent + "'*/"
	for _, c := range []struct {
		sql  string
		mode pgx.QueryExecMode
		want string // operation, SQLSTATE, text: of each span
	}{
		{"SELECT v FROM t WHERE v = 'secret'" + comment, pgx.QueryExecModeSimpleProtocol, "SELECT  leader=false SELECT v FROM t WHERE v = ?"},
		{"SELECT v FROM t WHERE v = 'secret'" + comment, pgx.QueryExecModeExec, "SELECT  leader=false SELECT v FROM t WHERE v = ?"},
		{"INSERT INTO t VALUES (1, 'secret')" + comment, pgx.QueryExecModeExec, "INSERT  leader=true INSERT INTO t VALUES (?, ?)"},
		{"INSERT INTO t VALUES (1, 'secret')" + comment, pgx.QueryExecModeSimpleProtocol, "INSERT 23505 leader=true INSERT INTO t VALUES (?, ?)"},
		{"SET application_name = 'secret'" + comment, pgx.QueryExecModeSimpleProtocol, "SET  leader= SET application_name = ?"},
		{"BEGIN; DELETE FROM t WHERE id = 7; COMMIT" + comment, pgx.QueryExecModeSimpleProtocol, "BEGIN  leader= BEGIN|DELETE  leader=true DELETE FROM t WHERE id = ?|COMMIT  leader= COMMIT"},
		{"CREATE TABLE u (id int PRIMARY KEY)" + comment, pgx.QueryExecModeSimpleProtocol, "CREATE TABLE  leader= CREATE TABLE u (id int PRIMARY KEY)"},
	} {
		spans.Reset()
		_, err := conn.Exec(ctx, c.sql, c.mode)
		var got []string
		for _, span := range spans.GetSpans() {
			a := attribute.NewSet(span.Attributes...)
			text := func(key attribute.Key) string {
				v, _ := a.Value(key)
				return v.Emit()
			}
			got = append(got, fmt.Sprintf("%s %s leader=%s %s", text("db.operation.name"), text("db.response.status_code"), text("pgdist.leader"), strings.TrimSpace(strings.Split(text("db.query.text"), "/*")[0])))
			if span.SpanContext.TraceID().String() != trace || span.Parent.SpanID().String() != parent {
				t.Errorf("%s: its trace is %s, its parent %s", c.sql, span.SpanContext.TraceID(), span.Parent.SpanID())
			}
			if text("db.namespace") != "postgres" || span.EndTime.Before(span.StartTime) || strings.Contains(fmt.Sprint(span), "secret") {
				t.Errorf("%s: %+v", c.sql, span)
			}
		}
		if all := strings.Join(got, "|"); all != c.want {
			t.Errorf("%s (%v):\n%s, want\n%s", c.sql, err, all, c.want)
		}
	}
	spans.Reset()
	execute(t, conn, "SELECT 1")
	if list := spans.GetSpans(); len(list) != 1 || list[0].Parent.IsValid() {
		t.Errorf("a statement without a comment: %v", list)
	}
}
