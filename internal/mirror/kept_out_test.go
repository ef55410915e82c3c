package mirror

import (
	"strings"
	"testing"
)

// What keeps a member out that nobody but people can mend is told to who asks the databases,
// with what to do; it comes back when that is done.
func TestStatusTellsWhatKeepsAMemberOut(t *testing.T) {
	a := trial{schema: `CREATE ROLE guarding; CREATE TABLE t (k int PRIMARY KEY); CREATE TABLE u (k int PRIMARY KEY); CREATE TABLE plain (k int PRIMARY KEY);
		CREATE FUNCTION inner_f() RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'; REVOKE EXECUTE ON FUNCTION inner_f FROM PUBLIC;
		CREATE FUNCTION outer_f() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN inner_f(); END';
		ALTER TABLE t ADD CHECK (outer_f()); GRANT ALL ON SCHEMA public TO guarding; ALTER TABLE t OWNER TO guarding`}.on(t, ground(t, 2, nil))
	told := func(words ...string) {
		t.Helper()
		a.await("status tells "+strings.Join(words, ", "), func() bool {
			s, err := Inspect(a.ctx(), a.cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range words {
				if !strings.Contains(s.Members[1].Error, w) {
					return false
				}
			}
			return true
		})
	}
	c := a.client()
	a.exec(c, `INSERT INTO t VALUES (1)`)
	told("permission denied for function inner_f", "grant it")
	a.tx(c, `ddl: GRANT EXECUTE ON FUNCTION inner_f TO guarding`)
	a.same()

	by := a.clientOf(2)
	a.exec(by, `SET session_replication_role = replica`, `ALTER TABLE u FORCE ROW LEVEL SECURITY`)
	a.tx(c, `ddl: ALTER TABLE u ADD COLUMN n int`)
	told("table public.u cannot be mirrored", "NO FORCE ROW LEVEL SECURITY", "it is tried again")
	a.exec(by, `ALTER TABLE u NO FORCE ROW LEVEL SECURITY`)
	a.same()
	if s, err := Inspect(a.ctx(), a.cfg); err != nil || s.Members[1].Error != "" {
		t.Errorf("%v says %q", err, s.Members[1].Error)
	}
}
