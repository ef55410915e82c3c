package mirror

import "testing"

// Functions that DDL calls for each row may write themselves. What they write at the leader comes
// with its rows, and must not be there twice where the statement runs again.
func TestDDLWhoseFunctionsWrite(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE log (n int); CREATE TABLE numbered (id serial PRIMARY KEY, n int);
		CREATE FUNCTION writes(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ($1); INSERT INTO numbered (n) VALUES ($1); RETURN $1; END $$;
		CREATE FUNCTION checks(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ($1); RETURN true; END $$;
		CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 5); CREATE TABLE b (id int); INSERT INTO b VALUES (7), (7)`)
	c := r.client()
	for _, q := range []string{
		`ALTER TABLE a ADD COLUMN n int DEFAULT writes(300)`,
		`ALTER TABLE a ALTER COLUMN n TYPE bigint USING writes(n + 1)`,
		`ALTER TABLE b ADD CHECK (checks(id))`,
		`DO $$ BEGIN CREATE TABLE made AS SELECT writes(g) AS n FROM generate_series(1, 3) g; ALTER TABLE made ADD COLUMN m int DEFAULT writes(9); END $$`,
		`ALTER TABLE b ADD COLUMN plain int DEFAULT 5`,
	} {
		r.do(c, `INSERT INTO log VALUES (0)`)
		r.ddl(c, q)
		r.ack()
		if v, rep := r.set.View(), r.verify(VerifyOptions{}); len(v.InSync) != 3 || len(rep.Differences) > 0 {
			t.Errorf("%s: in sync are %v, and %v", q, v.InSync, said(rep))
		}
	}
	r.same()
}

// Users' event triggers have done at the leader what they do, and must not fire where a label
// goes ahead of the batch that brings its rows: they would write to a follower.
func TestLabelsAndEventTriggers(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE log (id serial PRIMARY KEY, tag text); CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE moods (m mood);
		CREATE FUNCTION logs() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log (tag) VALUES (TG_TAG); END $$;
		CREATE EVENT TRIGGER logs ON ddl_command_end EXECUTE FUNCTION logs(); CREATE EVENT TRIGGER begins ON ddl_command_start EXECUTE FUNCTION logs()`)
	c, before := r.client(), r.set.View()
	r.ddl(c, `ALTER TYPE mood ADD VALUE 'ok'`)
	r.do(c, `INSERT INTO moods VALUES ('ok'), ('ok')`)
	if v := r.set.View(); v.Epoch != before.Epoch || len(v.InSync) != 3 {
		t.Errorf("in sync are %v in epoch %d, after %d", v.InSync, v.Epoch, before.Epoch)
	}
	r.same()
}
