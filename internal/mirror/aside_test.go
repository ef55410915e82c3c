package mirror

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

const handy = `CREATE TABLE held (id int PRIMARY KEY, v int); CREATE TABLE free (id int PRIMARY KEY, v int);
	CREATE TABLE parted (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
	CREATE TABLE bag (v int); CREATE SCHEMA lost; CREATE TABLE lost.same (id int PRIMARY KEY, v int); CREATE TABLE lost.keyless (v int); CREATE TABLE aged (id int PRIMARY KEY, v int); CREATE TABLE gone (id int PRIMARY KEY, v int);
	INSERT INTO held SELECT g, 0 FROM generate_series(1, 50) g; INSERT INTO parted SELECT g, 0 FROM generate_series(1, 50) g; INSERT INTO bag SELECT g / 2 FROM generate_series(1, 50) g`

// A member that comes back is given what nobody has in hand, and the rest when it is free,
// whatever became of it meanwhile. It is not in sync before.
func TestTablesInOthersHandsAreLeft(t *testing.T) {
	r := newRig(t, 2, handy)
	r.kill(2)
	r.inSync(1)
	r.do(r.client(), `UPDATE held SET v = 1 WHERE id % 2 = 0`, `INSERT INTO free VALUES (1, 1)`, `UPDATE parted SET v = 1 WHERE id < 20`, `DELETE FROM bag WHERE v < 10`, `INSERT INTO bag VALUES (1)`,
		`INSERT INTO gone VALUES (1, 1)`)
	c := r.client()
	exec := func(q string, args ...any) {
		t.Helper()
		if _, err := c.Exec(r.ctx(), q, args...); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	exec(`BEGIN`)
	exec(`LOCK TABLE parted, bag`)
	for _, q := range []string{`ALTER TABLE held ALTER COLUMN v TYPE text USING id`, `DROP TABLE gone`} {
		exec(`SELECT set_config('pgdist.ddl', $1, true)`, q)
		exec(q)
	}
	if err := r.servers[1].StartAgain(); err != nil {
		t.Fatal(err)
	}
	follower := pgtest.Connect(t, r.servers[1].DSN())
	of := func(sql string) (n int) {
		if err := follower.QueryRow(r.ctx(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	r.await("it is given what nobody has in hand", func() bool { return of(`SELECT count(*) FROM free`) == 1 })
	if n := of(`SELECT count(DISTINCT tab) FROM pgdist.amiss`); n != 3 {
		t.Errorf("%d tables are noted to be brought whole, want held, parted and gone", n)
	}
	for range 3 {
		sleep(r.ctx(), outdatedPause)
		r.do(r.client(), `INSERT INTO free VALUES ((SELECT max(id) + 1 FROM free), 1)`)
		if n := len(r.set.View().InSync); n != 1 {
			t.Fatalf("it is in sync without tables that others have in hand")
		}
	}
	exec(`UPDATE parted SET v = 2 WHERE id > 40`)
	exec(`COMMIT`)
	r.ack()
	r.inSync(2)
	if n := of(`SELECT count(*) FROM pgdist.amiss`); n != 0 {
		t.Errorf("%d entries are left of what was to be brought whole", n)
	}
	r.same()
}

// What was dropped, emptied, rewritten or renamed after the snapshot by which a batch is read is left
// for the next one, and the rest of it is read. What has been read is nobody's to wait for.
func TestTablesThatChangedSinceTheSnapshotAreLeft(t *testing.T) {
	r := newRig(t, 2, handy)
	c := r.client()
	r.do(c, `INSERT INTO held VALUES (100, 1)`, `INSERT INTO free VALUES (1, 1)`, `UPDATE parted SET v = 1 WHERE id < 20`, `INSERT INTO bag VALUES (1)`, `INSERT INTO gone VALUES (1, 1)`, `INSERT INTO aged VALUES (1, 1)`, `INSERT INTO lost.same VALUES (1, 1)`)
	leader, err := r.set.members.get(r.set.View().Leader).connect(r.ctx())
	if err != nil {
		t.Fatal(err)
	}
	defer leader.close()
	if err := leader.exec(r.ctx(), `BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY`); err != nil {
		t.Fatal(err)
	}
	names, whole := map[int]string{}, map[int]bool{}
	rows, err := leader.call(r.ctx(), `SELECT id, rel FROM pgdist.tables`) // the snapshot
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		names[number(row[0])] = string(row[1])
		if string(row[1]) == "keyless" {
			whole[number(row[0])] = true
		}
	}
	r.ddl(c, `DROP TABLE gone`)
	r.ddl(c, `ALTER TABLE held ALTER COLUMN v TYPE bigint`)
	r.ddl(c, `ALTER TABLE aged RENAME COLUMN v TO w`)
	r.ddl(c, `ALTER SCHEMA lost RENAME TO found`)
	r.do(c, `TRUNCATE parted`)
	put, noted := map[string]bool{}, map[string]bool{}
	st := &streamer{read: tabSet{}, c: leader, from: Place{Term: 0}, epoch: 1, chunk: 10, leave: true, extra: &extras{whole: whole}, emit: func(o op) error {
		switch name := names[o.tab]; {
		case o.kind == 'b':
			noted[name] = true
		case noted[name]:
			return errors.New(name + " is read after it was left")
		case o.v != nil && o.kind == 'r' || o.kind == 'i':
			put[name] = true
			if name == "free" { // a migration does not wait for what else is to be read
				r.do(c, `SET lock_timeout = '5s'`)
				r.ddl(c, `ALTER TABLE free ADD COLUMN more int`)
			}
		}
		return nil
	}}
	b, err := st.run(r.ctx(), 0, thorough)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		got  map[string]bool
		want []string
	}{
		"left": {noted, []string{"aged", "gone", "held", "keyless", "parted", "same"}},
		"put":  {put, []string{"bag", "free"}},
	} {
		if got := slices.Sorted(maps.Keys(c.got)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
	if b.left != len(noted) {
		t.Errorf("the batch tells of %d tables that were left, %d were", b.left, len(noted))
	}
	if err := leader.exec(r.ctx(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	r.same()
}

// Rows that a flush reads by an older snapshot than the definition that it waited for, or finds
// when it comes to the table, are neither taken for deleted ones, nor put where they are not
// yet, nor is one column taken for another.
func TestDefinitionChangesUnderAFlush(t *testing.T) {
	for _, change := range []struct {
		name string
		ddl  []string
	}{
		{"a partition is detached", []string{`ALTER TABLE parted DETACH PARTITION parted_1`}},
		{"a partition is attached", []string{`ALTER TABLE parted ATTACH PARTITION more FOR VALUES FROM (100) TO (200)`}},
		{"columns change names", []string{`ALTER TABLE pair RENAME COLUMN v TO x`, `ALTER TABLE pair RENAME COLUMN w TO v`, `ALTER TABLE pair RENAME COLUMN x TO w`}},
		{"an enum's label is renamed", []string{`ALTER TYPE mood RENAME VALUE 'glad' TO 'merry'`}},
		{"a composite type grows", []string{`ALTER TYPE place ADD ATTRIBUTE z int CASCADE`}},
		{"columns move up", []string{`ALTER TABLE pair DROP COLUMN v`, `ALTER TABLE pair ADD COLUMN x int DEFAULT 7`}},
	} {
		for _, when := range []string{"while it waits for it", "before it comes to it"} {
			if strings.HasPrefix(change.ddl[0], "ALTER TYPE") && when == "while it waits for it" {
				continue // it locks no table
			}
			t.Run(change.name+" "+when, func(t *testing.T) {
				r := newRig(t, 2, `CREATE TABLE first (id int PRIMARY KEY, v int); INSERT INTO first VALUES (1, 0);`+handy+`;
					CREATE TABLE more (id int PRIMARY KEY, v int); INSERT INTO more SELECT g, 0 FROM generate_series(100, 150) g;
					CREATE TABLE pair (id int PRIMARY KEY, v int, w int); INSERT INTO pair SELECT g, 0, 0 FROM generate_series(1, 50) g;
					CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE place AS (x int, y int);
					CREATE TABLE typed (id int PRIMARY KEY, m mood, p place); INSERT INTO typed SELECT g, 'sad', '(0,0)' FROM generate_series(1, 50) g`)
				r.reopen(func(c *Config) { c.BlockedTimeout = ages }) // nobody is ended for what he holds up
				a, b, c, watch := r.client(), r.client(), r.client(), r.client()
				exec := func(c *pgx.Conn, q string, args ...any) {
					t.Helper()
					if _, err := c.Exec(r.ctx(), q, args...); err != nil {
						t.Fatalf("%s: %v", q, err)
					}
				}
				exec(a, `UPDATE first SET v = 1; UPDATE parted SET v = 1 WHERE id % 2 = 0; UPDATE more SET v = 1 WHERE id % 2 = 0; UPDATE pair SET v = 1, w = 2; UPDATE typed SET m = 'glad', p = '(1,2)'`)
				define := func() {
					exec(b, `BEGIN`)
					exec(b, `LOCK TABLE parted, more, pair`)
					for _, q := range change.ddl {
						exec(b, `SELECT set_config('pgdist.ddl', $1, true)`, q)
						exec(b, q)
					}
				}
				exec(c, `BEGIN`)
				if when == "while it waits for it" {
					define()
				} else {
					exec(c, `LOCK TABLE first`)
				}
				acked := make(chan error, 1)
				go func() { acked <- r.set.Ack(r.ctx(), r.set.View().Term, Change{}) }()
				r.await("a flush waits for a table", func() bool {
					var n int
					if err := watch.QueryRow(r.ctx(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'`).Scan(&n); err != nil {
						t.Fatal(err)
					}
					return n > 0 || len(acked) > 0 // or one in between had shipped the rows already
				})
				if when != "while it waits for it" {
					define()
				}
				exec(b, `COMMIT`)
				exec(c, `COMMIT`)
				if err := <-acked; err != nil {
					t.Fatal(err)
				}
				r.ack()
				if v := r.set.View(); len(v.InSync) != 2 {
					t.Error("the follower was excluded")
				}
				r.same()
			})
		}
	}
}
