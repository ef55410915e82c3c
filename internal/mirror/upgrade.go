package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// An upgrade replaces all functions of schema pgdist and runs the numbered
// changes of its tables (sql/upgrade/NN.sql, NN being the version they lead to)
// in one transaction per member, under the fence: writers wait for it, nobody
// is cut off. Programs of the version before go on mirroring, before, between
// and after: a new version keeps the functions that the one before calls.

const (
	// fenceWait is how long one attempt at the fence may keep writers waiting
	// behind a transaction that has written and is still open.
	fenceWait = 500 * time.Millisecond
	// fencePatience is how long attempts go on.
	fencePatience = 30 * time.Second
)

// versionError: a schema is of another version than this program's.
type versionError struct{ have int }

func (e *versionError) Error() string {
	return fmt.Sprintf("its pgdist schema has version %d, this program needs %d", e.have, Version)
}

// wrongVersion says what to do about a schema of another version; nil if it is
// this program's.
func wrongVersion(op, host string, have int) error {
	hint := "run: pgdist init DSN, which upgrades it in place"
	if have > Version {
		hint = "a newer pgdist has upgraded it: use that program; there is no way back but pgdist uninstall, and init"
	}
	if have == Version {
		return nil
	}
	return &Error{Op: op, Host: host, Err: &versionError{have}, Hint: hint}
}

// upgradeAll brings members of one set to Version. It tells whether there was
// anything to do.
func upgradeAll(ctx context.Context, all []*candidate, report func(string, ...any)) (bool, error) {
	var errs []error
	for _, k := range all {
		if k.here.Version > Version {
			errs = append(errs, wrongVersion("upgrade", k.cfg.Host(), k.here.Version))
		}
	}
	if len(errs) > 0 {
		return false, errors.Join(errs...)
	}
	did := false
	for _, k := range all {
		if k.here.Version == Version {
			continue
		}
		report("upgrading %s from version %d to %d", k.cfg.Host(), k.here.Version, Version)
		if err := k.upgrade(ctx, report); err != nil {
			return did, &Error{Op: "upgrade", Host: k.cfg.Host(), Err: err, Hint: "nothing was changed there; run init again"}
		}
		did = true
	}
	return did, nil
}

func (k *candidate) upgrade(ctx context.Context, report func(string, ...any)) error {
	functions, err := k.c.scripts("02", "08")
	if err != nil {
		return err
	}
	grants, err := k.c.scripts("09", "09")
	if err != nil {
		return err
	}
	steps, err := migrations(k.here.Version)
	if err != nil {
		return err
	}
	functions = strings.ReplaceAll(functions, "\nCREATE FUNCTION ", "\nCREATE OR REPLACE FUNCTION ")
	said := false
	for deadline := time.Now().Add(fencePatience); ; {
		if err := k.fence(ctx, report); err != nil {
			return err
		}
		// Who reads a table that is to have other triggers, and is about to write, waits for the fence:
		// neither would go on, and writers wait for both.
		err := k.orBack(ctx, k.c.exec(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d; SET LOCAL deadlock_timeout = '50ms'; SET LOCAL client_min_messages = warning; `, fenceWait.Milliseconds())+unheard+`
			SELECT set_config('pgdist.busy', secret, true) FROM pgdist.meta;
			`+k.c.words(steps)+functions+grants+`
			UPDATE pgdist.tables SET form = '';
			SELECT pgdist.sync();
			SELECT set_config('pgdist.busy', '', true);
			UPDATE pgdist.meta SET version = `+fmt.Sprint(Version)+`;
			COMMIT`))
		if state := sqlState(err); state != "55P03" && state != "40P01" || time.Now().After(deadline) {
			return err
		}
		if !said {
			report("waiting for transactions that use tables: %v", err)
			said = true
		}
		if !sleep(ctx, fenceWait/2) {
			return context.Cause(ctx)
		}
	}
}

// fence begins the transaction and locks writers out. New writers queue behind
// the attempt, so it is a short one, made again until a moment comes in which
// nobody has an open transaction that has written.
func (k *candidate) fence(ctx context.Context, report func(string, ...any)) error {
	said := ""
	for deadline := time.Now().Add(fencePatience); ; {
		err := k.orBack(ctx, k.c.exec(ctx, fmt.Sprintf(`BEGIN; SET LOCAL lock_timeout = %d; LOCK TABLE pgdist.boot IN ACCESS EXCLUSIVE MODE`, fenceWait.Milliseconds())))
		if sqlState(err) != "55P03" {
			return err
		}
		who, e := k.c.one(ctx, `SELECT coalesce(string_agg(DISTINCT coalesce('process ' || a.pid || ' of ' || a.usename || ', open since ' || a.xact_start::timestamptz(0), 'a prepared transaction'), '; '), 'nobody any more')
			FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
			WHERE l.granted AND l.locktype = 'relation' AND l.relation = 'pgdist.boot'::regclass AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		if e != nil {
			return errors.Join(err, e)
		}
		if who != said && strings.Contains(who, "open since") {
			report("waiting for the end of transactions that have written: %s", who)
			said = who
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("transactions that have written stayed open for %v: %s", fencePatience, who)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(fenceWait / 2):
		}
	}
}

// orBack rolls back after an error.
func (k *candidate) orBack(ctx context.Context, err error) error {
	if err != nil && k.c.TxStatus() != 'I' && !k.c.IsClosed() {
		if e := k.c.exec(ctx, "ROLLBACK"); e != nil {
			return fmt.Errorf("%w (and the rollback: %w)", err, e)
		}
	}
	return err
}

// migrations joins the changes of tables since version from.
func migrations(from int) (string, error) {
	var b strings.Builder
	for v := from + 1; v <= Version; v++ {
		sql, err := fs.ReadFile(schemaSQL, fmt.Sprintf("sql/upgrade/%02d.sql", v))
		if err != nil {
			return "", fmt.Errorf("no way from version %d to %d: %w", v-1, v, err)
		}
		b.Write(sql)
		b.WriteByte('\n')
	}
	return b.String(), nil
}
