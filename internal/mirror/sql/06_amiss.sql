-- blame notes on a follower what a comparison found to differ there, under the fence: e is
-- the epoch of the view that the comparison was made by.
CREATE FUNCTION pgdist.blame(e bigint, tab int, gen int, keys text[], what text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE fence bigint;
BEGIN
    SELECT f.last_value INTO fence FROM pgdist.fence f LEFT JOIN pgdist.boot b ON true; -- its lock keeps the role as it is
    IF fence <> e * 2 THEN
        RAISE EXCEPTION 'epoch % was asked for, this member is at epoch % as %', e, fence >> 1, CASE fence & 1 WHEN 1 THEN 'leader' ELSE 'follower' END
            USING ERRCODE = 'PD001';
    END IF;
    PERFORM set_config('synchronous_commit', 'on', true);
    INSERT INTO pgdist.amiss (tab, gen, keys, what) VALUES (blame.tab, blame.gen, blame.keys, blame.what);
END $$;

-- blamed lists what is to be shipped anew to this member.
CREATE FUNCTION pgdist.blamed() RETURNS TABLE (id bigint, tab int, gen int, keys text[], what text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.id, a.tab, a.gen, a.keys, a.what FROM pgdist.amiss a ORDER BY a.id
$$;

-- amended takes off that list, up to number upto, what the apply that it is part of brings.
CREATE FUNCTION pgdist.amended(upto bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN DELETE FROM pgdist.amiss a WHERE a.id <= upto; END $$;

-- identified tells by what the rows of a relation with storage are journaled: the number
-- and generation of its table, and the expression for the key of row t; NULL: it has none.
CREATE FUNCTION pgdist.identified(rel oid) RETURNS TABLE (id int, gen int, key text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT t.id, t.gen, CASE WHEN t.keyed THEN pgdist.key_text(pgdist.key_index(t.oid), 't') END FROM pgdist.tables t WHERE identified.rel = t.oid OR identified.rel = ANY (t.files);
END $$;

-- keep_out notes why a member could not be taken back, for those who ask about the set.
CREATE FUNCTION pgdist.keep_out(who int, because text, lasts interval) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgdist.kept_out AS k (member, why, till) VALUES (who, because, now() + lasts) ON CONFLICT (member) DO UPDATE SET why = EXCLUDED.why, till = EXCLUDED.till;
END $$;

-- keeping_out tells why a member could not be taken back, while that is news.
CREATE FUNCTION pgdist.keeping_out(who int) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.why FROM pgdist.kept_out k WHERE k.member = who AND k.till > now()
$$;
