package mirror

import "testing"

// Two distributors flush the same followers: what one has applied the other
// must not apply again.
func TestAttackTwoDistributors(t *testing.T) {
	a := trial{schema: `CREATE TABLE kl (a int); CREATE TABLE k (k int PRIMARY KEY)`}.on(t, ground(t, 2, nil))
	other := *a
	other.open()
	c := a.client()
	for range 30 {
		a.exec(c, `INSERT INTO kl VALUES (1), (1)`, `DELETE FROM kl WHERE ctid = (SELECT min(ctid) FROM kl)`)
		done := make(chan error, 2)
		for _, s := range []*Set{a.set, other.set} {
			go func() { done <- s.Ack(a.ctx(), s.View().Term, Change{}) }()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		a.everywhere(a.query(1, `SELECT count(*)::text FROM kl`), `SELECT count(*)::text FROM kl`)
	}
	a.same()
}
