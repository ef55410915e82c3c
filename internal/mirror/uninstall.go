package mirror

import (
	"context"
	"errors"
	"slices"

	"github.com/pgdist/pgdist/health"
)

// Uninstall removes pgdist from every member that can be reached, without a
// trace, also from those that were added to the set since cfg was written. The data stays
// as it is.
func Uninstall(ctx context.Context, cfg Config, report func(format string, args ...any)) error {
	if report == nil {
		report = func(string, ...any) {}
	}
	all := slices.Clone(cfg.Members)
	found := askAll(ctx, cfg)
	for _, a := range found[len(all):] {
		all = append(all, a.cfg)
	}
	return cfg.uninstall(ctx, all, report)
}

func (c Config) uninstall(ctx context.Context, members []MemberConfig, report func(format string, args ...any)) error {
	var errs []error
	for _, mc := range members {
		if mc.Register != "" {
			r := c.open(mc.Register)
			if err := errors.Join(r.Remove(ctx), r.Close()); err != nil {
				errs = append(errs, err)
				continue
			}
			report("removed from %s", mc.Host())
			continue
		}
		dctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
		c, err := dial(dctx, mc.Conn, nil)
		cancel()
		if err != nil {
			errs = append(errs, &Error{Op: "uninstall", Host: mc.Host(), Err: err, Hint: connectHint(err, mc)})
			continue
		}
		err = c.uninstall(ctx)
		c.close()
		if err != nil {
			hint := "it needs the role that installed, and no open transactions"
			if sqlState(err) == "53200" {
				hint = "increase max_locks_per_transaction of this server and run it again"
			}
			errs = append(errs, &Error{Op: "uninstall", Host: mc.Host(), Err: err, Hint: hint})
			continue
		}
		report("removed from %s", mc.Host())
	}
	return errors.Join(errs...)
}

const (
	// deafSQL has the server tell pgdist of nothing more, and is the beginning of a transaction.
	deafSQL = `SET lock_timeout = '10s'; SET client_min_messages = warning; BEGIN; ` + unheard + `
		DROP EVENT TRIGGER IF EXISTS "!pgdist_start"; DROP EVENT TRIGGER IF EXISTS "!pgdist_ddl"; DROP EVENT TRIGGER IF EXISTS "!pgdist_as";
		DROP EVENT TRIGGER IF EXISTS "!pgdist_drop"; DROP EVENT TRIGGER IF EXISTS "!pgdist_rewrite";` + refillSQL + `;`
	dropSQL = `DROP SCHEMA IF EXISTS pgdist CASCADE; COMMIT`
	// strangeSQL makes a database one that nobody takes for a member any more, so that its
	// pieces are in nobody's way.
	strangeSQL = `DROP FUNCTION IF EXISTS pgdist.here(); COMMIT`
	// generatedSQL are functions that were made for tables, some tables' at a time.
	generatedSQL = `SELECT p.oid::regprocedure AS f FROM pg_proc p WHERE p.pronamespace = to_regnamespace('pgdist') AND p.proname ~ '^[cawxry]_[0-9]+$'
		ORDER BY substr(p.proname, 3)::int LIMIT 120`
)

// uninstall removes pgdist, all at once, or piece by piece where that takes more locks than the
// server has. What is left if it ends in between is removed when it is called again.
func (c *conn) uninstall(ctx context.Context) error {
	err := c.without(ctx, deafSQL+dropSQL)
	if sqlState(err) != "53200" {
		return err
	}
	if err := c.conclude(ctx, "ROLLBACK"); err != nil {
		return err
	}
	if err := c.without(ctx, deafSQL+strangeSQL); err != nil {
		return err
	}
	for {
		rows, err := c.call(ctx, generatedSQL)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return c.without(ctx, deafSQL+dropSQL)
		}
		if err := c.without(ctx, `BEGIN; `+unheard+`DO $$ DECLARE f regprocedure; BEGIN FOR f IN `+generatedSQL+` LOOP EXECUTE format('DROP FUNCTION %s CASCADE', f); END LOOP; END $$; COMMIT`); err != nil {
			return err
		}
	}
}

// without runs what removes something, again after a deadlock: programs that have not heard
// yet ask it who it is, table after table.
func (c *conn) without(ctx context.Context, sql string) error {
	for tries := 0; ; tries++ {
		err := c.exec(ctx, sql)
		if sqlState(err) != "40P01" || tries == 10 {
			return err
		}
		if err := c.conclude(ctx, "ROLLBACK"); err != nil {
			return err
		}
	}
}
