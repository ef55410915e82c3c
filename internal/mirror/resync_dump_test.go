package mirror

import (
	"strings"
	"testing"
	"time"
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

// A table that a client keeps locked holds a copy up, as long as that is not for ever.
func TestResyncWaitsForLocks(t *testing.T) {
	r := newRig(t, 2, `CREATE TABLE w (id int PRIMARY KEY); INSERT INTO w VALUES (1)`)
	c := r.client()
	if _, err := c.Exec(r.ctx(), `BEGIN; LOCK TABLE w IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := r.resync(r.ctx(), 2, func(o *ResyncOptions) { yes(o); o.Force = true })
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(4 * time.Second): // ten times as long as pg_dump waits
	}
	if _, err := c.Exec(r.ctx(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	r.same()
}
