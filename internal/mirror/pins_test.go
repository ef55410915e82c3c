package mirror

import (
	"fmt"
	"strings"
	"testing"
)

// Rows of tables without a key, and keys, are found by their text, which a client's settings
// must not change: by each type alone, for a table of several is written by the settings of all.
func TestTextOfEachType(t *testing.T) {
	values := map[string][2]string{
		"bool": {"true", "false"}, "int8": {"7", "-9223372036854775808"}, "numeric": {"1.50", "'NaN'"}, "text": {"E'a\\\\b''\"'", "''"}, "bpchar": {"'x  '", "'y'"},
		`"char"`: {"'a'", "'\\200'"}, "name": {"'n'", "'m'"}, "uuid": {"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "gen_random_uuid()"}, "oid": {"1", "4294967295"},
		"json": {`'{"a" : 1}'`, "'null'"}, "jsonb": {`'{"b": 1.0, "a": 2}'`, "'[]'"}, "inet": {"'10.1.2.3/8'", "'::1'"}, "cidr": {"'10/8'", "'::/0'"}, "macaddr": {"'08:00:2b:01:02:03'", "'ff:ff:ff:ff:ff:ff'"},
		"bit(3)": {"B'101'", "B'000'"}, "varbit": {"B'1'", "B''"}, "pg_lsn": {"'1/2'", "'0/0'"}, "xid8": {"'5'", "'6'"}, "tid": {"'(1,2)'", "'(0,1)'"},
		"date": {"'2024-02-01'", "'infinity'"}, "time": {"'04:05:06.789'", "'24:00'"}, "timetz": {"'04:05:06+05:45'", "'04:05:06-11'"}, "timestamp": {"'2024-02-01 03:04:05.000006'", "'0044-03-15 BC'"},
		"timestamptz": {"'2024-02-01 03:04:05.6+02'", "'-infinity'"}, "interval": {"'1 year -2 days 03:04:05.6'", "'-1 mon'"},
		"float4": {"0.1::float4 / 3", "'NaN'"}, "float8": {"0.1::float8 / 3", "'-Infinity'"}, "point": {"point(0.1 / 3, 1)", "'(1,2)'"}, "circle": {"circle(point(1, 2), 0.1::float8 / 3)", "'<(0,0),1>'"},
		"bytea": {`'\x00ff5c'`, "''"}, "money": {"12.34::numeric::money", "0::numeric::money"}, "xml": {"'<a/>'", "'<b>x</b>'"},
		"int4range": {"'[1,5)'", "'empty'"}, "daterange": {"'[2024-01-02,2024-02-03)'", "'empty'"}, "pair": {"ROW('2024-02-01', 0.1::float8 / 3)::pair", "ROW(NULL, 1)::pair"}, "feeling": {"'sad'", "'so \"so\"'"}, "day": {"'2024-02-01'", "'2023-12-31'"},
		"timestamptz[]": {"ARRAY['2024-02-01 03:04:05+02'::timestamptz, NULL]", "'{}'"}, "day[]": {"ARRAY['2024-02-01'::day]", "'{}'"}, "feeling[]": {"ARRAY['sad'::feeling]", "'{}'"}, "float8[]": {"ARRAY[0.1::float8 / 3]", "'{}'"},
	}
	keyed := map[string]bool{"json": true, "point": true, "circle": true, "xml": true, "tid": true} // these cannot be
	var schema strings.Builder
	schema.WriteString(`CREATE TYPE pair AS (d date, f float8); CREATE TYPE feeling AS ENUM ('sad', 'so "so"'); CREATE DOMAIN day AS date;`)
	names := map[string]string{}
	for typ := range values {
		name := fmt.Sprintf("t%d", len(names))
		names[typ] = name
		fmt.Fprintf(&schema, `CREATE TABLE %s (v %s, n int);`, name, typ)
		if !keyed[typ] && typ != "money" { // its text is lc_monetary's, which servers may not have
			fmt.Fprintf(&schema, `CREATE TABLE k%s (v %s PRIMARY KEY, n int);`, name, typ)
		}
	}
	r := newRig(t, 2, schema.String())
	odd, plain := r.client(), r.client()
	if _, err := odd.Exec(r.ctx(), `SET DateStyle = 'German, DMY'; SET IntervalStyle = sql_standard; SET TimeZone = 'America/St_Johns'; SET extra_float_digits = -15; SET bytea_output = escape;
		SET quote_all_identifiers = on; SET search_path = pg_temp, public; SET xmloption = document`); err != nil {
		t.Fatal(err)
	}
	for typ, v := range values {
		for _, table := range []string{names[typ], "k" + names[typ]} {
			if table[0] == 'k' && (keyed[typ] || typ == "money") {
				continue
			}
			// What one has written the other changes and deletes.
			r.do(odd, fmt.Sprintf(`INSERT INTO public.%s VALUES (%s, 1), (%s, 2)`, table, v[0], v[1]))
			r.do(plain, fmt.Sprintf(`UPDATE %s SET n = 3 WHERE n = 1`, table))
			r.do(odd, fmt.Sprintf(`DELETE FROM public.%s WHERE n = 3`, table), fmt.Sprintf(`UPDATE public.%s SET v = %s`, table, v[0]))
			if len(r.set.View().InSync) != 2 {
				t.Fatalf("%s of %s cost the follower its place", table, typ)
			}
		}
	}
	r.same()
}
