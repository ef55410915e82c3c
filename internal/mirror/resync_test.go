package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// copied is a schema with something of every kind that a copy has to bring along.
const copied = `CREATE ROLE owner_r; CREATE ROLE reader_r;
	CREATE SCHEMA "S p"; CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, m mood);
	CREATE FUNCTION even(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 2 = 0';
	CREATE DOMAIN evens AS int CHECK (even(VALUE));
	CREATE TABLE w (id serial PRIMARY KEY, who int, n int, at timestamptz DEFAULT now());
	CREATE TABLE a (id int PRIMARY KEY, b bigint GENERATED ALWAYS AS IDENTITY, d double precision, x numeric, moods mood[], p pair, e evens, g int GENERATED ALWAYS AS (id * 2) STORED, j jsonb, c bytea);
	INSERT INTO a (id, d, x, moods, p, e, j, c) SELECT g, CASE g % 3 WHEN 0 THEN '-0' WHEN 1 THEN 'NaN'::float8 ELSE g / 7.0::float8 END, g::numeric(10,2), ARRAY['ok','sad']::mood[], ROW(g,'ok')::pair, g * 2, '{"a": 1}', decode(md5(g::text), 'hex') FROM generate_series(1, 500) g;
	CREATE TABLE keyless (v text, f float8); INSERT INTO keyless SELECT 'x' || g % 5, 'NaN' FROM generate_series(1, 50) g;
	CREATE UNLOGGED TABLE u (k int PRIMARY KEY, v text); INSERT INTO u SELECT g, 'u' FROM generate_series(1, 20) g;
	CREATE TABLE "S p"."T ""q" (k text PRIMARY KEY, r int REFERENCES a); INSERT INTO "S p"."T ""q" VALUES ('k', 1);
	CREATE TABLE part (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k); CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (100); CREATE TABLE part2 PARTITION OF part DEFAULT;
	INSERT INTO part SELECT g, 'p' FROM generate_series(1, 200) g;
	CREATE TABLE inh (k int PRIMARY KEY, v text); CREATE TABLE inh2 (w int, PRIMARY KEY (k)) INHERITS (inh); INSERT INTO inh VALUES (1, 'x'); INSERT INTO inh2 VALUES (2, 'y', 3);
	CREATE TABLE big (k int PRIMARY KEY, v text); INSERT INTO big SELECT g, repeat(md5(g::text), 4) FROM generate_series(1, 3000) g;
	CREATE TABLE hidden (k int PRIMARY KEY); ALTER TABLE hidden OWNER TO owner_r; REVOKE ALL ON hidden FROM PUBLIC; GRANT SELECT ON hidden TO reader_r; INSERT INTO hidden VALUES (1);
	CREATE TABLE clock (k int PRIMARY KEY, at timestamptz, CHECK (at > now() - interval '1 second'));
	CREATE TABLE none (); INSERT INTO none DEFAULT VALUES;
	CREATE VIEW v AS SELECT id, even(id) FROM a; CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM a; CREATE UNIQUE INDEX ON mv (count);
	CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v || ''!''; RETURN NEW; END';
	CREATE TRIGGER tr BEFORE INSERT OR UPDATE ON inh FOR EACH ROW EXECUTE FUNCTION touched();
	CREATE RULE r AS ON DELETE TO hidden DO INSTEAD NOTHING; ALTER TABLE a ENABLE ROW LEVEL SECURITY; CREATE POLICY pol ON a USING (id > 0);
	CREATE SEQUENCE lone START 7; SELECT nextval('lone'), nextval('lone'); CREATE SEQUENCE uncalled START 5;
	CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END'; CREATE EVENT TRIGGER users_own ON ddl_command_end EXECUTE FUNCTION on_ddl();
	COMMENT ON TABLE a IS 'of pgdist_i'; CREATE STATISTICS st ON id, d FROM a; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader_r;
	CREATE EXTENSION IF NOT EXISTS plpgsql`

