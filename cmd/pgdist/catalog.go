package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/internal/mirror"
)

// volatility is what a catalog says of functions: whether their worst overload
// is volatile. A schema of "" means whatever the search path finds.
type volatility map[classify.FuncRef]bool

// Volatile satisfies classify.Volatility.
func (v volatility) Volatile(schema, name string) (volatile, known bool) {
	volatile, known = v[classify.FuncRef{Schema: schema, Name: name}]
	return volatile, known
}

// Functions of the same name in other schemas count: which one a search path
// finds depends on the session.
const volatilitySQL = `SELECT bool_or(p.provolatile = 'v')::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
	WHERE p.proname = $2 AND ($1 = '' OR n.nspname = $1) HAVING count(*) > 0`

// askCatalog looks up the functions that v calls, on the first member that answers.
func askCatalog(ctx context.Context, mc mirror.Config, v *classify.Verdict) (classify.Volatility, error) {
	var errs []error
	for _, m := range mc.Members {
		known, err := askMember(ctx, m.Conn, v)
		if err == nil {
			return known, nil
		}
		errs = append(errs, &mirror.Error{Op: "read the catalog", Host: m.Host(), Err: err})
	}
	return nil, errors.Join(errs...)
}

func askMember(ctx context.Context, config *pgconn.Config, v *classify.Verdict) (volatility, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	known := volatility{}
	for i := range v.Statements {
		for _, f := range v.Statements[i].Functions {
			r := conn.ExecParams(ctx, volatilitySQL, [][]byte{[]byte(f.Schema), []byte(f.Name)}, nil, nil, nil).Read()
			if r.Err != nil {
				return nil, fmt.Errorf("look up function %s: %w", f.Name, r.Err)
			}
			if len(r.Rows) == 1 {
				known[f] = string(r.Rows[0][0]) == "true"
			}
		}
	}
	return known, nil
}
