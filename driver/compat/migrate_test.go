//go:build unix

package compat

import (
	"database/sql"
	"testing"

	"github.com/golang-migrate/migrate/v4"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
)

func TestMigrate(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note note) {
		target, err := migratepgx.WithInstance(db, &migratepgx.Config{})
		if err != nil {
			t.Fatal(err)
		}
		source, err := iofs.New(sub(t, "migrate"), ".")
		if err != nil {
			t.Fatal(err)
		}
		m, err := migrate.NewWithInstance("iofs", source, "pgx5", target)
		if err != nil {
			t.Fatal(err)
		}
		version := func() {
			v, dirty, err := m.Version()
			note("version %d %v %s", v, dirty, told(err))
		}
		note("up %s", told(m.Up()))
		version()
		note("%s", schema(t, db))
		note("%s", table(t, db, "SELECT * FROM stock ORDER BY id"))
		note("again %s", told(m.Up()))
		note("steps %s", told(m.Steps(-2)))
		version()
		note("steps %s", told(m.Steps(1)))
		note("to 3 %s", told(m.Migrate(3)))
		version()
		note("%s", told(m.Force(2)))
		version()
		note("%s", told(m.Force(3)))
		note("down %s", told(m.Down()))
		note("%s", schema(t, db))
		note("up %s", told(m.Up()))
		note("drop %s", told(m.Drop()))
		note("%s", schema(t, db))
	})
}
