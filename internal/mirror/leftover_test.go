package mirror

import "testing"

// An index that its maker has left behind at the leader, invalid, costs no follower its
// place: neither when it is dropped, nor when the member follows another and the index is
// made again.
func TestLeftoverIndexes(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY, n int); INSERT INTO w SELECT g, 1 FROM generate_series(1, 5) g`)
	leave := func() {
		t.Helper()
		c := r.client()
		if _, err := c.Exec(r.ctx(), `SELECT set_config('pgdist.ddl', 'CREATE UNIQUE INDEX odd ON w (n)', false)`); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(r.ctx(), `CREATE UNIQUE INDEX CONCURRENTLY odd ON w (n)`); err == nil {
			t.Fatal("there are no duplicates")
		}
	}
	leave()
	r.ddl(r.client(), `DROP INDEX odd`)
	r.do(r.client(), `INSERT INTO w VALUES (10, 1)`)
	r.inSync(3)
	r.same()

	leave()
	old := r.set.View().Leader
	if err := r.server(old).Kill(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	if err := r.server(old).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.ddl(r.client(), `CREATE INDEX odd ON w (n)`)
	r.do(r.client(), `INSERT INTO w VALUES (11, 1)`)
	r.inSync(3)
	r.same()
}
