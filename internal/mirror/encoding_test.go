package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// encoded makes a set of databases in another encoding.
func encoded(t *testing.T, encoding, schema string) *rig {
	t.Helper()
	r := &rig{t: t, servers: pgtest.Set(t, 3, pgtest.Options{})}
	for _, s := range r.servers {
		s.Exec(t, fmt.Sprintf(`CREATE DATABASE enc TEMPLATE template0 ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C'`, encoding))
		conn, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		conn.Database = "enc"
		r.cfg.Members = append(r.cfg.Members, MemberConfig{Conn: conn})
	}
	r.cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	unhurried(&r.cfg)
	for i := range r.servers {
		if _, err := r.in(i, encoding).Exec(r.ctx(), schema); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), ages)
	defer cancel()
	if _, err := Init(ctx, r.cfg, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	r.open()
	return r
}

// in connects to a server's database as a client that has the same encoding.
func (r *rig) in(server int, encoding string) *pgx.Conn {
	r.t.Helper()
	cfg, err := pgx.ParseConfig(r.servers[server].DSN())
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.Database, cfg.RuntimeParams["client_encoding"], cfg.DefaultQueryExecMode = "enc", encoding, pgx.QueryExecModeExec
	c, err := pgx.ConnectConfig(r.ctx(), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// Databases need not be in UTF-8, nor hold what could be turned into it.
func TestEncodings(t *testing.T) {
	for encoding, odd := range map[string]string{
		"SQL_ASCII": "\xff\xfe\xe9", // no UTF-8
		"WIN1252":   "\xe9\x81\x80", // \x81 is no character
		"LATIN1":    "\xe9\x80\xff",
		"EUC_JP":    "\xa9\xa1\xb0\xa1", // the first is no character
	} {
		t.Run(encoding, func(t *testing.T) {
			r := encoded(t, encoding, `CREATE TABLE t (k text PRIMARY KEY, v text, c "char", n name); CREATE TABLE bag (v text, x int); CREATE TABLE "n`+odd+`" (k int PRIMARY KEY, "c`+odd+`" text CHECK ("c`+odd+`" <> '')); CREATE ROLE "r`+odd+`"; GRANT SELECT ON t TO "r`+odd+`"; COMMENT ON TABLE t IS 'none'; INSERT INTO t VALUES ('before `+odd+`', '`+odd+`', 'x', '`+odd+`'); INSERT INTO bag VALUES ('`+odd+`', 1)`)
			c := r.in(int(r.set.View().Leader)-1, encoding)
			r.do(c, `INSERT INTO t VALUES ('`+odd+`', '"`+odd+`\', NULL, NULL), ('a', '`+odd+`', NULL, '`+odd+`')`, `INSERT INTO bag VALUES ('`+odd+`', 2), ('`+odd+`', 2)`,
				`UPDATE t SET v = v || k WHERE k = '`+odd+`'`, `DELETE FROM bag WHERE ctid = '(0,2)'`, `UPDATE t SET k = '`+odd+`2' WHERE k = 'a'`)
			r.inSync(3)
			r.alikeIn(encoding)
			r.do(c, `INSERT INTO "n`+odd+`" VALUES (1, '`+odd+`')`)
			r.ddl(c, `CREATE VIEW "v`+odd+`" AS SELECT "c`+odd+`" FROM "n`+odd+`"`)
			r.ddl(c, `ALTER TABLE t ADD d text DEFAULT '`+odd+`'`)
			r.ddl(c, `COMMENT ON TABLE t IS '`+odd+`'`)
			r.inSync(3)
			r.alikeIn(encoding)
			if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 || len(rep.Unread) > 0 {
				t.Errorf("%v %v", said(rep), rep.Unread)
			}
			if encoding == "EUC_JP" || encoding == "WIN1252" {
				return // the others do for what follows
			}
			if err := r.servers[2].Kill(); err != nil {
				t.Fatal(err)
			}
			r.do(c, `INSERT INTO t VALUES ('away `+odd+`', '`+odd+`')`, `UPDATE bag SET x = x + 1`)
			r.ddl(c, `CREATE TABLE u (k text PRIMARY KEY DEFAULT '`+odd+`')`)
			r.do(c, `INSERT INTO u DEFAULT VALUES`)
			if err := r.servers[2].StartAgain(); err != nil {
				t.Fatal(err)
			}
			r.inSync(3)
			r.alikeIn(encoding)
			if _, err := r.resync(r.ctx(), 3, func(o *ResyncOptions) { yes(o); o.Force = true }); err != nil {
				t.Fatal(err)
			}
			r.do(c, `INSERT INTO u VALUES ('`+odd+`3')`, `UPDATE "n`+odd+`" SET "c`+odd+`" = 'x'`)
			r.inSync(3)
			r.alikeIn(encoding)
			if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 || len(rep.Unread) > 0 {
				t.Errorf("%v %v", said(rep), rep.Unread)
			}
			// What differs is found and put right.
			if _, err := r.in(2, encoding).Exec(r.ctx(), `SET session_replication_role = replica; UPDATE "n`+odd+`" SET "c`+odd+`" = 'y`+odd+`'; DELETE FROM t WHERE k = '`+odd+`2'; DELETE FROM bag WHERE v = '`+odd+`'`); err != nil {
				t.Fatal(err)
			}
			if rep, err := r.set.Repair(r.ctx(), VerifyOptions{}, false); err != nil || len(rep.Differences) != 3 {
				t.Errorf("%v %v", said(rep), err)
			}
			r.inSync(3)
			r.alikeIn(encoding)
			if rep := r.verify(VerifyOptions{}); len(rep.Differences) > 0 || len(rep.Unread) > 0 {
				t.Errorf("%v %v", said(rep), rep.Unread)
			}
		})
	}
}

// alikeIn compares what the tables hold.
func (r *rig) alikeIn(encoding string) {
	r.t.Helper()
	var want string
	for i := range r.servers {
		var got string
		if err := r.in(i, encoding).QueryRow(r.ctx(), `SELECT (SELECT string_agg(textin(record_out(t)), '|' ORDER BY k) FROM t) || (SELECT string_agg(textin(record_out(b)), '|' ORDER BY v, x) FROM bag b) || obj_description('t'::regclass)`).Scan(&got); err != nil && i > 0 {
			r.t.Error(err)
		}
		if i == 0 {
			want = got
		}
		if got != want {
			r.t.Errorf("%q on server %d, not %q", got, i, want)
		}
	}
}