// writers keep four clients writing until stop, which tells what was acknowledged.
func (r *rig) writers() (stop func() int) {
	var done atomic.Bool
	var acked sync.Map
	var wg sync.WaitGroup
	var n atomic.Int64
	for who := range 4 {
		c := r.client()
		wg.Go(func() {
			for i := 0; !done.Load(); i++ {
				sql := fmt.Sprintf(`INSERT INTO w (who, n) VALUES (%d, %d); UPDATE a SET d = %d WHERE id = %d; INSERT INTO keyless VALUES ('w%d', %d); DELETE FROM keyless WHERE v = 'w%d' AND f < %d; UPDATE u SET v = '%d' WHERE k = %d`,
					who, i, i, who*10+i%10+1, who, i, who, i-5, i, who+1)
				ctx, cancel := context.WithTimeout(context.Background(), ages)
				_, err := c.Exec(ctx, sql)
				if err == nil {
					err = r.set.Ack(ctx, r.set.View().Term, Change{Sequences: true})
				}
				cancel()
				if err != nil {
					r.t.Errorf("writer %d: %v", who, err)
					return
				}
				acked.Store([2]int{who, i}, true)
				n.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return func() int {
		done.Store(true)
		wg.Wait()
		c := r.client()
		acked.Range(func(k, _ any) bool {
			at := k.([2]int)
			var one int
			if err := c.QueryRow(r.ctx(), `SELECT count(*) FROM w WHERE who = $1 AND n = $2`, at[0], at[1]).Scan(&one); err != nil || one != 1 {
				r.t.Errorf("acknowledged write %v is there %d times: %v", at, one, err)
			}
			return true
		})
		return int(n.Load())
	}
}

// replace puts an empty server in the place of a member's.
func (r *rig) replace(id health.MemberID) { r.replaceBy(id, "") }

// replaceBy is replace by a server of the programs in bin.
func (r *rig) replaceBy(id health.MemberID, bin string) {
	r.t.Helper()
	port := r.server(id).Port()
	if err := r.server(id).Close(); err != nil {
		r.t.Fatal(err)
	}
	s, err := pgtest.Launch(pgtest.Options{Port: port, Bin: bin})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = s.Close() })
	r.servers[id-1] = s
}

func (r *rig) resync(ctx context.Context, id health.MemberID, change func(*ResyncOptions)) (*ResyncResult, error) {
	o := ResyncOptions{Member: r.server(id).Addr(), Wait: ages, Report: r.t.Logf}
	if change != nil {
		change(&o)
	}
	return Resync(ctx, r.cfg, o)
}

func yes(o *ResyncOptions) { o.Confirm = func(string) error { return nil } }

// A member whose server was replaced by an empty one is copied while four clients write.
func TestResyncReplacedServer(t *testing.T) {
	r := newRig(t, 3, copied)
	r.do(r.client(), `INSERT INTO clock VALUES (1, now())`)
	stop := r.writers()
	r.replace(3)
	r.inSync(2)
	var once sync.Once
	res, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) {
		o.Progress = func(ResyncProgress) {
			once.Do(func() { // what comes after the snapshot is caught up
				c := r.client()
				r.ddl(c, `CREATE TABLE later (k int PRIMARY KEY, v text)`)
				r.do(c, `INSERT INTO later VALUES (1, 'x'); INSERT INTO keyless VALUES ('later', 1)`, `SELECT nextval('lone')`)
			})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", res)
	if !res.InSync {
		t.Error("it was not taken back")
	}
	r.inSync(3)
	time.Sleep(200 * time.Millisecond)
	t.Logf("%d writes", stop())
	r.same()
	if f, err := r.set.Verify(r.ctx(), VerifyOptions{}); err != nil || len(f.Differences) > 0 {
		for _, d := range f.Differences {
			t.Errorf("%s: %s", d.Host, d.What)
		}
		t.Errorf("verify: %v", err)
	}
}

// What must not be overwritten is refused by name.
func TestResyncRefuses(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE w (id int PRIMARY KEY)`)
	for _, c := range []struct {
		change func(*ResyncOptions)
		want   string
	}{
		{func(o *ResyncOptions) { o.Member = r.server(1).Addr() }, "it is the set's leader"},
		{nil, "it is in sync"},
		{func(o *ResyncOptions) { o.Member = "db9:5432" }, "none of the set's members"},
		{func(o *ResyncOptions) { o.Member = "127.0.0.1" }, "more than one member"},
		{func(o *ResyncOptions) { o.Force = true }, "holds 1 tables"},
		{func(o *ResyncOptions) {
			o.Force = true
			o.Confirm = func(string) error { return errors.New("said no") }
		}, "said no"},
	} {
		if _, err := r.resync(r.ctx(), 3, c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v instead of %q", err, c.want)
		}
	}
	// A copy for which the journal cannot be kept is not even begun.
	small := r.cfg
	small.JournalBytes, small.JournalMax = 1, 2
	if _, err := Resync(r.ctx(), small, ResyncOptions{Member: r.server(3).Addr(), Force: true, Confirm: func(string) error { return nil }}); !errors.Is(err, ErrPlaceLost) || !strings.Contains(err.Error(), "journal_max_size") {
		t.Errorf("without room in the journal: %v", err)
	}
	if v := r.set.View(); len(v.InSync) != 3 {
		t.Errorf("the set was disturbed: %v", v)
	}
	// The configuration need not name it.
	one := r.cfg
	one.Members = one.Members[:1]
	o := ResyncOptions{Member: r.server(3).Addr(), Force: true, Report: t.Logf}
	yes(&o)
	res, err := Resync(r.ctx(), one, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", res)
	r.inSync(3)
	r.same()
	// Without a majority of the others nobody knows what the member may have promised.
	for _, id := range []health.MemberID{2, 3} {
		if err := r.server(id).Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.resync(r.ctx(), 3, yes); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a member that is down: %v", err)
	}
	if err := r.server(3).StartAgain(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) { yes(o); o.Force = true }); !errors.Is(err, ErrNoMajority) {
		t.Errorf("without a majority: %v", err)
	}
}

// A member that lost its place, because the journal was emptied beyond it and because
// of DDL that it alone has, comes back by a copy, which the running program notices.
func TestResyncLostPlace(t *testing.T) {
	r := newRig(t, 3, copied)
	if err := r.server(3).Kill(); err != nil {
		t.Fatal(err)
	}
	r.inSync(2)
	r.do(r.client(), `INSERT INTO w (who, n) VALUES (9, 9)`)
	r.set.Close()
	// What pruning would have done in time.
	at := pgtest.Connect(t, r.servers[1].DSN())
	var place string
	if err := at.QueryRow(r.ctx(), `SELECT snap::text FROM pgdist.position`).Scan(&place); err != nil {
		t.Fatal(err)
	}
	for _, s := range r.servers[:2] {
		s.Exec(t, `UPDATE pgdist.floor SET term = 1, snap = '`+place+`'`)
	}
	if err := r.server(3).StartAgain(); err != nil {
		t.Fatal(err)
	}
	r.servers[2].Exec(t, `SET session_replication_role = replica; DELETE FROM a; CREATE TABLE stray (x int)`)
	smallJournal(&r.cfg)
	r.open()
	for deadline := time.Now().Add(ages); r.set.members.get(3).note.Load().Text != textLost; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", r.set.members.get(3).note.Load())
		}
	}
	st, err := Inspect(r.ctx(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if e := st.Members[2].Error; !strings.Contains(e, "pgdist resync DSN --member "+r.server(3).Addr()) {
		t.Errorf("status says %q", e)
	}
	stop := r.writers()
	if _, err := r.resync(r.ctx(), 3, nil); err == nil || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("%v instead of a question", err)
	}
	// The journal is pruned all the time, but not beyond the copy, however long that takes.
	if _, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) {
		yes(o)
		o.Progress = func(ResyncProgress) { time.Sleep(400 * time.Millisecond) }
	}); err != nil {
		t.Fatal(err)
	}
	r.inSync(3)
	t.Logf("%d writes", stop())
	r.same()
}

// A copy that is broken off, at any point, leaves something that is refused by name
// and can be copied again.
func TestResyncBrokenOff(t *testing.T) {
	old := copyPages
	copyPages = 4 // many parts
	t.Cleanup(func() { copyPages = old })
	r := newRig(t, 4, copied) // with one half copied and one killed, two still are a majority
	stop := r.writers()
	r.replace(3)
	r.inSync(3)
	at := func(do func()) func(*ResyncOptions) {
		var once sync.Once
		return func(o *ResyncOptions) {
			yes(o)
			o.Progress = func(p ResyncProgress) {
				if p.TablesDone > 3 {
					once.Do(do)
				}
			}
		}
	}
	half := func(what string, err error) {
		t.Helper()
		t.Logf("%s: %v", what, err)
		if err == nil {
			t.Fatalf("%s: the copy was completed all the same", what)
		}
		c, err := dial(r.ctx(), r.cfg.Members[2].Conn, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		if _, err := c.where(r.ctx()); !errors.Is(err, ErrHalfCopied) {
			t.Errorf("%s: of the half copy is said: %v", what, err)
		}
		if a := r.set.members.get(3).promise(r.ctx(), 1<<40, true); a.err == nil {
			t.Errorf("%s: a half copy gave a promise", what)
		}
	}
	ctx, cancel := context.WithCancel(r.ctx())
	var said strings.Builder
	_, err := r.resync(ctx, 3, func(o *ResyncOptions) {
		at(cancel)(o)
		o.Report = func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
	})
	half("cancelled", err)
	if !strings.Contains(said.String(), "not used until resync has been run again") {
		t.Errorf("a copy that was cancelled says %q", said.String())
	}

	_, err = r.resync(r.ctx(), 3, at(func() {
		if err := r.server(3).Kill(); err != nil {
			t.Error(err)
		}
	}))
	if err := r.server(3).StartAgain(); err != nil {
		t.Fatal(err)
	}
	half("target killed", err)

	var from string
	_, err = r.resync(r.ctx(), 3, func(o *ResyncOptions) {
		at(func() {
			for _, s := range r.servers {
				if !strings.HasSuffix(from, s.Addr()) {
					continue
				}
				if err := errors.Join(s.Kill(), s.StartAgain()); err != nil {
					t.Error(err)
				}
			}
		})(o)
		o.Report = func(format string, args ...any) {
			if s := fmt.Sprintf(format, args...); strings.HasPrefix(s, "reading definitions on ") {
				from = s
			}
		}
	})
	half("source killed", err)
	if _, err := r.resync(r.ctx(), 3, yes); err != nil {
		t.Fatal(err)
	}
	r.inSync(4)
	t.Logf("%d writes", stop())
	r.same()
}

// With nobody else in sync the leader is copied from, and with no program running the
// copy waits for one. A program can be opened while a half copy is there.
func TestResyncFromLeader(t *testing.T) {
	r := newRig(t, 2, copied)
	r.do(r.client(), `INSERT INTO keyless VALUES ('once', 1)`)
	r.replace(2)
	r.do(r.client(), `INSERT INTO keyless VALUES ('once', 0)`) // which notices, had the other server come between two probes
	r.inSync(1)
	r.set.Close()
	r.open()
	r.do(r.client(), `INSERT INTO keyless VALUES ('once', 2)`)
	r.set.Close()
	res, err := r.resync(r.ctx(), 2, func(o *ResyncOptions) { o.Wait = -1 })
	if err != nil {
		t.Fatal(err)
	}
	if res.InSync || res.Source != r.server(1).Addr() {
		t.Errorf("%+v", res)
	}
	// What was promised under the old server is forgotten: the register begins with a
	// view that a majority of the others has accepted since, and that names the new one.
	found := askAll(r.ctx(), r.cfg)
	for _, a := range found {
		if a.err != nil {
			t.Fatal(a.err)
		}
	}
	lead, h := found[0].here, found[1].here
	if want, _ := lead.View.Member(2); h.Promised != lead.View.Epoch || h.Accepted != lead.View.Epoch || h.Epoch != lead.Epoch || want.System != h.Cluster || !lead.View.Equal(h.View) {
		t.Errorf("the leader has %v, the copy promised %d and has %v, for system %s", lead.View, h.Promised, h.View, h.Cluster)
	}
	m := &member{id: 2, host: r.server(2).Addr(), cfg: r.cfg.Members[1].Conn}
	if a := m.promise(r.ctx(), h.Promised, true); a.err != nil || a.p.Given {
		t.Errorf("it promised epoch %d again: %v", h.Promised, a.err)
	}
	r.open()
	r.inSync(2)
	r.do(r.client(), `INSERT INTO keyless VALUES ('once', 3)`)
	r.same()
}
