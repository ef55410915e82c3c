//go:build unix

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgdist/pgdist/internal/pgtest"
)

func TestMembers(t *testing.T) {
	four := pgtest.Set(t, 4, pgtest.Options{})
	everywhere(t, "postgres", schema, four[:2]...)
	set := dsn("postgres", four[:2]...)
	pgdist(t, "init", set).want(t, statusOK, four[0].Addr()+" has the casting vote")
	pgdist(t, "add", set, "--jobs", "0", four[2].Addr()).wantErrors(t, 1, "--jobs=0")
	pgdist(t, "add", set, "--witness", four[3].Addr()).want(t, statusOK, "witness")
	// What was broken off says how to go on, and so does a copy by hand, which gives no vote.
	on(t, four[2], "postgres", "CREATE TABLE stray (x int)")
	pgdist(t, "add", set, "-q", four[2].Addr()).wantErrors(t, 1, "holds 1 tables", "run pgdist add again to go on, or pgdist remove to give up")
	pgdist(t, "resync", set, "-q", "--yes", "--wait", "0", "--member", four[2].Addr()).want(t, statusOK, "it has no vote: run pgdist add DSN "+four[2].Addr())
	pgdist(t, "add", set, "-q", four[2].Addr()).want(t, statusOK, "is in sync; votes are given anew", "has the casting vote")
	// All are seen by a configuration that names two.
	r := pgdist(t, "status", set)
	r.want(t, statusOK)
	for column_, want := range map[string][]string{"ROLE": {"leader", "follower", "witness", "follower"}, "VOTES": {"2", "1", "1", "1"}} {
		if diff := cmp.Diff(want, column(r.out, column_)); diff != "" {
			t.Errorf("%s: (-want +got):\n%s\n%s", column_, diff, r.out)
		}
	}
	pgdist(t, "remove", set, four[3].Addr()).want(t, statusOK, "no member any more", "removed from "+four[3].Addr())
	pgdist(t, "remove", set, four[0].Addr()).want(t, statusOK, "leads; another member is to lead first")
	pgdist(t, "remove", set, four[0].Addr()).wantErrors(t, 1, "no member has this address")
	pgdist(t, "status", set).want(t, statusOK)
	pgdist(t, "verify", set).want(t, statusOK)
	pgtest.SameBytes(t, four[1:3]...)

	// The register goes into a file, and back.
	path := filepath.Join(t.TempDir(), "register.json")
	pgdist(t, "register", set).wantErrors(t, 1, "--file PATH, --etcd HOST:PORT,… or --members")
	pgdist(t, "register", set, "--file", filepath.Join(path, "no")).wantErrors(t, 1, "is no directory")
	pgdist(t, "register", set, "--file", path).want(t, statusOK, "all votes are with the register file://"+path)
	r = pgdist(t, "status", set)
	r.want(t, statusOK, "register: file://"+path+" has all votes")
	if diff := cmp.Diff([]string{"0", "0", "1"}, column(r.out, "VOTES")); diff != "" {
		t.Errorf("votes: (-want +got):\n%s\n%s", diff, r.out)
	}
	pgdist(t, "switchover", set).want(t, statusOK, "leads now")
	pgdist(t, "switchover", set).want(t, statusOK, "leads now")
	pgdist(t, "verify", set).want(t, statusOK)
	pgdist(t, "remove", set, "file://"+path).wantErrors(t, 1, "pgdist register DSN --members")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	pgdist(t, "status", set).want(t, statusNotAsItIs, "there is no register")
	pgdist(t, "switchover", set).wantErrors(t, 1, "there is no register", "pgdist force")
	pgdist(t, "force", set).wantErrors(t, 1, "file://"+path+" would help")
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	pgdist(t, "register", set, "--members").want(t, statusOK, "the votes move to the databases", "has the casting vote")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}

	pgdist(t, "force", set).wantErrors(t, 1, "nothing was forced: a majority answers")
	if err := four[1].Kill(); err != nil { // it has the casting vote now
		t.Fatal(err)
	}
	rest := dsn("postgres", four[2])
	pgdist(t, "force", rest).wantErrors(t, 1, four[1].Addr()+" would help", "--accept-data-loss")
	pgdist(t, "force", rest, "--accept-data-loss", "--who", "nobody in particular").want(t, statusOK, four[2].Addr()+" leads")
	pgdist(t, "status", rest).want(t, statusOK, "by nobody in particular", "without "+four[1].Addr())
}
