package mirror

import (
	"context"
	"errors"
	"testing"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/failpoint"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// resumable are tables that a copy which is broken off has, in part, and that are written to before
// it is gone on with. Names are in the order in which tables of one size are copied.
const resumable = `CREATE TABLE aa_parent (id int PRIMARY KEY, v text); INSERT INTO aa_parent SELECT g, 'x' FROM generate_series(1, 100) g;
	CREATE TABLE ab_child (id int PRIMARY KEY, p int REFERENCES aa_parent, u int UNIQUE); INSERT INTO ab_child SELECT g, g, g FROM generate_series(1, 50) g;
	CREATE TABLE ac_keyless (v text, n int); INSERT INTO ac_keyless SELECT 'x', g % 3 FROM generate_series(1, 30) g;
	CREATE TABLE ad_still (v text); INSERT INTO ad_still SELECT 'x' FROM generate_series(1, 30) g;
	CREATE TABLE ae_emptied (id int PRIMARY KEY); INSERT INTO ae_emptied SELECT generate_series(1, 30);
	CREATE UNLOGGED TABLE af_unlogged (id int PRIMARY KEY, v text); INSERT INTO af_unlogged SELECT g, 'x' FROM generate_series(1, 30) g;
	CREATE TABLE ag_part (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k);
	CREATE TABLE ag_part1 PARTITION OF ag_part FOR VALUES FROM (0) TO (100); CREATE TABLE zg_part2 PARTITION OF ag_part DEFAULT;
	INSERT INTO ag_part SELECT g, 'p' FROM generate_series(50, 150) g;
	CREATE TABLE ah_citizen (k text COLLATE "C" PRIMARY KEY, n numeric); INSERT INTO ah_citizen SELECT 'k' || g, g FROM generate_series(1, 40) g;
	CREATE TABLE ai_clock (k int PRIMARY KEY, at timestamptz, CHECK (at > now() - interval '1 second'));
	CREATE TABLE aj_refs (id int PRIMARY KEY, p int); INSERT INTO aj_refs SELECT g, g FROM generate_series(1, 60) g;
	ALTER TABLE aj_refs ADD CONSTRAINT late FOREIGN KEY (p) REFERENCES aa_parent NOT VALID;
	CREATE TABLE ba_published (v text); INSERT INTO ba_published VALUES ('x'); CREATE TABLE zy_unique (k int NOT NULL UNIQUE, v int); CREATE PUBLICATION pub FOR TABLE ba_published, zy_unique;
	CREATE SEQUENCE s; SELECT nextval('s');
	CREATE TABLE zz_last (id int PRIMARY KEY, p int REFERENCES aa_parent); INSERT INTO zz_last SELECT g, g FROM generate_series(1, 100) g`

// between is what is written while nobody copies.
var between = []string{
	`UPDATE aa_parent SET v = 'y' WHERE id % 7 = 0`, `INSERT INTO aa_parent SELECT g, 'new' FROM generate_series(101, 120) g`,
	`DELETE FROM zz_last WHERE p = 3`, `DELETE FROM ab_child WHERE p IN (3, 4)`, `DELETE FROM aj_refs WHERE p = 3`, `DELETE FROM aa_parent WHERE id = 3`,
	`UPDATE ab_child SET u = u + 1000`, `UPDATE ab_child SET u = u - 1000 + 7`, `INSERT INTO ab_child VALUES (200, 110, 1)`, `UPDATE ab_child SET id = id + 500 WHERE id > 40`,
	`INSERT INTO ac_keyless VALUES ('x', 1), ('y', 1)`, `DELETE FROM ac_keyless WHERE n = 2`,
	`TRUNCATE ae_emptied`, `INSERT INTO ae_emptied VALUES (5)`, `INSERT INTO af_unlogged VALUES (99, 'y')`,
	`UPDATE ag_part SET k = k + 100 WHERE k BETWEEN 60 AND 65`, `UPDATE ag_part SET v = 'q' WHERE k % 10 = 0`, `UPDATE ag_part SET k = k - 145 WHERE k IN (147, 148)`,
	`UPDATE ah_citizen SET n = (n || '.00')::numeric`, `UPDATE ah_citizen SET k = k || 'x' WHERE n > 30`,
	`INSERT INTO ai_clock VALUES (1, now())`, `INSERT INTO aj_refs VALUES (400, 115)`, `SELECT nextval('s'), nextval('s')`, `INSERT INTO zz_last VALUES (300, 117)`, `INSERT INTO ba_published VALUES ('y')`, `INSERT INTO zy_unique VALUES (1, 1)`,
}

// afterwards is what is written after that.
var afterwards = []string{
	`UPDATE aa_parent SET v = 'z' WHERE id < 20`, `INSERT INTO ac_keyless VALUES ('z', 9)`, `DELETE FROM zz_last WHERE id < 5`, `DELETE FROM ag_part WHERE k IN (2, 160)`,
	`UPDATE ab_child SET u = -u`, `INSERT INTO aa_parent VALUES (500, 'z')`, `INSERT INTO ab_child VALUES (501, 500, 501)`, `UPDATE af_unlogged SET v = 'z'`,
}

var errBrokenOff = errors.New("broken off")

// breakOff begins a copy and ends it at a point of the program, or when as many tables are there.
func (r *rig) breakOff(id health.MemberID, tables int, point string) {
	r.t.Helper()
	ctx, cancel := context.WithCancelCause(r.ctx())
	defer cancel(nil)
	if point != "" {
		failpoint.Watch(func(name string) {
			if name == point {
				cancel(errBrokenOff)
			}
		})
		defer failpoint.Watch(nil)
	}
	_, err := r.resync(ctx, id, func(o *ResyncOptions) {
		o.Jobs = 1
		o.Progress = func(p ResyncProgress) {
			if point == "" && p.TablesDone >= tables {
				cancel(errBrokenOff)
			}
		}
	})
	if !errors.Is(err, errBrokenOff) && !errors.Is(err, context.Canceled) {
		r.t.Fatalf("the copy was to be broken off: %v", err)
	}
	if _, err := r.target(id).here(r.ctx()); !errors.Is(err, ErrHalfCopied) {
		r.t.Fatalf("what is half copied is somebody: %v", err)
	}
}

// brokenOff is a set whose third member has seven tables of a copy.
func brokenOff(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, 3, resumable)
	r.replace(3)
	r.inSync(2)
	r.breakOff(3, 7, "")
	return r
}

