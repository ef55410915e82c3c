//go:build unix

package compat

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed testdata
var testdata embed.FS

func sub(t *testing.T, dir string) fs.FS {
	t.Helper()
	f, err := fs.Sub(testdata, "testdata/"+dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// results tells what migrations ran, and how they ended.
func results(list []*goose.MigrationResult, err error) string {
	var b strings.Builder
	for _, r := range list {
		if r != nil {
			fmt.Fprintf(&b, "%s %s empty %v %v; ", r.Source.Path, r.Direction, r.Empty, r.Error)
		}
	}
	return b.String() + told(err)
}

func one(r *goose.MigrationResult, err error) string {
	return results([]*goose.MigrationResult{r}, err)
}

func TestGoose(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note note) {
		ctx := context.Background()
		goGo := goose.NewGoMigration(10, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "CREATE TABLE by_go (id int PRIMARY KEY, n int)"); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO by_go SELECT $1::int, count(*) FROM orders", 7)
			return err
		}}, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "DROP TABLE by_go")
			return err
		}})
		p, err := goose.NewProvider(goose.DialectPostgres, db, sub(t, "goose"), goose.WithGoMigrations(goGo))
		if err != nil {
			t.Fatal(err)
		}
		note("by one %s", one(p.UpByOne(ctx)))
		note("up %s", results(p.Up(ctx)))
		note("%s", schema(t, db))
		note("%s", table(t, db, "SELECT * FROM orders ORDER BY id"))
		note("%s", table(t, db, "SELECT * FROM audit ORDER BY id"))
		note("again %s", results(p.Up(ctx)))
		for range 3 { // redo
			note("down %s", one(p.Down(ctx)))
			note("up %s", one(p.UpByOne(ctx)))
		}
		note("to 2 %s", results(p.DownTo(ctx, 2)))
		note("up %s", results(p.Up(ctx)))
		note("%s", table(t, db, "SELECT * FROM orders ORDER BY id"))
		status, err := p.Status(ctx)
		for _, s := range status {
			note("%s %s", s.Source.Path, s.State)
		}
		version, err := p.GetDBVersion(ctx)
		note("%d %s", version, told(err))
		note("down to 0 %s", results(p.DownTo(ctx, 0)))
		note("%s", schema(t, db))
		note("up %s", results(p.Up(ctx)))
		note("%s", table(t, db, "SELECT id, version_id, is_applied FROM goose_db_version ORDER BY id"))
	})
}

// TestGooseFailure: a migration that fails leaves nothing of itself.
func TestGooseFailure(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note note) {
		ctx := context.Background()
		p, err := goose.NewProvider(goose.DialectPostgres, db, sub(t, "goose_failing"))
		if err != nil {
			t.Fatal(err)
		}
		list, err := p.Up(ctx)
		note("up %s", results(list, err))
		note("%s", schema(t, db))
		note("%s", table(t, db, "SELECT version_id, is_applied FROM goose_db_version ORDER BY id"))
	})
}

// TestGooseLock: goose's session lock is an advisory lock on one connection.
func TestGooseLock(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note note) {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			t.Fatal(err)
		}
		p, err := goose.NewProvider(goose.DialectPostgres, db, sub(t, "goose"), goose.WithSessionLocker(locker))
		if err != nil {
			t.Fatal(err)
		}
		note("up %s", results(p.Up(context.Background())))
		note("down %s", results(p.DownTo(context.Background(), 0)))
	})
}

// TestGooseHiddenDDL: DDL inside a DO block.
func TestGooseHiddenDDL(t *testing.T) {
	both(t, func(t *testing.T, db *sql.DB, note note) {
		ctx := context.Background()
		p, err := goose.NewProvider(goose.DialectPostgres, db, sub(t, "goose_hidden"))
		if err != nil {
			t.Fatal(err)
		}
		note("up %s", results(p.Up(ctx)))
		note("%s", table(t, db, "SELECT count(*) FROM pg_class WHERE relname = 'hidden'"))
		note("down %s", results(p.DownTo(ctx, 0)))
		note("%s", table(t, db, "SELECT count(*) FROM pg_class WHERE relname = 'hidden'"))
	})
}
