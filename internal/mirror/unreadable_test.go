package mirror

import (
	"strings"
	"testing"
	"time"
)

// fragile is a type with operators of users' own, whose comparing fails while a setting says so.
const fragile = `CREATE SCHEMA apart; CREATE TYPE apart.pt AS (x int, y int);
	CREATE FUNCTION apart.within(apart.pt) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1.x * 1000 + $1.y; END $$;
	CREATE FUNCTION apart.cmp(apart.pt, apart.pt) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN sign(within($1) - within($2)); END $$;
	CREATE FUNCTION apart.eq(apart.pt, apart.pt) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN within($1) = within($2); END $$;
	CREATE FUNCTION apart.lt(apart.pt, apart.pt) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN within($1) < within($2); END $$;
	CREATE OPERATOR apart.=== (LEFTARG = apart.pt, RIGHTARG = apart.pt, FUNCTION = apart.eq);
	CREATE OPERATOR apart.<<< (LEFTARG = apart.pt, RIGHTARG = apart.pt, FUNCTION = apart.lt);
	CREATE OPERATOR CLASS apart.pt_ops FOR TYPE apart.pt USING btree AS OPERATOR 1 apart.<<<, OPERATOR 3 apart.===, FUNCTION 1 apart.cmp(apart.pt, apart.pt);
	CREATE TABLE apart.keyed (p apart.pt NOT NULL, n int CHECK (n >= 0)); CREATE UNIQUE INDEX ON apart.keyed (p apart.pt_ops);
	CREATE TABLE plain (id int PRIMARY KEY)`

// What users' operators and types name without a schema is found beside them, as a session
// with that schema in its search_path finds it.
func TestUsersCodeFindsWhatLiesBesideIt(t *testing.T) {
	r := newRig(t, 3, fragile)
	c := r.client()
	r.do(c, `SET search_path = apart, public`, `INSERT INTO keyed SELECT ROW(g, g)::pt, g FROM generate_series(1, 50) g`, `UPDATE keyed SET n = n + 1 WHERE n > 40`, `DELETE FROM keyed WHERE n < 10`)
	if v := r.set.View(); len(v.InSync) != 3 || v.Term != 1 {
		t.Errorf("the view is %v", v)
	}
	r.same()
}

// A table that nobody can read for a fault in users' code is no reason to choose another
// leader, which could not either: the set waits, says why, and goes on once that is mended.
func TestUnreadableTable(t *testing.T) {
	r := newRig(t, 3, fragile)
	r.reopen(func(c *Config) { c.AckTimeout = 2 * time.Second })
	before := r.set.View()
	c := r.client()
	r.do(c, `SET search_path = apart, public`, `INSERT INTO keyed VALUES (ROW(1, 1)::pt, 1)`)
	r.ddl(c, `CREATE OR REPLACE FUNCTION apart.within(apart.pt) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF current_setting('users.own', true) = 'yes' THEN RETURN $1.x * 1000 + $1.y; END IF; RAISE 'not now'; END $$`)
	for _, q := range []string{`SET users.own = 'yes'`, `UPDATE keyed SET n = 2`, `INSERT INTO plain VALUES (1)`} {
		if _, err := c.Exec(r.ctx(), q); err != nil {
			t.Fatal(err)
		}
	}
	err := r.set.Ack(r.ctx(), before.Term, Change{})
	if err == nil || !strings.Contains(err.Error(), "not now") || !strings.Contains(err.Error(), "until this is mended") {
		t.Errorf("an acknowledgement says %v", err)
	}
	if v := r.set.View(); v.Epoch != before.Epoch || len(v.InSync) != 3 {
		t.Errorf("the view was %v and is %v", before, v)
	}
	if _, err := c.Exec(r.ctx(), `SELECT set_config('pgdist.ddl', 'CREATE OR REPLACE FUNCTION apart.within(apart.pt) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1.x * 1000 + $1.y; END $$', false)`); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(r.ctx(), `CREATE OR REPLACE FUNCTION apart.within(apart.pt) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1.x * 1000 + $1.y; END $$`); err != nil {
		t.Fatal(err)
	}
	r.ack()
	r.inSync(3)
	r.same()
}