// target is a member as a copy sees it.
func (r *rig) target(id health.MemberID) *member {
	return &member{id: id, host: r.server(id).Addr(), cfg: r.cfg.Members[id-1].Conn}
}

// completes copies the member and looks at it. kept is how many tables an attempt before has copied.
func (r *rig) completes(id health.MemberID, kept int) {
	r.t.Helper()
	res, err := r.resync(r.ctx(), id, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if res.Kept != kept {
		r.t.Errorf("%d tables were kept, want %d", res.Kept, kept)
	}
	r.inSync(3)
	r.same()
	f, err := r.set.Verify(r.ctx(), VerifyOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range f.Differences {
		r.t.Errorf("%s: %s", d.Host, d.What)
	}
	var n int
	if err := pgtest.Connect(r.t, r.server(id).DSN()).QueryRow(r.ctx(), `SELECT count(*) FROM pg_class WHERE relname IN ('copying', 'copied', 'attempt') AND relnamespace = 'pgdist'::regnamespace`).Scan(&n); err != nil || n != 0 {
		r.t.Errorf("the record was left behind: %d, %v", n, err)
	}
}

// A copy that is broken off is gone on with, whatever is written meanwhile, and is in the end what
// one snapshot shows.
func TestResyncGoesOn(t *testing.T) {
	type stage struct {
		tables int
		point  string
	}
	// In this order: aa ab ac ad ae af ag_part1 ah aj ba zg_part2 zy zz_last, ai. Of these ac, ae, af and ba
	// cannot be kept once they were written to.
	for _, c := range []struct {
		name   string
		stages []stage
		kept   int
	}{
		{"after one table", []stage{{tables: 1}}, 1},
		{"in the middle", []stage{{tables: 7}}, 4},
		{"with indexes", []stage{{point: "mirror: a copy has its indexes"}}, 10},
		{"with all definitions", []stage{{point: "mirror: a copy is filled"}}, 10},
		{"twice", []stage{{tables: 3}, {tables: 9}}, 7},
		{"twice, with all definitions", []stage{{tables: 5}, {point: "mirror: a copy is filled"}}, 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 3, resumable)
			r.replace(3)
			r.inSync(2)
			for i, s := range c.stages {
				r.breakOff(3, s.tables, s.point)
				r.do(r.client(), [][]string{between, afterwards}[i]...)
			}
			r.completes(3, c.kept)
		})
	}
}

