package mirror

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Keys that are equal and yet not the same bytes: putting a row in place must
// change the key too, and deleting the old key must not delete the new row.
func TestAttackEqualKeys(t *testing.T) {
	type equal struct{ typ, from, to string }
	cases := []equal{
		{`numeric`, `1.0`, `1.00`},
		{`float8`, `0`, `-0`},
		{`float4`, `-0`, `0`},
		{`interval`, `1 mon`, `30 days`},
		{`jsonb`, `{"a": 1.0}`, `{"a": 1.00}`},
		{`numeric[]`, `{1.0,NULL}`, `{1.00,NULL}`},
		{`text COLLATE nocase`, `straße`, `STRASSE`},
		{`citext`, `Abc`, `aBC`},
		{`citext[]`, `{Abc}`, `{aBC}`},
		{`numrange`, `[1.0,2)`, `[1.00,2)`},
		{`pair`, `(1.0,x)`, `(1.00,x)`},
		{`price`, `1.0`, `1.00`},
	}
	g := ground(t, 2, nil)
	if (&rig{t: t, servers: g}).major() >= 14 {
		cases = append(cases, equal{`nummultirange`, `{[1.0,2)}`, `{[1.00,2)}`})
	}
	var schema strings.Builder
	schema.WriteString(`CREATE EXTENSION citext; CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
		CREATE TYPE pair AS (n numeric, t text); CREATE DOMAIN price AS numeric CHECK (VALUE > 0);`)
	for i, x := range cases {
		fmt.Fprintf(&schema, `CREATE TABLE eq%d (k %s PRIMARY KEY, v int); CREATE TABLE two%[1]d (n int, k %[2]s, v int, PRIMARY KEY (k, n));
			CREATE TABLE uni%[1]d (k %[2]s PRIMARY KEY, v int UNIQUE);`, i, x.typ)
	}
	a := trial{schema: schema.String()}.on(t, g)
	c := a.client()
	for i, x := range cases {
		a.steady(x.typ, func(a *arena) {
			for _, tab := range []string{"eq", "two", "uni"} {
				cols := `(k, v)`
				vals := fmt.Sprintf(`('%s', 1)`, x.from)
				if tab == "two" {
					cols, vals = `(k, v, n)`, fmt.Sprintf(`('%s', 1, 1), ('%[1]s', 2, 2)`, x.from)
				}
				name := fmt.Sprintf("%s%d", tab, i)
				read := `SELECT string_agg(textin(record_out(ROW(k))), '|') FROM ` + name
				a.do(c, fmt.Sprintf(`INSERT INTO %s %s VALUES %s`, name, cols, vals))
				first := a.query(1, read)
				a.do(c, fmt.Sprintf(`UPDATE %s SET k = '%s'`, name, x.to))
				changed := a.query(1, read)
				if first == changed {
					a.t.Errorf("%s: the update changed nothing: the case is none", name)
				}
				a.everywhere(changed, read)
				// Both spellings in one batch, old row gone and another put.
				a.do(c, fmt.Sprintf(`DELETE FROM %s`, name), fmt.Sprintf(`INSERT INTO %s %s VALUES %s`, name, cols, vals))
				a.everywhere(first, read)
				a.do(c, fmt.Sprintf(`UPDATE %s SET k = '%s'`, name, x.to), fmt.Sprintf(`UPDATE %s SET k = '%s'`, name, x.from), fmt.Sprintf(`UPDATE %s SET v = v + 5`, name))
				a.everywhere(first, read)
			}
		})
	}
}

