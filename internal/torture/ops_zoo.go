package torture

import (
	"context"
	"fmt"
	"strings"
)

// cage is a column of the zoo and values of its type that are easily mangled.
type cage struct {
	column string
	values []string // SQL expressions
}

var cages = []cage{
	{`"m m"`, []string{`'sad'`, `'so ''so'''`, `'Happy, "very"'`, `''`}},
	{`p`, []string{`0.000000000000000000001`, `'NaN'`, `1e100`, `1.50`}},
	{`c`, []string{`ROW(1, 'x,"y" (z)')`, `ROW(NULL, NULL)`, `ROW(NULL, '')`, `'(,"\\\\")'`}},
	{`cs`, []string{`ARRAY[ROW(1, 'a'), NULL, ROW(NULL, 'NULL')]::"Torture ""Zoo""".pair[]`, `'{}'`}},
	{`a`, []string{`'[-2:0]={1,NULL,3}'`, `'{{1,2},{3,4}}'`, `'{}'`, `array_fill(7, '{2,2}')`}},
	{`a2`, []string{`ARRAY['NULL', NULL, '', ' ', '{}', '"', '\', E'\n']`}},
	{`ms`, []string{`'{sad,"so ''so''",""}'`}},
	{`r`, []string{`'empty'`, `'[1,5)'`, `'(,)'`, `'[3,]'`}},
	{`fr`, []string{`'[-0,1e-300]'`, `'(,NaN]'`, `'empty'`}},
	{`j`, []string{`'{"a": [1, 1.0, null, "\u00e9"]}'`, `'"\\u0000"'`, `'null'`, `'1e1000'`}},
	{`js`, []string{`'{ "k" :  1 ,"k":2}'`, `'{"k":"v"}'`, `' null '`}},
	{`b`, []string{`'\x00ff5c27'`, `''`, `decode(repeat('deadbeef', 500), 'hex')`, `'\\000'`}},
	{`iv`, []string{`'1 mon -1 day 00:00:00.000001'`, `'30 days'`, `'-178000000 years'`, `'1 year 2 mons'`}},
	{`ts`, []string{`'infinity'`, `'-infinity'`, `'0044-03-15 12:00:00+00 BC'`, `clock_timestamp()`, `'2021-10-31 02:30:00 Europe/Berlin'`}},
	{`t`, []string{`'294276-12-31 23:59:59.999999'`, `localtimestamp`, `'4713-01-01 00:00 BC'`}},
	{`d`, []string{`'infinity'`, `'5874897-12-31'`, `current_date`}},
	{`tz`, []string{`'23:59:60+15:59:59'`, `'00:00:00-07'`}},
	{`f8`, []string{`'NaN'`, `'-0'`, `'-Infinity'`, `5e-324`, `1.7976931348623157e308`, `0.1::float8 + 0.2`, `random()`}},
	{`f4`, []string{`'NaN'`, `'-0'`, `1e-45`, `16777217`, `random()`}},
	{`n`, []string{`'NaN'`, `0.00`, `-0.000`, `12345678901234567890.123456789012345678900`, `random()::numeric`}},
	{`vb`, []string{`B''`, `B'1010'`, `repeat('01', 100)::varbit`}},
	{`ip`, []string{`'::ffff:1.2.3.4/96'`, `'10.1.2.3/8'`}},
	{`u`, []string{`gen_random_uuid()`}},
	{`v`, []string{`'a:1A,2B ''q''''uote'':3'`, `''`}},
	{`ch`, []string{`'~'`, `''`}},
	{`nm`, []string{`'sixty-three bytes at most'`, `current_user`}},
	{`pt`, []string{`'(1e-320,-0)'`, `'(NaN,Infinity)'`}},
	{`bp`, []string{`'x'`, `'x   '`, `''`}},
	{`c4`, []string{`'é'`, `'    '`}},
	{`lsn`, []string{`'16/B374D848'`, `pg_current_wal_lsn()`}},
}

// feedZoo inserts a row of values as literals; those left out are NULL.
func feedZoo(ctx context.Context, c *client, name string) {
	op := c.newOp()
	columns, values := []string{`"Op.Id"`}, []string{fmt.Sprint(op)}
	for _, cage := range cages {
		if c.rng.IntN(4) > 0 {
			value, _ := one(c, cage.values)
			columns, values = append(columns, cage.column), append(values, value)
		}
	}
	_, err := c.db.ExecContext(ctx, fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", zoo, strings.Join(columns, ", "), strings.Join(values, ", ")))
	c.finish(name, single, op, err)
}
