package mirror

import "testing"

// CLUSTER is maintenance, of which no event trigger is told, but it also notes by which index a
// table is clustered: on all members, also from within functions and transactions, and for a
// member that was away.
func TestClusteredByTheSameIndex(t *testing.T) {
	a := trial{config: quiet, schema: `CREATE TABLE t (k int PRIMARY KEY, v int); CREATE INDEX t_v ON t (v); CREATE TABLE "U x" (k int PRIMARY KEY); ALTER TABLE "U x" CLUSTER ON "U x_pkey";
		CREATE TABLE tree (k int PRIMARY KEY) PARTITION BY RANGE (k); CREATE TABLE leaf PARTITION OF tree DEFAULT`}.on(t, ground(t, 3, nil))
	c := a.client()
	by := `SELECT coalesce(string_agg(indexrelid::regclass::text, ' ' ORDER BY 1), '') FROM (SELECT indexrelid FROM pg_index WHERE indisclustered ORDER BY indexrelid::regclass::text COLLATE "C") x`
	for _, step := range []struct{ sql, want string }{
		{`CLUSTER t USING t_v`, `"U x_pkey" t_v`},
		{`DO $$ BEGIN EXECUTE 'CLUSTER t USING t_pkey'; END $$`, `"U x_pkey" t_pkey`},
		{`CLUSTER leaf USING leaf_pkey`, `"U x_pkey" leaf_pkey t_pkey`},
	} {
		a.exec(c, step.sql)
		a.tx(c, `ddl: COMMENT ON TABLE t IS '`+step.want+`'`) // by which the state of shared objects comes
		a.everywhere(step.want, by)
	}
	a.tx(c, `ddl: ALTER TABLE "U x" SET WITHOUT CLUSTER`, `ddl: ALTER INDEX leaf_pkey RENAME TO "L x"`, `ddl: ALTER TABLE leaf RENAME TO twig`)
	a.everywhere(`"L x" t_pkey`, by)
	a.exec(c, `CLUSTER t USING t_v`)
	a.tx(c, `ddl: DROP INDEX t_v`)
	a.everywhere(`"L x"`, by)
	a.same()
}
