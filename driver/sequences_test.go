package driver

import (
	"context"
	"database/sql"
	"testing"
)

// TestMirroredSequences: whatever draws from a sequence, and whether it succeeds
// or not, once the client has its answer every database knows of it: no value
// that anybody has seen is given out again after a failover.
func TestMirroredSequences(t *testing.T) {
	db, servers := mirrored(t, "")
	run(t, db, `
		CREATE TABLE items (id serial PRIMARY KEY, code text UNIQUE, n int CHECK (n < 100), late int UNIQUE DEFERRABLE INITIALLY DEFERRED);
		CREATE SEQUENCE codes;
		CREATE SEQUENCE "odd ""name, {x}\";
		CREATE SEQUENCE down INCREMENT -3 MINVALUE -1000;
		CREATE SEQUENCE turning MAXVALUE 7 CYCLE;
		CREATE SEQUENCE hoard CACHE 10;
		CREATE TABLE stamped (k int PRIMARY KEY, code text);
		CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.code := nextval('codes'); IF NEW.k < 0 THEN RETURN NULL; END IF; RETURN NEW; END $$;
		CREATE TRIGGER stamp BEFORE INSERT ON stamped FOR EACH ROW EXECUTE FUNCTION stamp();
		CREATE FUNCTION swallowed() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO items (n) VALUES (1000); RETURN 1; EXCEPTION WHEN check_violation THEN RETURN 0; END $$;
		CREATE VIEW drawing AS SELECT nextval('codes') AS v`)
	ctx := context.Background()
	const all = `SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1`
	fails := func(state string, q string, args ...any) func(*testing.T, int) {
		return func(t *testing.T, i int) {
			if len(args) > 0 {
				args = []any{i}
			}
			if _, err := db.Exec(q, args...); sqlState(err) != state {
				t.Fatalf("%s: %v, want %s", q, err, state)
			}
		}
	}
	works := func(q string) func(*testing.T, int) {
		return func(t *testing.T, i int) {
			var v sql.NullString
			if err := db.QueryRow(q).Scan(&v); err != nil && err != sql.ErrNoRows {
				t.Fatalf("%s: %v", q, err)
			}
		}
	}
	tx := func(t *testing.T, end string, queries ...string) {
		c, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.ExecContext(ctx, "BEGIN"); err != nil {
			t.Fatal(err)
		}
		for _, q := range queries {
			_, _ = c.ExecContext(ctx, q) // some are to fail
		}
		_, _ = c.ExecContext(ctx, end)
	}
	for name, f := range map[string]func(*testing.T, int){
		"insert that fails":  fails("23514", "INSERT INTO items (n) VALUES (1000)"),
		"with parameters":    fails("23514", "INSERT INTO items (n) VALUES (1000 + $1)", 0),
		"trigger":            works("INSERT INTO stamped SELECT coalesce(max(k), 0) + 1 FROM stamped RETURNING code"),
		"trigger, no row":    works("INSERT INTO stamped VALUES (-1) RETURNING code"),
		"caught error":       works("SELECT swallowed()"),
		"view":               works("SELECT v FROM drawing"),
		"odd name":           works(`SELECT nextval('"odd ""name, {x}\"')`),
		"descending":         works("SELECT nextval('down')"),
		"cyclic":             works("SELECT nextval('turning')"),
		"cached":             works("SELECT nextval('hoard')"),
		"setval":             works("SELECT setval('codes', (random() * 1000)::int + 1, random() < 0.5)"),
		"several statements": fails("22012", "INSERT INTO items DEFAULT VALUES; SELECT 1/0"),
		"DDL after":          fails("22012", "INSERT INTO items DEFAULT VALUES; CREATE TABLE never (i int DEFAULT (1/0)); INSERT INTO never DEFAULT VALUES"),
		"do":                 fails("P0001", "DO $$ BEGIN PERFORM nextval('codes'); RAISE 'no'; END $$"),
		"rollback":           func(t *testing.T, _ int) { tx(t, "ROLLBACK", "INSERT INTO items DEFAULT VALUES") },
		"rollback of failed": func(t *testing.T, _ int) { tx(t, "ROLLBACK", "INSERT INTO items (n) VALUES (1000)") },
		"commit of failed":   func(t *testing.T, _ int) { tx(t, "COMMIT", "INSERT INTO items (n) VALUES (1000)") },
		"back to savepoint": func(t *testing.T, _ int) {
			tx(t, "COMMIT", "SAVEPOINT a", "INSERT INTO items DEFAULT VALUES", "ROLLBACK TO a", "SELECT 1")
		},
		"commit that fails": func(t *testing.T, _ int) { tx(t, "COMMIT", "INSERT INTO items (late) VALUES (1), (1)") },
		"restart": func(t *testing.T, _ int) {
			tx(t, "COMMIT", "TRUNCATE items RESTART IDENTITY", "INSERT INTO items DEFAULT VALUES")
		},
		"made anew": func(t *testing.T, _ int) {
			tx(t, "COMMIT", "DROP SEQUENCE down", "CREATE SEQUENCE down INCREMENT -3 MINVALUE -1000", "SELECT nextval('down')")
		},
		"altered": func(t *testing.T, _ int) { tx(t, "COMMIT", "ALTER SEQUENCE turning RESTART WITH 3") },
		"renamed there, back": func(t *testing.T, _ int) {
			tx(t, "COMMIT", "ALTER SEQUENCE hoard RENAME TO h", "SELECT nextval('h')", "ALTER SEQUENCE h RENAME TO hoard")
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 8 {
				f(t, i)
				equal(t, servers, all, 0)
			}
		})
	}
	t.Run("locked by others", func(t *testing.T) {
		// An open transaction that has a sequence to itself keeps nobody waiting.
		c, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, q := range []string{"BEGIN", "DROP SEQUENCE hoard"} {
			if _, err := c.ExecContext(ctx, q); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 4 {
			fails("23514", "INSERT INTO items (n) VALUES (1000)")(t, i)
			equal(t, servers, "SELECT last_value FROM items_id_seq", 0)
		}
		if _, err := c.ExecContext(ctx, "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		equal(t, servers, all, 0)
	})
}
