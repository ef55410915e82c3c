-- Event triggers need a superuser; they are what keeps DDL from staying local.
CREATE EVENT TRIGGER "!pgdist_start" ON ddl_command_start EXECUTE FUNCTION pgdist.on_start();
CREATE EVENT TRIGGER "!pgdist_drop" ON sql_drop EXECUTE FUNCTION pgdist.on_drop();
CREATE EVENT TRIGGER "!pgdist_rewrite" ON table_rewrite EXECUTE FUNCTION pgdist.on_rewrite();
CREATE EVENT TRIGGER "!pgdist_as" ON ddl_command_end EXECUTE FUNCTION pgdist.on_as();
CREATE EVENT TRIGGER "!pgdist_ddl" ON ddl_command_end EXECUTE FUNCTION pgdist.on_ddl();
