package driver

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/engine"
)

// pgx lets options precede a statement's arguments. options counts them.
func options(args []driver.NamedValue) int {
	for i := range args {
		switch args[i].Value.(type) {
		case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID, pgx.QueryRewriter:
		default:
			return i
		}
	}
	return len(args)
}

// numbered replaces pgx.NamedArgs, so that what is judged is what the server
// gets. A program's own QueryRewriter is left to pgx.
func numbered(ctx context.Context, query string, args []driver.NamedValue) (string, []driver.NamedValue, error) {
	for i := range options(args) {
		var rewriter pgx.QueryRewriter
		switch v := args[i].Value.(type) {
		case pgx.NamedArgs:
			rewriter = v
		case pgx.StrictNamedArgs:
			rewriter = v
		default:
			continue
		}
		rewritten, values, err := rewriter.RewriteQuery(ctx, nil, query, nil)
		if err != nil {
			return "", nil, fmt.Errorf("rewrite query failed: %w", err) // as pgx says it
		}
		out := append([]driver.NamedValue{}, args[:i]...)
		for _, v := range values {
			out = append(out, driver.NamedValue{Ordinal: len(out) + 1, Value: v})
		}
		return rewritten, out, nil
	}
	return query, args, nil
}

// bind tells the engine the text of bound parameters where its judgement of the
// statement depends on them.
func bind(call *engine.Call, args []driver.NamedValue) {
	for i := range call.Verdict.Statements {
		if len(call.Verdict.Statements[i].Sets) > 0 {
			args = args[options(args):]
			call.Param = func(n int) (string, bool) { return textOf(args, n) }
			return
		}
	}
}

// textOf is the text of parameter n, counted from 1, if it has one for certain.
func textOf(args []driver.NamedValue, n int) (string, bool) {
	if n < 1 || n > len(args) {
		return "", false
	}
	switch v := args[n-1].Value.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), v != nil
	case *string:
		if v != nil {
			return *v, true
		}
	}
	return "", false
}
