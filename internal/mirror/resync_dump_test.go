package mirror

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// A script is divided into what it makes, unless it sets something in between.
func TestEntries(t *testing.T) {
	head := "--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\n\nSET default_tablespace = '';\n"
	one := "\n--\n-- Name: a a_pkey; Type: CONSTRAINT; Schema: public; Owner: -\n--\n\nALTER TABLE ONLY public.a\n    ADD CONSTRAINT a_pkey PRIMARY KEY (id);\n\n"
	two := "\n--\n-- Name: i; Type: INDEX; Schema: public; Owner: -\n--\n\nCREATE INDEX i ON public.a USING btree (v);\n\n"
	got, each := entries(head + one + two)
	if got != head || len(each) != 2 || !strings.Contains(each[0], "a_pkey PRIMARY KEY") || !strings.Contains(each[1], "CREATE INDEX i") {
		t.Errorf("head %q, entries %q", got, each)
	}
	elsewhere := head + one + "SET default_tablespace = 'fast';\n" + two
	if got, each := entries(elsewhere); got != "" || len(each) != 1 || each[0] != elsewhere {
		t.Errorf("with a tablespace in between: head %q, entries %q", got, each)
	}
	if got, each := entries(head); got != head || len(each) != 0 {
		t.Errorf("without any: head %q, entries %q", got, each)
	}
	if rest := string(without([]byte("a\nb\nc\n"), []byte("b\n"))); rest != "a\nc\n" {
		t.Errorf("what is left is %q", rest)
	}
}

// What pg_dump says of a table that stays locked is known for that, and tried again.
func TestDumpWaitsForLocks(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{})
	ctx := context.Background()
	holder, reader := pgtest.Connect(t, server.DSN()), pgtest.Connect(t, server.DSN())
	for _, sql := range []string{`CREATE TABLE w (id int)`, `BEGIN`, `LOCK TABLE w IN ACCESS EXCLUSIVE MODE`} {
		if _, err := holder.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	var snapshot string
	if _, err := reader.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ`); err != nil {
		t.Fatal(err)
	}
	if err := reader.QueryRow(ctx, `SELECT pg_export_snapshot()`).Scan(&snapshot); err != nil {
		t.Fatal(err)
	}
	cfg, err := pgconn.ParseConfig(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	tools, err := findTools(ctx, &member{cfg: cfg}, 15)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tools.definitions(ctx, cfg, snapshot, 15, nil); err == nil || !waitedForLock.MatchString(err.Error()) {
		t.Errorf("pg_dump: %v", err)
	}
}
