require "pg"
c = PG.connect
c.exec("CREATE TABLE rb (id int PRIMARY KEY, v text)")
c.prepare("ins", "INSERT INTO rb VALUES ($1, $2)")
5.times { |i| c.exec_prepared("ins", [i, "v#{i}"]) }
begin; c.exec_prepared("ins", [1, "x"]); rescue PG::Error => e; puts e.message; end
p c.exec_params("SELECT v FROM rb WHERE id > $1 ORDER BY id", [2]).values
begin; c.transaction { c.exec("DELETE FROM rb"); c.exec("SELECT nosuch") }; rescue PG::Error => e; puts e.result.error_field(PG::PG_DIAG_SQLSTATE); end
c.copy_data("COPY rb FROM STDIN") { c.put_copy_data("9\tnine\n") }
c.copy_data("COPY (SELECT id FROM rb ORDER BY id) TO STDOUT") { while r = c.get_copy_data; puts r; end }
c.send_query("SELECT id FROM rb ORDER BY id"); c.set_single_row_mode; c.get_result.stream_each { |r| print r["id"], " " }
c.get_last_result
c.enter_pipeline_mode
c.send_query_params("SELECT 1", []); c.send_query_params("SELECT nosuch", []); c.send_query_params("SELECT 2", []); c.pipeline_sync
8.times { r = c.get_result rescue (puts $!.message; next); puts r.nil? ? "nil" : r.res_status(r.result_status) }
c.exit_pipeline_mode rescue puts $!.message
c.close
PG.connect.exec("DROP TABLE rb")