// What an attempt before has copied is of no use after DDL, if the set went on without it, or if
// the journal does not tell what came since.
func TestResyncBeginsAnew(t *testing.T) {
	for name, change := range map[string]func(r *rig){
		"DDL": func(r *rig) { r.ddl(r.client(), `ALTER TABLE aa_parent ADD COLUMN w int DEFAULT 5`) },
		"DDL to and fro": func(r *rig) {
			r.ddl(r.client(), `ALTER TABLE ab_child RENAME COLUMN u TO x`)
			r.do(r.client(), `UPDATE ab_child SET x = -x`)
			r.ddl(r.client(), `ALTER TABLE ab_child RENAME COLUMN x TO u`)
		},
		"the journal": func(r *rig) {
			r.do(r.client(), `UPDATE aa_parent SET v = 'y'`)
			r.server(1).Exec(r.t, `UPDATE pgdist.floor SET term = (SELECT last_value FROM pgdist.term), snap = pg_current_snapshot(); TRUNCATE pgdist.journal`)
			r.server(2).Exec(r.t, `UPDATE pgdist.floor SET term = p.term, snap = p.snap FROM pgdist.position p; TRUNCATE pgdist.journal`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := brokenOff(t)
			change(r)
			r.completes(3, 0)
		})
	}
}

// The journal that a copy is gone on with may be pruned while it is asked.
func TestResyncJournalGoesMeanwhile(t *testing.T) {
	r := brokenOff(t)
	r.do(r.client(), between...)
	_, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) {
		o.Report = func(format string, args ...any) {
			t.Logf(format, args...)
			if format == "bringing tables of before up to date" {
				r.server(2).Exec(t, `UPDATE pgdist.floor SET term = p.term, snap = p.snap FROM pgdist.position p`)
			}
		}
	})
	if !errors.Is(err, ErrPlaceLost) {
		t.Errorf("it was gone on with: %v", err)
	}
	r.completes(3, 0)
}

// Another leader's term makes no difference to what it had from the one before; what it had not
// is not kept.
func TestResyncGoesOnUnderAnotherLeader(t *testing.T) {
	r := brokenOff(t)
	r.do(r.client(), between...)
	if _, err := r.set.Switchover(r.ctx(), r.server(2).Addr(), ages); err != nil {
		t.Fatal(err)
	}
	r.do(r.client(), afterwards...)
	r.completes(3, 4)
}

// The journal is kept for a copy that was broken off, within bounds.
func TestJournalForHalfCopied(t *testing.T) {
	r := brokenOff(t)
	m := r.set.members.get(3)
	var half *halfCopied
	r.await("the program to know of the copy", func() bool { return errors.As(m.note.Load().Err, &half) })
	if m.hopeless() {
		t.Error("the journal is not kept for it")
	}
	if at := m.left.Load(); at == nil || *at != half.place {
		t.Errorf("it is kept from %v, the copy needs it from %v", at, half.place)
	}
	m.forsaken.Store(true)
	if !m.hopeless() {
		t.Error("it is kept for ever")
	}
}

// What is on record counts only if it is part of what the source has.
func TestResyncShares(t *testing.T) {
	r := &resync{snap: &frozen{
		place: Place{7, "100:110:104"},
		terms: text(`[{"term": 3, "leader": 1, "prev": 0, "snap": null}, {"term": 5, "leader": 2, "prev": 3, "snap": "50:60:52"}, {"term": 7, "leader": 2, "prev": 5, "snap": null}]`),
	}}
	for _, c := range []struct {
		at   Place
		want bool
	}{
		{Place{7, "90:90:"}, true},
		{Place{7, "100:110:104"}, true},
		{Place{7, "105:105:"}, false}, // it has seen 104
		{Place{7, "111:111:"}, false},
		{Place{7, ""}, false},
		{Place{3, "50:50:"}, true},
		{Place{3, "50:60:52"}, true},
		{Place{3, "61:61:"}, false}, // what that leader lost
		{Place{3, "53:53:"}, false},
		{Place{5, "10:10:"}, false}, // its leader went on alone, after a crash
		{Place{4, "10:10:"}, false}, // nobody knows of that term
		{Place{9, "10:10:"}, false},
	} {
		if got := r.shares(c.at); got != c.want {
			t.Errorf("%v: %t", c.at, got)
		}
	}
}

