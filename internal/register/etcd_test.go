package register

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgdist/pgdist/internal/etcdtest"
)

func contextOf(_ *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// Of three servers of etcd one may be killed or stand still, and the register answers in
// the time that a member has; of two that are gone it says so, and goes on when one is back.
func TestEtcdServersComeAndGo(t *testing.T) {
	c := etcdtest.Start(t, 3, "--heartbeat-interval", "50", "--election-timeout", "500")
	r := open(t, c.URL("p"))
	must(t, r.Create(ctx(t), begun))
	must(t, r.Enrol(ctx(t), Program{ID: "me", Lease: time.Second}))
	epoch := int64(0)
	// soon promises within the time that a probe has, once the servers have found a leader.
	soon := func(what string) {
		t.Helper()
		epoch++
		for deadline := time.Now().Add(30 * time.Second); ; epoch++ {
			try, cancel := contextOf(t, 750*time.Millisecond)
			given, _, err := r.Promise(try, epoch)
			cancel()
			if given && err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v, %v", what, given, err)
			}
		}
	}
	soon("with all")
	for i := range 3 {
		c.Freeze(i)
		soon("with one that stands still")
		for range 3 { // whichever server is asked
			soon("still with one that stands still")
		}
		c.Thaw(i)
	}
	c.Kill(0)
	soon("with two")
	c.Kill(1)
	try, cancel := contextOf(t, 750*time.Millisecond)
	given, _, err := r.Promise(try, epoch+1000)
	cancel()
	if err == nil || given && err == nil || !strings.Contains(err.Error(), "a majority of etcd's servers must answer") {
		t.Errorf("with one of three: %v, %v", given, err)
	}
	c.Run(1)
	epoch += 1000
	soon("with two again")
	s, known, _, err := r.Confirm(ctx(t), Program{ID: "me", Lease: time.Second}, true)
	if err != nil || !known || s.Promised != epoch {
		t.Errorf("in the end: %+v, %v, %v", s, known, err)
	}
	c.Run(0)
}

// An etcd that was put back to an earlier state is found out: by a program that has seen it,
// and by its cluster id if it was restored as another cluster.
func TestEtcdPutBack(t *testing.T) {
	c := etcdtest.Start(t, 1)
	r := open(t, c.URL("p"))
	must(t, r.Create(ctx(t), begun))
	c.Kill(0)
	kept := c.Data(0) + ".kept"
	must(t, os.CopyFS(kept, os.DirFS(c.Data(0))))
	c.Run(0)
	c.Await()
	if given, _, err := r.Promise(ctx(t), 5); !given || err != nil {
		t.Fatal(given, err)
	}
	c.Kill(0)
	must(t, os.RemoveAll(c.Data(0)))
	must(t, os.Rename(kept, c.Data(0)))
	c.Run(0)
	c.Await()
	if _, _, err := r.Promise(ctx(t), 6); !errors.Is(err, ErrCopied) || !strings.Contains(err.Error(), "pgdist force") {
		t.Errorf("put back: %v", err)
	}
	// Restored as another cluster.
	c.Kill(0)
	must(t, os.RemoveAll(c.Data(0)))
	c.Extra = []string{"--initial-cluster-token", "restored"}
	c.Run(0)
	c.Await()
	k := c.Client()
	old := `{"cluster":1,"state":{"format":1,"set":"s","member":4,"id":"id","promised":0,"accepted":0}}`
	if _, err := k.Put(ctx(t), "/p", old); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, c.URL("p")).Look(ctx(t)); !errors.Is(err, ErrCopied) {
		t.Errorf("of another cluster: %v", err)
	}
}

// Who is cut off from etcd for longer than its life there is alive again when it is back.
func TestEtcdLifeIsTakenUpAgain(t *testing.T) {
	c := etcdtest.Start(t, 1)
	r := open(t, c.URL("p"))
	must(t, r.Create(ctx(t), begun))
	me := Program{ID: "me", Lease: time.Second}
	must(t, r.Enrol(ctx(t), me))
	k := c.Client()
	if _, err := k.Revoke(ctx(t), r.s.(*etcd).present["me"]); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, _, alive, err := r.Confirm(ctx(t), me, true)
		must(t, err)
		if len(alive) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it stays dead")
		}
	}
}
