package mirror

import "testing"

// DDL in a transaction whose snapshot is older than another table's end is about its own
// table alone.
func TestDDLUnderAnOldSnapshot(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE goes (id int PRIMARY KEY, n int); CREATE TABLE keyless (n int); CREATE TABLE stays (id int PRIMARY KEY, n int); INSERT INTO stays VALUES (1, 1)`)
	for _, level := range []string{"REPEATABLE READ", "SERIALIZABLE"} {
		old := r.client()
		tx := func(q string) {
			t.Helper()
			if _, err := old.Exec(r.ctx(), q); err != nil {
				t.Fatalf("%s: %s: %v", level, q, err)
			}
		}
		tx(`BEGIN ISOLATION LEVEL ` + level)
		tx(`UPDATE stays SET n = n + 1`)
		r.ddl(r.client(), `DROP TABLE goes`)
		r.ddl(r.client(), `DROP TABLE keyless`)
		r.ddl(r.client(), `CREATE TABLE keyless (n int)`)
		tx(`SELECT set_config('pgdist.ddl', 'ALTER TABLE stays ADD COLUMN IF NOT EXISTS more int', true)`)
		tx(`ALTER TABLE stays ADD COLUMN IF NOT EXISTS more int`)
		tx(`COMMIT`)
		r.ack()
		r.ddl(r.client(), `CREATE TABLE goes (id int PRIMARY KEY, n int)`)
		r.do(r.client(), `INSERT INTO goes VALUES (1, 1)`, `INSERT INTO keyless VALUES (1)`)
	}
	r.inSync(2)
	r.same()
}
