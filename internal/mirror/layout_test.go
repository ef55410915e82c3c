package mirror

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A table that has come to have other columns on a follower than at the leader, or to be
// identified by another key, gets no rows there that are not its own: the member is excluded.
func TestRowsAreForTheSameColumns(t *testing.T) {
	for name, x := range map[string]struct{ table, before, other, write string }{
		"order":         {`CREATE TABLE t (id int PRIMARY KEY, a text, b text)`, ``, `CREATE TABLE t (id int PRIMARY KEY, b text, a text)`, `INSERT INTO t VALUES (2, 'a', 'b')`},
		"no key, order": {`CREATE TABLE t (a text, b text)`, ``, `CREATE TABLE t (b text, a text)`, `INSERT INTO t VALUES ('a', 'b')`},
		"one more":      {`CREATE TABLE t (id int PRIMARY KEY, a text)`, `INSERT INTO t VALUES (1, 'a')`, `CREATE TABLE t (id int PRIMARY KEY, a text, b text DEFAULT 'b')`, `UPDATE t SET a = 'c'`},
		"another key":   {`CREATE TABLE t (a int NOT NULL UNIQUE, b int NOT NULL)`, ``, `CREATE TABLE t (a int NOT NULL, b int NOT NULL UNIQUE)`, `INSERT INTO t VALUES (1, 2)`},
		"another type":  {`CREATE TABLE t (id int PRIMARY KEY, a float8)`, ``, `CREATE TABLE t (id int PRIMARY KEY, a float4)`, `INSERT INTO t VALUES (1, 1.00000001)`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 3, x.table)
			c := r.client()
			if x.before != "" {
				r.do(c, x.before)
			}
			id := r.set.View().Leader%3 + 1 // a follower
			other := pgtest.Connect(t, r.server(id).DSN())
			for _, q := range []string{`SET session_replication_role = replica`, `DROP TABLE t`, x.other,
				`SELECT pgdist.sync((SELECT jsonb_agg(jsonb_build_object('id', t.id, 'nsp', t.nsp, 'rel', t.rel, 'gen', t.gen)) FROM pgdist.tables t))`} {
				if _, err := other.Exec(r.ctx(), q); err != nil {
					t.Fatalf("%s: %v", q, err)
				}
			}
			r.do(c, x.write)
			if v := r.set.View(); len(v.InSync) != 2 || v.Has(id) {
				t.Errorf("the view is %v", v)
			}
			var n int
			if err := other.QueryRow(r.ctx(), `SELECT count(*) FROM t`).Scan(&n); err != nil || n != 0 {
				t.Errorf("%d rows were put in place: %v", n, err)
			}
			r.same()
			if name != "order" { // one copy is enough
				return
			}
			r.await("the member to have lost its place", func() bool { return r.set.States()[id] == textLost })
			if _, err := r.resync(r.ctx(), id, yes); err != nil {
				t.Fatal(err)
			}
			r.inSync(3)
			r.same()
		})
	}
}