// Tables that are dropped, emptied, rewritten or defined otherwise while they are about to be copied come with the
// catch-up; the copy goes on.
func TestResyncBesideDDL(t *testing.T) {
	r := newRig(t, 3, resumable+`; CREATE TABLE zd_dropped (id int PRIMARY KEY); INSERT INTO zd_dropped SELECT generate_series(1, 20);
		CREATE TABLE ze_rewritten (id int PRIMARY KEY, v int); INSERT INTO ze_rewritten SELECT g, g FROM generate_series(1, 20) g;
		CREATE TABLE zf_swapped (id int PRIMARY KEY, v int, w int); INSERT INTO zf_swapped SELECT g, 1, 2 FROM generate_series(1, 20) g;
		CREATE TABLE zg_one (id int PRIMARY KEY, v int); INSERT INTO zg_one SELECT g, 1 FROM generate_series(1, 20) g; CREATE TABLE zh_two (LIKE zg_one INCLUDING ALL); INSERT INTO zh_two SELECT g, 2 FROM generate_series(1, 20) g;
		CREATE TABLE zj_owner (id int PRIMARY KEY, v int); INSERT INTO zj_owner SELECT g, 1 FROM generate_series(1, 20) g;
		CREATE TABLE ak_owned (id int, o int NOT NULL REFERENCES zj_owner, up int, PRIMARY KEY (id), FOREIGN KEY (up) REFERENCES ak_owned) PARTITION BY RANGE (id);
		CREATE TABLE ak_owned1 PARTITION OF ak_owned FOR VALUES FROM (0) TO (10); CREATE TABLE ak_owned2 PARTITION OF ak_owned DEFAULT; INSERT INTO ak_owned SELECT g, g, g FROM generate_series(1, 20) g;
		CREATE TABLE al_part (id int REFERENCES ak_owned, t text); INSERT INTO al_part SELECT g, 't' FROM generate_series(1, 20) g`)
	r.replace(3)
	r.inSync(2)
	once := false
	res, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) {
		o.Jobs = 1
		o.Progress = func(ResyncProgress) {
			if once {
				return
			}
			once = true
			c := r.client()
			r.do(c, `TRUNCATE ac_keyless, ae_emptied`, `INSERT INTO ac_keyless VALUES ('after', 1)`, `INSERT INTO ae_emptied VALUES (7)`)
			r.ddl(c, `DROP TABLE zd_dropped`)
			r.ddl(c, `CREATE TABLE zd_dropped (other text PRIMARY KEY)`)
			r.ddl(c, `ALTER TABLE ze_rewritten ALTER COLUMN v TYPE text USING v || '!'`)
			r.ddl(c, `ALTER TABLE zj_owner ADD COLUMN w int DEFAULT 5`)
			for _, q := range []string{`zf_swapped RENAME COLUMN v TO x`, `zf_swapped RENAME COLUMN w TO v`, `zf_swapped RENAME COLUMN x TO w`, `zg_one RENAME TO zi`, `zh_two RENAME TO zg_one`, `zi RENAME TO zh_two`} {
				r.ddl(c, `ALTER TABLE `+q)
			}
			r.do(c, `INSERT INTO zd_dropped VALUES ('x')`, `UPDATE ze_rewritten SET v = 'y' WHERE id = 3`, `UPDATE al_part SET t = 'u' WHERE id = 4`)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if !res.InSync {
		t.Error("it was not taken back")
	}
	r.inSync(3)
	r.same()
	if f, err := r.set.Verify(r.ctx(), VerifyOptions{}); err != nil || len(f.Differences) > 0 {
		t.Errorf("verify: %v, %v", f, err)
	}
}

// Sequences that are dropped, made, or altered while a copy goes on are in nobody's way, and nobody in the copy's.
func TestResyncBesideDroppedSequences(t *testing.T) {
	r := newRig(t, 3, `CREATE TABLE first (id serial PRIMARY KEY); CREATE TABLE second (id serial PRIMARY KEY); CREATE SEQUENCE small AS smallint; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)`)
	r.replace(3)
	r.inSync(2)
	c, once := r.client(), false
	failpoint.Watch(func(name string) {
		if name == "mirror: a copy has its indexes" {
			r.ddl(c, `DROP TABLE second`)
			r.ddl(c, `ALTER SEQUENCE small MINVALUE -5`)
		}
	})
	defer failpoint.Watch(nil)
	res, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) {
		o.Jobs = 1
		o.Progress = func(ResyncProgress) {
			if once {
				return
			}
			once = true
			r.ddl(c, `DROP TABLE first`)
			r.ddl(c, `CREATE SEQUENCE made`)
			r.ddl(c, `ALTER SEQUENCE small AS bigint MAXVALUE 100000`)
			r.do(c, `SELECT setval('small', 70000), nextval('made')`)
		}
	})
	if err != nil || !res.InSync {
		t.Fatalf("%+v, %v", res, err)
	}
	r.inSync(3)
	r.same()
	if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 {
		t.Errorf("%v", said(rep))
	}
}
