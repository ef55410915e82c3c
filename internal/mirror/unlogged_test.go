package mirror

import (
	"context"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const perishable = `CREATE UNLOGGED TABLE u (k int PRIMARY KEY, v text); CREATE UNLOGGED TABLE kl (v text); CREATE TABLE l (k int PRIMARY KEY)`

// crashed crashes a server that nobody watches, and waits until it is back.
func (r *rig) crashed(i int) {
	r.t.Helper()
	var pid int
	if err := pgtest.Connect(r.t, r.servers[i].DSN()).QueryRow(r.ctx(), `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		r.t.Fatal(err)
	}
	if err := r.servers[i].KillBackend(pid); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	for n := "1"; n != "0"; {
		c, err := dial(ctx, r.cfg.Members[i].Conn, nil)
		if err != nil {
			if ctx.Err() != nil {
				r.t.Fatal(err)
			}
			continue
		}
		if n, err = c.one(ctx, `SELECT count(*) FROM u`); err != nil && ctx.Err() != nil {
			r.t.Fatal(err)
		}
		c.close()
	}
}

// Of members that are equal otherwise, one that still has its UNLOGGED tables
// takes office.
func TestUnloggedSoundMemberLeads(t *testing.T) {
	r := newRig(t, 3, perishable)
	r.do(r.client(), `INSERT INTO u SELECT generate_series(1, 10)`, `INSERT INTO kl VALUES ('a')`)
	r.set.Close()
	r.crashed(1)
	if err := r.servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if v := r.set.View(); v.Leader != 3 {
		t.Errorf("led by a member that crashed: %v", v)
	}
	if err := r.servers[0].StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.same()
	var n int
	if err := r.client().QueryRow(r.ctx(), `SELECT count(*) FROM u, kl`).Scan(&n); err != nil || n != 10 {
		t.Errorf("%d rows: %v", n, err)
	}
}

// Where only one that crashed can lead, its empty tables are everybody's.
func TestUnloggedEmptyLeader(t *testing.T) {
	r := newRig(t, 3, perishable)
	r.do(r.client(), `INSERT INTO u SELECT generate_series(1, 10)`, `INSERT INTO kl VALUES ('a')`, `INSERT INTO l VALUES (1)`)
	if err := r.servers[2].Stop(pgtest.Fast); err != nil { // it keeps its rows
		t.Fatal(err)
	}
	r.inSync(2)
	r.do(r.client(), `INSERT INTO l VALUES (2)`)
	r.set.Close()
	r.crashed(1)
	if err := r.servers[0].Stop(pgtest.Fast); err != nil {
		t.Fatal(err)
	}
	if err := r.servers[2].StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if v := r.set.View(); v.Leader != 2 {
		t.Fatalf("led by a member that was not in sync: %v", v)
	}
	if err := r.servers[0].StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	r.same()
	c := r.client()
	r.do(c, `INSERT INTO u VALUES (5)`, `INSERT INTO kl VALUES ('b')`)
	r.same()
	var n, l int
	if err := c.QueryRow(r.ctx(), `SELECT (SELECT count(*) FROM u, kl), (SELECT count(*) FROM l)`).Scan(&n, &l); err != nil || n != 1 || l != 2 {
		t.Errorf("%d and %d rows: %v", n, l, err)
	}
}
