// Package mirrortest has tests look over mirroring's shoulder.
package mirrortest

import (
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// syncSQL puts a check behind whatever brings pgdist's lists, functions and triggers up to
// the catalog: had all tables been looked at, instead of those that the DDL concerns, there
// would have been nothing more to do. If there is, the DDL fails.
const syncSQL = `SET session_replication_role = replica;
CREATE FUNCTION pgdist.missed() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
	SELECT string_agg(x.what, '; ') FROM (
		SELECT format('table %s of %s', coalesce(u.rel, t.rel), coalesce(t.id::text, 'no number')) AS what
		  FROM pgdist.user_tables(NULL) u FULL JOIN pgdist.tables t ON t.oid = u.oid
		 WHERE (current_setting('transaction_isolation') = 'read committed' OR has_table_privilege(coalesce(u.oid, t.oid), 'SELECT') IS NOT NULL) -- an older snapshot has what was dropped since
		   AND (u.oid IS NULL OR t.oid IS NULL OR (u.nsp, u.rel, u.files, u.keyed, u.upsert, u.shape, u.form, u.missing) IS DISTINCT FROM (t.nsp, t.rel, t.files, t.keyed, t.upsert, t.shape, t.form, t.missing)
		    OR pgdist.triggers_of(u.rels, t.id) <> pgdist.trigger_count(u.rels, u.byrow)
		    OR EXISTS (SELECT 1 FROM unnest(u.rels) r WHERE pgdist.unfit(r) IS NOT NULL))
		UNION ALL SELECT 'sequence ' || coalesce(u.name, q.name) FROM pgdist.user_sequences() u FULL JOIN pgdist.seqs q ON q.oid = u.oid AND q.name = u.name WHERE u.oid IS NULL OR q.oid IS NULL
		UNION ALL SELECT 'materialized view ' || coalesce(c.oid, v.oid)::regclass FROM (SELECT oid FROM pg_class WHERE relkind = 'm') c FULL JOIN pgdist.views v ON v.oid = c.oid WHERE c.oid IS NULL OR v.oid IS NULL
		UNION ALL SELECT 'function ' || p.proname FROM pg_proc p WHERE p.pronamespace = 'pgdist'::regnamespace AND p.proname ~ '^[cawxry]_[0-9]+$' AND NOT EXISTS (SELECT 1 FROM pgdist.tables t WHERE t.id = substr(p.proname, 3)::int)) x
$$;
CREATE FUNCTION pgdist.must_miss_nothing(what text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE m text := pgdist.missed();
BEGIN
	IF m IS NOT NULL THEN RAISE EXCEPTION 'after % not all is up to the catalog: %', what, m USING ERRCODE = 'XX000'; END IF;
END $$;
CREATE FUNCTION pgdist.on_ddl_check() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_TAG = 'REINDEX' OR pgdist.busy() OR coalesce(current_setting('pgdist.ddl', true), '') <> '' THEN RETURN; END IF; -- within an extension's script
	PERFORM pgdist.must_miss_nothing(TG_TAG);
END $$;
CREATE EVENT TRIGGER "!pgdist_ddl_check" ON ddl_command_end EXECUTE FUNCTION pgdist.on_ddl_check();
ALTER FUNCTION pgdist.replay(jsonb) RENAME TO replay_itself;
CREATE FUNCTION pgdist.replay(d jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM pgdist.replay_itself(d);
	IF d ->> 'enums' IS NULL THEN PERFORM pgdist.must_miss_nothing('replaying ' || (d ->> 'tag')); END IF;
END $$;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pgdist FROM PUBLIC;
DO $$ DECLARE m record; BEGIN SELECT * INTO m FROM pgdist.meta; EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgdist TO %I', m.mirror); END $$;
RESET session_replication_role`

// CheckSync makes DDL fail on these members, which must be of a set already, if it leaves
// anything about mirrored tables for a look at all of them to find.
func CheckSync(tb testing.TB, servers ...*pgtest.Server) {
	tb.Helper()
	for _, s := range servers {
		s.Exec(tb, syncSQL)
	}
}
