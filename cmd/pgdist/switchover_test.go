//go:build unix

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgdist/pgdist/internal/pgtest"
)

func TestSwitchover(t *testing.T) {
	three := pgtest.Set(t, 3, pgtest.Options{})
	everywhere(t, "postgres", schema, three...)
	set := dsn("postgres", three...)
	pgdist(t, "switchover", set).wantErrors(t, 3, "run: pgdist init")
	pgdist(t, "init", set).want(t, statusOK)
	pgdist(t, "switchover", set, "--to", three[1].Addr()).want(t, statusOK, three[1].Addr()+" leads now, in epoch 2, instead of "+three[0].Addr())
	pgdist(t, "switchover", set, "--to", three[1].Addr()).want(t, statusOK, three[1].Addr()+" leads already")
	pgdist(t, "switchover", set, "--force", "--to", three[2].Addr()).want(t, statusOK, three[2].Addr()+" leads now")
	pgdist(t, "switchover", set, "--to", "elsewhere:5432").wantErrors(t, 1, "no member has this address", three[0].Addr())
	pgdist(t, "switchover", set, "--wait", "0s").wantErrors(t, 1, "--wait=0s", "--force")
	r := pgdist(t, "status", set)
	r.want(t, statusOK)
	if diff := cmp.Diff([]string{"follower", "follower", "leader"}, column(r.out, "ROLE")); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, r.out)
	}
	pgtest.SameBytes(t, three...)
}
