package engine

import (
	"slices"
	"testing"

	"github.com/pgdist/pgdist/classify"
)

func TestLeavesBehind(t *testing.T) {
	for code, want := range map[string]leaving{
		"BEGIN RETURN 1; END": {},
		"BEGIN UPDATE t SET a = 1, b = 2; INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 2; END": {},
		"BEGIN SET LOCAL a.b = 'x'; SET CONSTRAINTS ALL DEFERRED; SET TRANSACTION READ ONLY; END":        {roots: true},
		"BEGIN SET a.b = 'x'; END":                                {settings: []string{"a.b"}},
		"BEGIN IF x THEN SET Work_Mem TO '1MB'; END IF; END":      {settings: []string{"work_mem"}},
		"BEGIN\n-- a comment\nSET a.b = 'x'; RESET a.c; END":      {settings: []string{"a.b", "a.c"}},
		"BEGIN SET SESSION search_path = x; END":                  {settings: []string{"search_path"}},
		"BEGIN SET NAMES 'latin1'; END":                           {settings: []string{"client_encoding"}},
		"BEGIN SET TIME ZONE 'UTC'; END":                          anySetting,
		"BEGIN RESET ALL; END":                                    anySetting,
		"BEGIN SET ROLE x; END":                                   anySetting,
		"BEGIN SET SESSION AUTHORIZATION x; END":                  anySetting,
		"SELECT set_config('a.b', $1, false)":                     {settings: []string{"a.b"}},
		"SELECT set_config('A.b', f(1, '(,'), is_local)":          {settings: []string{"a.b"}},
		"SELECT set_config('a.b', $1, true)":                      {roots: true},
		"SELECT pg_catalog.set_config('a.b', 'x', 't')":           {roots: true},
		"SELECT set_config($1, $2, true)":                         {roots: true},
		"SELECT set_config($1, $2, false)":                        anySetting,
		"SELECT set_config('a.b'":                                 anySetting,
		"SELECT set_config('role', 'x', false)":                   anySetting,
		"EXECUTE 'SET a.b = ' || quote_literal(x)":                {settings: []string{"a.b"}},
		"EXECUTE format('SET %I = %L', n, v)":                     anySetting,
		"EXECUTE 'SELECT set_config(''a.b'', ''x'', false)'":      {settings: []string{"a.b"}},
		"RAISE NOTICE 'set up %', x":                              {},
		"CREATE TEMP TABLE x (a int)":                             {pins: classify.PinTemp},
		"SELECT * INTO pg_temp.x FROM y":                          {pins: classify.PinTemp},
		"SELECT attempt, temperature FROM t":                      {},
		"PERFORM pg_advisory_lock(1)":                             {pins: classify.PinAdvisoryLock},
		"PERFORM pg_try_advisory_lock_shared(1)":                  {pins: classify.PinAdvisoryLock},
		"PERFORM pg_advisory_xact_lock(1)":                        {acts: true},
		"PERFORM pg_try_advisory_xact_lock_shared(1)":             {acts: true},
		"PERFORM pg_notify('c', '')":                              {acts: true},
		"BEGIN NOTIFY c; END":                                     {acts: true},
		"BEGIN OPEN c FOR SELECT 1; END":                          {roots: true},
		"SELECT opened, notified FROM t":                          {},
		"EXECUTE 'PREPARE p AS SELECT 1'":                         {pins: classify.PinPrepared},
		"EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'":       {pins: classify.PinHoldCursor},
		"PERFORM setseed(0.5)":                                    {pins: classify.PinSeed},
		"BEGIN SET a.b = 1; PERFORM set_config('a.c', '', false)": {settings: []string{"a.b", "a.c"}},
	} {
		if got := leavesBehind(code); got.pins != want.pins || !slices.Equal(got.settings, want.settings) || got.roots != want.roots || got.acts != want.acts {
			t.Errorf("%s: %s %+v, want %s %+v", code, got.pins, got, want.pins, want)
		}
	}
}

func TestLeaversByName(t *testing.T) {
	k := &leavers{
		calls:    map[string]leaving{"f": {settings: []string{"a.b"}}, "v": {settings: []string{"a.b"}}},
		writes:   map[string]leaving{"t": {pins: classify.PinTemp}},
		executes: map[string]bool{"runs": true},
	}
	c := &catalog{}
	c.latest.Store(&functions{leavers: k})
	setting, temp := leaving{settings: []string{"a.b"}}, leaving{pins: classify.PinTemp}
	for sql, want := range map[string]leaving{
		"SELECT 1": {}, "SELECT * FROM t": {}, "SELECT g(1)": {}, "ALTER TABLE t ADD x int": {},
		"SELECT F(1)": setting, "SELECT x.f(1) FROM t": setting, "SELECT * FROM v": setting, "INSERT INTO x SELECT * FROM v": setting,
		"INSERT INTO t VALUES (1)": temp, "DELETE FROM t": temp, "COPY t FROM STDIN": temp, "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x": temp,
		"CALL f(1)": setting, "DO $$ BEGIN PERFORM f(1); END $$": setting, "DO $$ BEGIN INSERT INTO t VALUES (1); END $$": temp, "CREATE TABLE n AS SELECT f(1)": setting,
		"SELECT runs('SET a.b = 1')": setting, "SELECT runs('SELECT 1')": {}, "CALL runs('SET a.b = 1')": setting,
		"PREPARE p AS SELECT f(1)": setting,
	} {
		v := classify.Parse(sql)
		if got := c.leaves(&Call{SQL: sql, Verdict: v}); got.pins != want.pins || !slices.Equal(got.settings, want.settings) {
			t.Errorf("%s: %s %v, want %s %v", sql, got.pins, got.settings, want.pins, want.settings)
		}
	}
}
