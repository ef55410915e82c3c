package mirror

import "testing"

// Statement triggers fire for the table named, whatever table is written.
func TestAttackTrees(t *testing.T) {
	g := ground(t, 2, nil)
	t.Run("inheritance", func(t *testing.T) {
		a := trial{schema: `
CREATE TABLE p (k int PRIMARY KEY, v int); CREATE TABLE c1 (x text, PRIMARY KEY (k)) INHERITS (p); CREATE TABLE c2 (y int) INHERITS (c1);
CREATE TABLE lp (a int, b text); CREATE TABLE lc (c int) INHERITS (lp);`}.on(t, g)
		c := a.client()
		a.steady("through the parent", func(a *arena) {
			a.do(c, `INSERT INTO p VALUES (1, 1)`, `INSERT INTO c1 VALUES (2, 2, 'x'), (1, 5, 'same key')`, `INSERT INTO c2 VALUES (3, 3, 'y', 4), (3, 3, 'y', 4)`,
				`INSERT INTO lp VALUES (1, 'a'), (1, 'a')`, `INSERT INTO lc VALUES (1, 'a', 5), (1, 'a', 5)`)
			a.do(c, `UPDATE p SET v = v + 10`, `UPDATE lp SET b = b || 'x' WHERE a = 1`, `UPDATE p SET k = k + 1 WHERE k = 3`)
			a.do(c, `UPDATE ONLY p SET v = 0`, `UPDATE c1 SET x = x || '!'`, `DELETE FROM p WHERE k = 2`, `DELETE FROM lp WHERE ctid = '(0,2)'`, `UPDATE ONLY lp SET a = 7`)
		})
		a.steady("truncate", func(a *arena) {
			a.do(c, `TRUNCATE lp`, `INSERT INTO lc VALUES (9, 'z', 9)`, `INSERT INTO p VALUES (50, 50)`)
			a.do(c, `TRUNCATE p`, `INSERT INTO c2 VALUES (4, 4, 'after', 4)`)
			a.everywhere("1", `SELECT count(*)::text FROM p`)
		})
	})
	t.Run("partitions", func(t *testing.T) {
		a := trial{schema: `
CREATE TABLE kroot (a int, b text) PARTITION BY LIST (a);
CREATE TABLE kleaf1 (b text, gone int, a int NOT NULL PRIMARY KEY); ALTER TABLE kleaf1 DROP COLUMN gone; ALTER TABLE kroot ATTACH PARTITION kleaf1 FOR VALUES IN (1, 2, 3);
CREATE TABLE kleaf2 PARTITION OF kroot DEFAULT;
CREATE TABLE deep (k int, r int, s int, v text, PRIMARY KEY (k, r, s)) PARTITION BY RANGE (r);
CREATE TABLE deep1 PARTITION OF deep FOR VALUES FROM (0) TO (10) PARTITION BY LIST (s);
CREATE TABLE deep1a PARTITION OF deep1 FOR VALUES IN (1); CREATE TABLE deep1b PARTITION OF deep1 DEFAULT; CREATE UNIQUE INDEX ON deep1b (v);
CREATE TABLE deep2 (v text, s int NOT NULL, r int NOT NULL, k int NOT NULL); ALTER TABLE deep ATTACH PARTITION deep2 FOR VALUES FROM (10) TO (20);`}.on(t, g)
		c := a.client()
		a.steady("leaf with a key of its own", func(a *arena) {
			a.do(c, `INSERT INTO kroot VALUES (1, 'a'), (2, 'b'), (9, 'z'), (9, 'z')`)
			a.do(c, `UPDATE kleaf1 SET b = b || '1' WHERE a = 1`, `UPDATE kroot SET b = b || 'r'`, `UPDATE kleaf1 SET a = 3 WHERE a = 2`)
			a.do(c, `UPDATE kroot SET a = 2 WHERE b LIKE 'z%' AND ctid = (SELECT min(ctid) FROM kleaf2)`, `DELETE FROM kleaf2`, `INSERT INTO kleaf1 VALUES ('x', 2) ON CONFLICT (a) DO UPDATE SET b = 'conflict'`)
		})
		a.steady("moves and truncates", func(a *arena) {
			a.do(c, `INSERT INTO deep VALUES (1, 1, 1, 'a'), (2, 1, 2, 'b'), (3, 15, 1, 'c')`)
			a.do(c, `UPDATE deep SET r = 16 WHERE k = 1`, `UPDATE deep1 SET s = 3, v = 'q' WHERE k = 2`, `UPDATE deep2 SET v = 'leaf' WHERE k = 3`, `UPDATE deep SET s = 1, r = 3 WHERE k = 3`)
			a.do(c, `INSERT INTO deep SELECT g, g % 20, g % 3, g::text FROM generate_series(10, 40) g`, `TRUNCATE deep1`, `INSERT INTO deep1a VALUES (99, 2, 1, 'w')`, `TRUNCATE ONLY deep2`)
			a.do(c, `TRUNCATE kroot`, `INSERT INTO kroot VALUES (3, 'new')`, `TRUNCATE kleaf1`)
		})
	})
}
