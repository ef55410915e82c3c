-- Nobody but the mirror's role may call anything here; what runs as a trigger
-- needs no right to be called.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pgdist FROM PUBLIC;
DO $$
DECLARE mirror name := (SELECT m.mirror FROM pgdist.meta m);
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA pgdist TO %I', mirror);
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgdist TO %I', mirror);
END $$;
