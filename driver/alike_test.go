package driver

import (
	"fmt"
	"testing"

	"github.com/pgdist/pgdist/health"
)

// Members of another major version than the leader's are not read, for what a
// statement means may differ, until they lead.
func TestReadsGoToTheLeadersVersion(t *testing.T) {
	dsns := databases(t, 3)
	for i, dsn := range dsns {
		onServer(t, dsn, fmt.Sprintf(`CREATE TABLE who AS SELECT %d AS n`, i+1))
	}
	db, fake := openFake(t, func(c *Config) { c.Balance = RoundRobin }, dsns...)
	read := func() (from [4]int) {
		t.Helper()
		for range 30 {
			var n int
			if err := db.QueryRow(`SELECT n FROM who`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			from[n]++
		}
		return from
	}
	if from := read(); from[1] == 0 || from[2] == 0 || from[3] == 0 {
		t.Fatalf("reads from members %v", from)
	}
	fake.publish(func(*health.View) { fake.other = map[health.MemberID]bool{2: true} })
	if from := read(); from[1] == 0 || from[2] != 0 || from[3] == 0 {
		t.Errorf("reads from members %v, the second being of another version", from)
	}
	fake.publish(func(v *health.View) {
		v.Leader, v.Term = 2, v.Epoch
		fake.other = map[health.MemberID]bool{1: true, 3: true}
	})
	if from := read(); from[2] != 30 {
		t.Errorf("reads from members %v, the second one leads and the others are of another version", from)
	}
}
