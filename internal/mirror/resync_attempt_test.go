package mirror

import (
	"errors"
	"testing"

	"github.com/pgdist/pgdist/internal/failpoint"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// A program that copies a member and loses the claim, without noticing, is at its last step when
// another takes the copy up. What the other has copied is of a later place than the one that the
// first would say the member is at: all that is between the two would come once more.
func TestResyncTakenOver(t *testing.T) {
	r := newRig(t, 3, resumable)
	r.replace(3)
	r.inSync(2)

	filled, goOn := make(chan int, 2), []chan struct{}{make(chan struct{}), make(chan struct{})}
	n := 0 // the second comes there while the first is held
	failpoint.Watch(func(name string) {
		if name == "mirror: a copy is filled" && n < 2 {
			mine := n
			n++
			filled <- mine
			<-goOn[mine]
		}
	})
	defer failpoint.Watch(nil)
	results := []chan error{make(chan error, 1), make(chan error, 1)}
	copies := func(i int) {
		_, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) { o.Jobs = 1 })
		results[i] <- err
	}
	go copies(0)
	<-filled

	var ended int
	if err := pgtest.Connect(t, r.server(3).DSN()).QueryRow(r.ctx(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'pgdist copy%'`).Scan(&ended); err != nil || ended != 1 {
		t.Fatalf("%d claims were ended, %v", ended, err)
	}
	c := r.client()
	r.do(c, `INSERT INTO ac_keyless VALUES ('x', 1), ('y', 1)`, `UPDATE aa_parent SET v = 'y' WHERE id < 9`, `DELETE FROM ad_still`)
	go copies(1)
	select {
	case <-filled:
	case err := <-results[1]:
		t.Fatalf("the second copy: %v", err)
	}

	close(goOn[0])
	if err := <-results[0]; !errors.Is(err, ErrBeingCopied) {
		t.Errorf("the first copy, which the second has taken over: %v", err)
	}
	close(goOn[1])
	if err := <-results[1]; err != nil {
		t.Errorf("the second copy: %v", err)
	}
	r.inSync(3)
	r.same()
}
