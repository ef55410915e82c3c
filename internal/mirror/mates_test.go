package mirror

import (
	"testing"

	"github.com/pgdist/pgdist/health"
)

// A program that has ended without saying so is taken off the list after some seconds,
// though no view changes.
func TestForgetsPrograms(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY)`)
	epoch := r.set.View().Epoch
	for id := range health.MemberID(3) {
		r.server(id+1).Exec(t, `INSERT INTO pgdist.distributors (id, name, epoch, lease) SELECT 'gone', 'gone', max(epoch), '0.5 s' FROM pgdist.distributors`)
	}
	r.await("the program is forgotten", func() bool {
		st, err := Inspect(r.ctx(), r.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range st.Programs {
			if p.Name == "gone" {
				return false
			}
		}
		return true
	})
	if v := r.set.View(); v.Epoch != epoch {
		t.Errorf("a new view: %v", v)
	}
}
