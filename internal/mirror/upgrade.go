package mirror

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
)

// An upgrade replaces all functions of schema pgdist and runs the numbered
// changes of its tables (sql/upgrade/NN.sql, NN being the version they lead to)
// in one transaction per member, under the fence: writers wait for it, nobody
// is cut off. Two versions may mirror each other meanwhile.

// upgradeAll brings members of one set to Version. It tells whether there was
// anything to do.
func upgradeAll(ctx context.Context, all []*candidate, report func(string, ...any)) (bool, error) {
	did := false
	for _, k := range all {
		if k.here.Version > Version {
			return did, &Error{Op: "upgrade", Host: k.cfg.Host(), Err: fmt.Errorf("its pgdist schema has version %d, this program knows %d", k.here.Version, Version),
				Hint: "use the newer program"}
		}
		if k.here.Version == Version {
			continue
		}
		report("upgrading %s from version %d to %d", k.cfg.Host(), k.here.Version, Version)
		if err := k.upgrade(ctx); err != nil {
			return did, &Error{Op: "upgrade", Host: k.cfg.Host(), Err: err, Hint: "nothing was changed there; run init again"}
		}
		did = true
	}
	return did, nil
}

func (k *candidate) upgrade(ctx context.Context) error {
	functions, err := scripts("02", "08")
	if err != nil {
		return err
	}
	grants, err := scripts("09", "09")
	if err != nil {
		return err
	}
	steps, err := migrations(k.here.Version)
	if err != nil {
		return err
	}
	functions = strings.ReplaceAll(functions, "\nCREATE FUNCTION ", "\nCREATE OR REPLACE FUNCTION ")
	err = k.c.exec(ctx, `BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL client_min_messages = warning;
		SELECT set_config('pgdist.busy', secret, true) FROM pgdist.meta;
		LOCK TABLE pgdist.boot IN ACCESS EXCLUSIVE MODE;
		`+steps+functions+grants+`
		UPDATE pgdist.tables SET form = '';
		SELECT pgdist.sync();
		SELECT set_config('pgdist.busy', '', true);
		UPDATE pgdist.meta SET version = `+fmt.Sprint(Version)+`;
		COMMIT`)
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