// Keys that cannot be upserted.
func TestAttackOddKeys(t *testing.T) {
	a := trial{schema: `
CREATE TABLE ga (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int);
CREATE TABLE gb (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v int);
CREATE TABLE df (k int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v int UNIQUE DEFERRABLE);
CREATE TABLE ex (k int PRIMARY KEY, during int4range, EXCLUDE USING gist (during WITH &&));
CREATE TABLE pu (k int PRIMARY KEY, v int, live bool); CREATE UNIQUE INDEX ON pu (v) WHERE live;
CREATE TABLE xu (k int PRIMARY KEY, v text); CREATE UNIQUE INDEX ON xu (lower(v));
CREATE TABLE nk (a int NOT NULL, b text NOT NULL, c int); CREATE UNIQUE INDEX ON nk (b, a);
CREATE TABLE nn (a int UNIQUE, b text);
CREATE TABLE gk (a int, b int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY, c int);
CREATE TABLE ik (a int, b int, v int, PRIMARY KEY (a) INCLUDE (b));
CREATE TABLE ke (k int PRIMARY KEY);
CREATE TABLE chr (c "char" PRIMARY KEY, n name UNIQUE, v int);
`}.on(t, ground(t, 2, nil))
	c := a.client()
	a.steady("all", func(a *arena) {
		a.do(c, `INSERT INTO ga (v) VALUES (1), (2)`, `INSERT INTO gb (id, v) VALUES (1, 1), (2, 2)`, `INSERT INTO df VALUES (1, 1), (2, 2), (3, 3)`,
			`INSERT INTO ex VALUES (1, '[1,5)'), (2, '[5,9)')`, `INSERT INTO pu VALUES (1, 1, true), (2, 1, false)`, `INSERT INTO xu VALUES (1, 'A'), (2, 'b')`,
			`INSERT INTO nk VALUES (1, 'x', 1), (2, 'x', 2)`, `INSERT INTO nn VALUES (NULL, 'a'), (NULL, 'a'), (1, 'b')`, `INSERT INTO gk (a, c) VALUES (1, 1), (2, 2)`,
			`INSERT INTO ik VALUES (1, 1, 1), (2, 2, 2)`, `INSERT INTO ke VALUES (1), (2)`, `INSERT INTO chr VALUES ('a', 'q', 1), ('', 'r', 2), ('\', 's', 3), ('"', '"', 4)`)
		a.same()
		a.do(c, `UPDATE ga SET v = v + 1`, `UPDATE ga SET id = DEFAULT WHERE v = 2`, `UPDATE gb SET n = DEFAULT, v = 7 WHERE id = 1`,
			`UPDATE df SET k = 4 - k, v = v % 3 + 1`,
			`UPDATE ex SET during = '[9,12)' WHERE k = 1`, `UPDATE ex SET during = '[1,5)' WHERE k = 2`, `UPDATE ex SET during = '[5,9)' WHERE k = 1`,
			`UPDATE pu SET live = NOT live WHERE k = 1`, `UPDATE pu SET live = true WHERE k = 2`, `UPDATE xu SET v = 'c' WHERE k = 1`, `UPDATE xu SET v = 'a' WHERE k = 2`, `UPDATE xu SET v = 'B' WHERE k = 1`,
			`UPDATE nk SET a = 3 - a, b = b || 'y' WHERE a = 1`, `UPDATE nn SET b = 'z' WHERE a IS NULL AND ctid = (SELECT min(ctid) FROM nn)`, `UPDATE gk SET a = a + 2`, `UPDATE ik SET b = 3 - b`,
			`UPDATE ke SET k = 3 WHERE k = 1`, `DELETE FROM ke WHERE k = 2`, `UPDATE chr SET c = 'z' WHERE c = ''`, `UPDATE chr SET v = v + 1`)
	})
}

