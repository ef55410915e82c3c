package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// extend makes the source's extensions, in its versions: pg_dump leaves it to the
// server which version, and one of another major version may bring another. Their
// schemas are there by now; what one needs was made before it.
func (r *resync) extend(ctx context.Context) error {
	rows, err := r.snap.c.call(ctx, `SELECT x.extname, x.extversion, quote_ident(n.nspname) FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace
		WHERE x.extname <> 'plpgsql' ORDER BY x.oid`)
	if err != nil {
		return r.source.fail("list extensions", err)
	}
	for _, x := range rows {
		sql := fmt.Sprintf("CREATE EXTENSION IF NOT EXISTS %s WITH SCHEMA %s VERSION %s", quoteIdent(string(x[0])), x[2], quoteLiteral(string(x[1])))
		if err := r.restore(ctx, sql, "make extension "+string(x[0]), false); err != nil {
			return err
		}
	}
	return nil
}

// computedAlike compares stored generated columns with the source's, between servers
// of different major versions: the target computed its own, by functions that may have
// changed.
func (r *resync) computedAlike(ctx context.Context) error {
	if r.major == r.src.Version/10000 {
		return nil
	}
	rows, err := r.snap.c.call(ctx, `SELECT format('%I.%I', n.nspname, c.relname), a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = 's' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist')`)
	if err != nil {
		return r.source.fail("list generated columns", err)
	}
	columns := map[string][]string{}
	for _, row := range rows {
		columns[string(row[0])] = append(columns[string(row[0])], string(row[1]))
	}
	for _, t := range slices.Sorted(maps.Keys(columns)) {
		if _, aside := r.aside[r.own[t].id]; aside {
			continue
		}
		sql := sumSQL(&relation{Name: t}, columns[t], "")
		// Whoever waits for a lock would end what has the snapshot.
		if err := r.snap.c.exec(ctx, "SAVEPOINT compared"); err != nil {
			return r.source.fail("read table "+t, err)
		}
		a := r.snap.c.ExecParams(ctx, sql, nil, nil, nil, nil).Read()
		if own, ok := r.own[t]; ok && a.Err == nil {
			_, a.Err = r.snap.c.call(ctx, `SELECT pgdist.unchanged($1::int[])`, tabSet{own.id: true}.literal())
		}
		if err := r.snap.c.exec(ctx, "ROLLBACK TO SAVEPOINT compared; RELEASE SAVEPOINT compared"); err != nil {
			return r.source.fail("read table "+t, errors.Join(a.Err, err))
		}
		if state := sqlState(a.Err); state == "57014" || state == codeRewritten || state == "42703" || nameless(a.Err) {
			r.o.Report("table %s has changed since it was copied: its generated columns are not compared (pgdist verify does)", t)
			continue
		}
		if a.Err != nil {
			return r.source.fail("read table "+t, a.Err)
		}
		b := r.setup.ExecParams(ctx, sql, nil, nil, nil, nil).Read()
		if b.Err != nil {
			return r.target.fail("read table "+t, b.Err)
		}
		if !slices.EqualFunc(a.Rows[0], b.Rows[0], slices.Equal[[]byte]) {
			return r.refuse(r.target.host, "make the column an ordinary one (ALTER TABLE … ALTER COLUMN … DROP EXPRESSION), upgrade all members, and make it anew",
				"PostgreSQL %d computes other values than %d in generated columns of %s: %s", r.major, r.src.Version/10000, t, strings.Join(columns[t], ", "))
		}
	}
	return nil
}
