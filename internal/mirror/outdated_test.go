package mirror

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestOutdated tells errors that a newer snapshot cures from those that stay.
func TestOutdated(t *testing.T) {
	for _, c := range []struct {
		err  pgconn.PgError
		want bool
	}{
		{pgconn.PgError{Code: codeRewritten}, true},
		{pgconn.PgError{Code: "42883", Message: "function pgdist.x_12() does not exist"}, true},
		{pgconn.PgError{Code: "42883", Message: "function pgdist.r_3(text[]) does not exist"}, true},
		{pgconn.PgError{Code: "42883", Message: "function public.r_3(text[]) does not exist", Where: "PL/pgSQL function pgdist.r_3(text[]) line 3 at RETURN QUERY"}, false},
		{pgconn.PgError{Code: "42883", Message: "function pgdist.enter(bigint) does not exist"}, false},
		{pgconn.PgError{Code: "42P01", Message: `relation "public.t" does not exist`, Where: "PL/pgSQL function pgdist.x_12() line 1 at RETURN QUERY"}, true},
		{pgconn.PgError{Code: "42P01", Message: `relation "public.t" does not exist`, Where: "PL/pgSQL function public.f() line 1 at RETURN QUERY"}, false},
		{pgconn.PgError{Code: "3F000", Message: `schema "s" does not exist`, Where: "PL/pgSQL function pgdist.r_12(text[]) line 1 at SQL statement"}, true},
		{pgconn.PgError{Code: "3F000", Message: `schema "s" does not exist`}, false},
		{pgconn.PgError{Code: codePosition}, false},
		{pgconn.PgError{Code: "XX000", Message: "cache lookup failed for function 17574"}, true},
		{pgconn.PgError{Code: "XX000", Message: "invalid page in block 3"}, false},
	} {
		if got := outdated(&c.err); got != c.want {
			t.Errorf("%s %s: %t", c.err.Code, c.err.Message, got)
		}
	}
}

// TestDroppedWhileRead drops a table after the snapshot by which a member that is
// catching up reads it whole.
func TestDroppedWhileRead(t *testing.T) {
	r := newRig(t, 2, basics)
	c := r.client()
	r.ddl(c, `CREATE TABLE gone (id int PRIMARY KEY)`)
	reader := r.client()
	r.do(reader, `BEGIN ISOLATION LEVEL REPEATABLE READ`)
	var id int
	if err := reader.QueryRow(r.ctx(), `SELECT id FROM pgdist.tables WHERE rel = 'gone'`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	r.ddl(c, `DROP TABLE gone`)
	_, err := reader.Exec(r.ctx(), `SELECT r FROM pgdist.x_`+itoa(uint32(id))+`() r`)
	if !outdated(err) {
		t.Errorf("reading a dropped table by an older snapshot: %v", err)
	}
}
