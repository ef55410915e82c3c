package driver

import (
	"context"
	"testing"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// merged are trees of partitions that MERGE is run on: p, of columns k, d and t, divided by d.
var merged = map[string]string{
	"with a key":    `CREATE TABLE p (k int, d int, t text, PRIMARY KEY (k, d)) PARTITION BY RANGE (d)`,
	"without a key": `CREATE TABLE p (k int, d int, t text) PARTITION BY RANGE (d)`,
}

// merging leave rows in other partitions, or others beside them, in ways of which PostgreSQL's
// transition tables do not tell. The names within are of what hides that it is a MERGE.
var merging = []string{
	`MERGE INTO p USING (VALUES (1), (2)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 15`,
	`MERGE INTO p USING (VALUES (1), (3), (30)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = p.d + 11, t = 'moved' WHEN NOT MATCHED THEN INSERT VALUES (s.k, 1, 'new')`,
	`MERGE INTO p USING (SELECT * FROM (VALUES (40), (4), (41), (5)) s (k) ORDER BY k DESC OFFSET 0) s ON p.k = s.k WHEN MATCHED THEN UPDATE SET k = p.k + 100 WHEN NOT MATCHED THEN INSERT VALUES (s.k, 1, 'new')`,
	`MERGE INTO p USING (VALUES (1), (6), (7)) s (k) ON p.k = s.k WHEN MATCHED AND s.k = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET d = 25`,
	`MERGE INTO mid USING (VALUES (8), (9)) s (k) ON mid.k = s.k WHEN MATCHED THEN UPDATE SET d = 16`,
	`DO $$ BEGIN MERGE INTO p USING (VALUES (8)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 25; EXECUTE 'MERGE INTO p USING (VALUES (9)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 25'; END $$`,
	`SELECT in_sql(10)`,
	`PREPARE hidden (int) AS MERGE INTO p USING (VALUES ($1)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 28; EXECUTE hidden (11); DO $$ BEGIN EXECUTE '/* " */ EXECUTE hidden (12)'; END $$; DEALLOCATE hidden`,
	`BEGIN; SAVEPOINT s; MERGE INTO p USING (VALUES (13)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 25; ROLLBACK TO s; UPDATE p SET t = 'kept' WHERE k = 14; MERGE INTO p USING (VALUES (15)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 25; COMMIT`,
	`MERGE INTO p USING (VALUES (16), (17), (18)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 25, t = 'nested'`,
	`UPDATE p SET d = 29 - d WHERE k < 20; INSERT INTO p VALUES (60, 1, 'plain'); DELETE FROM p WHERE k = 19`,
	`SET ROLE plain; MERGE INTO p USING (VALUES (20)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 29 - p.d; RESET ROLE`,
	`ALTER TABLE p DETACH PARTITION high; UPDATE high SET t = 'alone'; INSERT INTO high (k, d, t) VALUES (70, 20, 'alone'); ALTER TABLE p ATTACH PARTITION high FOR VALUES FROM (20) TO (30)`,
	`MERGE INTO p USING (VALUES (70), (60)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 29 - p.d`,
}

// TestMerge: what MERGE does to partitions is the same on all servers. PostgreSQL (15 to 18)
// has no transition table of a statement for rows that it moves to another partition, and
// wrong ones for what it updates beside what it inserts.
func TestMerge(t *testing.T) {
	for name, table := range merged {
		t.Run(name, func(t *testing.T) {
			db, servers := mirrored(t, "")
			var major int
			if err := db.QueryRowContext(context.Background(), "SELECT current_setting('server_version_num')::int / 10000").Scan(&major); err != nil {
				t.Fatal(err)
			}
			if major < 15 {
				t.Skip("MERGE is of PostgreSQL 15")
			}
			d := defined{t, db}
			d.session([]string{
				table + `; CREATE ROLE plain; GRANT ALL ON p TO plain`, `CREATE TABLE low PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE mid PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY LIST (d); CREATE TABLE mid_5 PARTITION OF mid FOR VALUES IN (15); CREATE TABLE mid_x PARTITION OF mid DEFAULT`,
				`CREATE TABLE high (t text, gone int, d int NOT NULL, k int NOT NULL); ALTER TABLE high DROP COLUMN gone; ALTER TABLE p ATTACH PARTITION high FOR VALUES FROM (20) TO (30)`,
				`INSERT INTO p SELECT k, CASE WHEN k IN (8, 9) THEN 15 ELSE k % 10 END, 'old' FROM generate_series(1, 20) k`,
				`CREATE FUNCTION in_sql(int) RETURNS void LANGUAGE sql AS 'MERGE INTO p USING (VALUES ($1)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 25'`,
				// Statements beside a MERGE, before it is over and after each of its rows.
				`CREATE FUNCTION beside() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					IF NEW.t = 'nested' AND OLD.t = 'old' THEN
						UPDATE p SET t = 'beside' WHERE k = 20; INSERT INTO p VALUES (NEW.k + 200, 1, 'beside');
						MERGE INTO p USING (VALUES (NEW.k + 200)) s (k) ON p.k = s.k WHEN MATCHED THEN UPDATE SET d = 17;
					END IF; RETURN NEW; END $$`,
				`CREATE TRIGGER beside BEFORE UPDATE ON p FOR EACH ROW EXECUTE FUNCTION beside()`,
			})
			for _, q := range merging {
				d.session([]string{q})
				if pgtest.SameBytes(t, servers...); t.Failed() {
					t.Fatalf("after %s", q)
				}
			}
		})
	}
}