// Every type's text must come out byte for byte, in tables with a key, where rows
// are put in place, and without, where they are found by their image.
func TestAttackTypes(t *testing.T) {
	g := ground(t, 2, nil)
	schema := `
CREATE TYPE odd AS ENUM ('', 'a b', 'a"b', 'it''s', '\', '(', ',', 'NULL', '{}', 'ü', '$pgdist', ' ');
CREATE DOMAIN pos AS int CHECK (VALUE > 0); CREATE DOMAIN tag AS text NOT NULL DEFAULT 'x'; CREATE DOMAIN tags AS text[];
CREATE TYPE inner_t AS (p pos, e odd, "q""r" text); CREATE TYPE outer_t AS (i inner_t, a inner_t[], n numeric, t tag);
CREATE TYPE floats AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TABLE ty (id int PRIMARY KEY, gone int, j json, jb jsonb, n numeric, n2 numeric(20,5), f8 float8, f4 float4, m money, d date, ts timestamp, tz timestamptz, tt time, ttz timetz, iv interval,
  ia int[], ta text[], i2 int[][], oa odd[], e odd, c outer_t, ca inner_t[], dom pos, dt tags, r int4range, nr numrange, tr tstzrange, mr nummultirange, fr floats, b bit(5), vb varbit, ip inet, ci cidr, mac macaddr, mac8 macaddr8,
  ch "char", nm name, ts2 tsvector, tq tsquery, pt point, ln line, ls lseg, bx box, pa path, po polygon, ci2 circle, u uuid, by bytea, x text, bc char(7), vc varchar(9), l pg_lsn, sn pg_snapshot, o oid, xi xid8, ti tid, jp jsonpath, 
  g int GENERATED ALWAYS AS (id + 1) STORED);
ALTER TABLE ty DROP COLUMN gone; ALTER TABLE ty ADD COLUMN late text DEFAULT 'late';
CREATE TABLE tyk AS SELECT * FROM ty;
CREATE TABLE zero ();
`
	if (&rig{t: t, servers: g}).major() < 14 {
		schema = strings.Replace(schema, "mr nummultirange", "mr text", 1)
	}
	a := trial{schema: schema}.on(t, g)
	c := a.client()
	values := []string{
		`INSERT INTO ty (id, j, jb, n, n2, f8, f4, m, d, ts, tz, tt, ttz, iv) VALUES
  (1, '{"a" :  1.0, "a":2 , "b":[ ]}', '{"b":1.00,"a":[1e2,"\u00e9\\"]}', 1.000, 1.1, '-0', '1e-45', '-1234.56', '4713-01-01 BC', 'infinity', '-infinity', '24:00', '23:59:60+15:59', '-1 mon +2 days -00:00:00.000001'),
  (2, 'null', 'null', 'NaN', 'NaN', 'NaN', '-Infinity', '92233720368547758.07', 'infinity', '0001-12-31 23:59:59.999999 BC', '1890-01-01 12:00:00+00:53:28', '00:00:00.000001', '00:00-15:59:59', '178000000 years'),
  (3, ' [1, 2] ', '"x"', 'Infinity', 0.00001, 5e-324, 'NaN', '0', '-infinity', '294276-12-31', '0044-03-15 12:00 BC', '12:34:56.7', '12:00+05:30', '1 year 2 mons 3 days 04:05:06.789'),
  (4, '""', '{}', 1e300, -0.0, 1.7976931348623157e308, 0.1, '-0.01', '5874897-12-31', '1999-01-08 04:05:06', 'epoch', '00:00', '00:00+00', '0')`,
		`INSERT INTO ty (id, ia, ta, i2, oa, e, c, ca, dom, dt) VALUES
  (10, '[-2:0]={1,NULL,3}', '{NULL,"NULL",""," ","a,b","{}","\"","\\"}', '[0:1][5:6]={{1,2},{3,4}}', '{"","a b",NULL,"\\"}', 'a"b', ROW(ROW(1,'it''s','q"r\'), ARRAY[ROW(2,'',NULL)::inner_t, NULL], 'NaN', '')::outer_t, '{NULL,"(3,\"a b\",)"}', 7, '{a,NULL}'),
  (11, '{}', '{}', '{}', '{}', '', ROW(NULL, NULL, NULL, 'y')::outer_t, '{}', 1, '{}'),
  (12, NULL, ARRAY[E'\n\t\r', chr(1), chr(127), 'ß', '日本', '😀'], NULL, NULL, 'NULL', NULL, NULL, NULL, NULL)`,
		`INSERT INTO ty (id, r, nr, tr, mr, fr, b, vb, ip, ci, mac, mac8, ch, nm, ts2, tq) VALUES
  (20, 'empty', '(,1.00]', '["2020-01-01 00:00+00",infinity)', '{}', '[-0,NaN]', '10101', '', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '', ' lead', '''a b'':1A,2 ''it''''s'':3', '!( a & ''b c'':*AB ) | c <-> d'),
  (21, '[1,1]', '(1.0,1.00)', '(,)', '{[1,2.0),(3,)}', '(-Infinity,1e300)', '00000', '1', '1.2.3.4', '::/0', 'ff:ff:ff:ff:ff:ff', '::'::text::inet::text::macaddr8, '\', repeat('n', 63), '', '')`,
		`INSERT INTO ty (id, pt, ln, ls, bx, pa, po, ci2, u, by, x, bc, vc, l, sn, o, xi, ti, jp) VALUES
  (30, '(-0,NaN)', '{1,-1,0}', '[(0,0),(1e300,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))', '<(0,0),0.1>', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '\x00ff5c', E'\\x41 ''"\b\f', 'a', 'a  ', '16/B374D848', '10:20:10,14,15', 4294967295, '18446744073709551615', '(4294967295,65535)', '$.a[*] ? (@ > 1)'),
  (31, '(Infinity,-Infinity)', '{0,1,2}', '[(1,1),(1,1)]', '(0,0),(0,0)', '((0,0))', '((0,0))', '<(1,2),3>', gen_random_uuid(), '', '', '', '', '0/0', '1:1:', 0, '3', '(0,1)', '$')`,
	}
	for i, q := range values {
		values[i] = strings.Replace(q, `'::'::text::inet::text::macaddr8`, `'00:00:00:00:00:00:00:00'`, 1)
	}
	if a.major() < 14 {
		values[0] = strings.Replace(values[0], `'Infinity', 0.00001`, `'NaN', 0.00001`, 1) // no infinite numeric
	}
	a.steady("insert", func(a *arena) { a.do(c, values...) })
	a.steady("no key", func(a *arena) { a.do(c, `INSERT INTO tyk SELECT * FROM ty`, `INSERT INTO tyk SELECT * FROM ty`) })
	a.steady("hostile settings", func(a *arena) {
		a.exec(c, `SET DateStyle = 'German'; SET extra_float_digits = -15; SET IntervalStyle = sql_standard; SET bytea_output = escape; SET TimeZone = 'America/St_Johns'; SET xmloption = document; SET array_nulls = off; SET quote_all_identifiers = on`)
		a.do(c, `UPDATE ty SET x = coalesce(x, '') || 'y', id = id + 100`, `UPDATE tyk SET x = 'new', f8 = f8 / 2 WHERE id % 2 = 0`, `DELETE FROM tyk WHERE ctid IN (SELECT min(ctid) FROM tyk GROUP BY id)`, `UPDATE tyk SET id = id`)
	})
	a.steady("no columns", func(a *arena) {
		a.do(c, `INSERT INTO zero DEFAULT VALUES`, `INSERT INTO zero DEFAULT VALUES`, `INSERT INTO zero DEFAULT VALUES`)
		a.do(c, `DELETE FROM zero WHERE ctid = '(0,1)'`)
		a.everywhere("2", `SELECT count(*)::text FROM zero`)
	})
	a.steady("empty again", func(a *arena) { a.do(c, `DELETE FROM ty`, `DELETE FROM tyk`, `TRUNCATE zero`) })
}

