//go:build unix

package compat

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jmoiron/sqlx"
)

type person struct {
	ID    int            `db:"id"`
	First string         `db:"first_name"`
	Mail  sql.NullString `db:"mail"`
	Tags  []byte         `db:"tags"`
}

const people = `
CREATE TABLE person (id serial PRIMARY KEY, first_name text NOT NULL, mail text UNIQUE, tags jsonb DEFAULT '{}');
CREATE TABLE place (country text, city text NULL, telcode integer);
CREATE INDEX place_code ON place (telcode);`

func TestSqlx(t *testing.T) {
	both(t, func(t *testing.T, raw *sql.DB, note note) {
		db := sqlx.NewDb(raw, "pgx")
		db.MustExec(people)
		sqlxWrites(t, db, note)
		sqlxReads(t, db, note)
		sqlxTransactions(t, db, note)
		sqlxPrepared(t, db, note)
		note("%s", table(t, raw, "SELECT * FROM person ORDER BY id"))
		note("%s", table(t, raw, "SELECT * FROM place ORDER BY country, city, telcode"))
	})
}

func sqlxWrites(t *testing.T, db *sqlx.DB, note note) {
	r, err := db.NamedExec(`INSERT INTO person (first_name, mail) VALUES (:first_name, :mail)`, []person{
		{First: "Ada", Mail: sql.NullString{String: "ada@example.org", Valid: true}}, {First: "Bob"}, {First: "Cyd"},
	})
	n, _ := r.RowsAffected()
	note("batch %d %s", n, told(err))
	_, err = db.NamedExec(`INSERT INTO place VALUES (:country, :city, :code)`, map[string]any{"country": "JP", "city": nil, "code": 81})
	note("map %s", told(err))
	_, err = db.NamedExec(`INSERT INTO person (first_name, mail) VALUES (:first_name, :mail)`, person{First: "Eve", Mail: sql.NullString{String: "ada@example.org", Valid: true}})
	note("duplicate %s", told(err))
	rows, err := db.NamedQuery(`INSERT INTO person (first_name) VALUES (:name) RETURNING id, first_name`, map[string]any{"name": "Dan"})
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var p person
		note("returning %s %v", told(rows.StructScan(&p)), p)
	}
	note("%s", told(rows.Close()))
	var id int
	note("get %s %d", told(db.Get(&id, `INSERT INTO person (first_name, tags) VALUES ($1, $2) RETURNING id`, "Fay", `{"a":[1,2]}`)), id)
}

func sqlxReads(t *testing.T, db *sqlx.DB, note note) {
	var all []person
	note("select %s %v", told(db.Select(&all, "SELECT * FROM person ORDER BY id")), all)
	var one person
	note("get %s %v", told(db.Get(&one, "SELECT * FROM person WHERE first_name = $1", "Ada")), one)
	note("none %s", told(db.Get(&one, "SELECT * FROM person WHERE id = $1", -1)))
	note("missing destination %s", told(db.Get(&one, "SELECT 1 AS other")))
	query, args, err := sqlx.In("SELECT * FROM person WHERE id IN (?) ORDER BY id", []int{1, 3})
	if err != nil {
		t.Fatal(err)
	}
	var some []person
	note("in %s %v", told(db.Select(&some, db.Rebind(query), args...)), some)
	rows, err := db.Queryx("SELECT * FROM place")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		m := map[string]any{}
		note("map %s %v", told(rows.MapScan(m)), m)
	}
	note("%s", told(rows.Err()))
	s, err := db.QueryRowx("SELECT count(*), max(id) FROM person").SliceScan()
	note("slice %v %s", s, told(err))
}

func sqlxTransactions(t *testing.T, db *sqlx.DB, note note) {
	ctx := context.Background()
	tx, err := db.Beginx()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	note("read first %s %d", told(tx.Get(&n, "SELECT count(*) FROM person")), n)
	tx.MustExec("INSERT INTO place VALUES ($1, $2, $3)", "DE", "Köln", 221)
	tx.MustExec("SAVEPOINT a")
	_, err = tx.Exec("INSERT INTO person (first_name, mail) VALUES ('x', 'ada@example.org')")
	note("in tx %s", told(err))
	tx.MustExec("ROLLBACK TO SAVEPOINT a")
	_, err = tx.NamedExec("UPDATE place SET city = :city WHERE country = 'JP'", map[string]any{"city": "東京"})
	note("named %s %s", told(err), told(tx.Commit()))
	tx = db.MustBeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	tx.MustExec("DELETE FROM place")
	note("rollback %s", told(tx.Rollback()))
	tx = db.MustBeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	_, err = tx.Exec("DELETE FROM place")
	note("read only %s %s", told(err), told(tx.Rollback()))
}

func sqlxPrepared(t *testing.T, db *sqlx.DB, note note) {
	st, err := db.Preparex("SELECT * FROM person WHERE id >= $1 ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	for id := range 5 {
		var list []person
		note("prepared %s %v", told(st.Select(&list, id)), list)
	}
	note("%s", told(st.Close()))
	named, err := db.PrepareNamed("UPDATE person SET mail = :mail WHERE first_name = :first")
	if err != nil {
		t.Fatal(err)
	}
	tx := db.MustBegin()
	r, err := tx.NamedStmt(named).Exec(map[string]any{"mail": "bob@example.org", "first": "Bob"})
	n, _ := r.RowsAffected()
	note("named in tx %d %s %s", n, told(err), told(tx.Commit()))
	note("%s", told(named.Close()))
	// The table changes, and the program prepares anew.
	for _, q := range []string{"SELECT * FROM place ORDER BY country", "SELECT p.* FROM place p ORDER BY country"} {
		st, err := db.Preparex(q)
		if err != nil {
			t.Fatal(err)
		}
		var places []struct{ Country, City string }
		note("%s %v", told(st.Unsafe().Select(&places)), places)
		note("%s", told(st.Close()))
		db.MustExec("ALTER TABLE place ADD COLUMN IF NOT EXISTS note text DEFAULT 'n'")
	}
}