// Names are data too.
func TestAttackNames(t *testing.T) {
	words := []string{"dels", "rows", "k", "t", "x", "r", "q", "n", "id", "new", "old", "keys", "v", "o", "c", "img", "u", "w", "z", "i", "d", "s", "b", "f", "e", "g", "y",
		"tg_op", "pgdist_new", "pgdist_old", "select", "user", "ctid2", "row", "ROW", "A b", `q"q`, `it's`, `back\slash`, "$$", "%I", "%", "{a,b}", "(c)", "日本", " lead", "t.k", "x.r", "a;b", "--", "/*"}
	quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	var cols, lits []string
	for i, w := range words {
		cols = append(cols, quote(w)+" int")
		lits = append(lits, fmt.Sprint(i))
	}
	var schema, ins strings.Builder
	names := []string{"keyed", "rows", "t", `we"ird 'n' \ $x$ %I {}`, "日本"}
	for i, name := range names {
		key := ""
		if i%2 == 0 {
			key = fmt.Sprintf(", PRIMARY KEY (%s, %s, %s)", quote(words[i]), quote("q\"q"), quote("t"))
		}
		fmt.Fprintf(&schema, "CREATE TABLE %s (%s%s);", quote(name), strings.Join(cols, ", "), key)
		fmt.Fprintf(&schema, "CREATE TABLE %s (LIKE %s, UNIQUE (%s), PRIMARY KEY (%s));", quote(name+"2"), quote(name), quote("o"), quote("%"))
		for _, n := range []string{name, name + "2"} {
			fmt.Fprintf(&ins, "INSERT INTO %s VALUES (%s);", quote(n), strings.Join(lits, ", "))
		}
	}
	for _, w := range words { // one column each: a key by itself
		fmt.Fprintf(&schema, "CREATE SCHEMA %s; CREATE TABLE %[1]s.%[2]s (%[1]s int PRIMARY KEY, v2 int);", quote("s"+w), quote(w))
		schema.WriteString(fmt.Sprintf("ALTER TABLE %s.%s RENAME %s TO %s;", quote("s"+w), quote(w), quote("s"+w), quote(w)))
		fmt.Fprintf(&ins, "INSERT INTO %s.%s VALUES (1, 1);", quote("s"+w), quote(w))
	}
	a := trial{schema: schema.String()}.on(t, ground(t, 2, nil))
	c := a.client()
	a.steady("insert", func(a *arena) { a.do(c, ins.String()) })
	a.steady("update", func(a *arena) {
		var q strings.Builder
		for _, name := range names {
			for _, n := range []string{name, name + "2"} {
				fmt.Fprintf(&q, "UPDATE %s SET %s = %[2]s + 100, %[3]s = %[3]s + 1;", quote(n), quote("t"), quote(`q"q`))
			}
		}
		for _, w := range words {
			fmt.Fprintf(&q, "UPDATE %s.%s SET v2 = 2; UPDATE %[1]s.%[2]s SET %[2]s = 5;", quote("s"+w), quote(w))
		}
		a.do(c, q.String())
	})
}

// A row is parsed once, not once per column.
func TestAttackWideTable(t *testing.T) {
	a := trial{schema: `DO $$ BEGIN EXECUTE (SELECT 'CREATE TABLE wide (c1 int PRIMARY KEY, ' || string_agg('c' || g || ' smallint', ', ') || ')' FROM generate_series(2, 1600) g); END $$`}.
		on(t, ground(t, 2, nil))
	c := a.client()
	a.steady("rows", func(a *arena) {
		a.exec(c, `DO $$ BEGIN EXECUTE (SELECT 'INSERT INTO wide SELECT g, ' || string_agg('(g + ' || g || ') % 1000', ', ') || ' FROM generate_series(1, 300) g' FROM generate_series(2, 1600) g); END $$`)
		began := time.Now()
		a.ack()
		if took := time.Since(began); took > ages/6 {
			a.t.Errorf("300 rows of 1600 columns took %v", took)
		}
	})
}
