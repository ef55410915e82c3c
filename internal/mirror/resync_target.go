package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/health"
)

// copyTo are those of connections that fill the new database: nothing that
// users defined fires, and nothing is waited for, since the last transaction is.
var copyTo = map[string]string{"session_replication_role": "replica", "synchronous_commit": "off", "enable_seqscan": "on", "enable_mergejoin": "on"}

// maintenance connects to the target's server, but not to the database to be dropped.
func (r *resync) maintenance(ctx context.Context) (*conn, error) {
	var errs []error
	for _, db := range []string{"postgres", "template1"} {
		if db == r.target.cfg.Database {
			continue
		}
		cfg := r.target.cfg.Copy()
		cfg.Database = db
		dctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
		c, err := dial(dctx, cfg, nil)
		cancel()
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, r.target.fail("connect", errors.Join(errs...))
}

// examineTarget refuses a server that could not hold the copy, and asks before a
// database that holds something is lost.
func (r *resync) examineTarget(ctx context.Context) error {
	c, err := r.maintenance(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	raw, err := c.one(ctx, factsSQL, text(r.src.User))
	var f facts
	if err == nil {
		err = decode([]byte(raw), &f)
	}
	if err != nil {
		return r.target.fail("examine the server", err)
	}
	host := r.target.host
	switch {
	case f.System == r.src.System:
		return r.refuse(host, "give the member a server of its own, made by initdb", "it is the same server as %s, or a copy of its files (system %s)", r.source.host, f.System)
	case slices.ContainsFunc(r.view.Members, func(m health.Member) bool { return m.ID != r.target.id && m.System == f.System }):
		return r.refuse(host, "give the member a server of its own, made by initdb", "it is the server of another member (system %s)", f.System)
	case !f.Super:
		return r.refuse(host, "copying needs the user that ran init, or another superuser", "%w: role %s is not one", errNeedsSuperuser, f.User)
	case f.Recovery:
		return r.refuse(host, "use its primary, or promote it", "the server is a standby in recovery")
	case f.Fsync != "on" || f.FPW != "on":
		return r.refuse(host, "turn both on: without them a crash loses what was acknowledged", "fsync is %s, full_page_writes is %s", f.Fsync, f.FPW)
	}
	r.system = f.System
	for _, e := range r.src.Extensions {
		name, version, _ := strings.Cut(e, " ")
		if n, err := c.one(ctx, `SELECT count(*) FROM pg_available_extension_versions WHERE name = $1 AND version = $2`, text(name), text(version)); err != nil {
			return r.target.fail("look for extensions", err)
		} else if n == "0" {
			return r.refuse(host, "install the same extensions in the same versions on this server", "extension %s is not available there", e)
		}
	}
	return r.confirm(ctx)
}

// confirm asks if the target holds any table that is not pgdist's own.
func (r *resync) confirm(ctx context.Context) error {
	c, err := r.target.connect(ctx)
	if noDatabase(err) {
		return nil // there is no such database
	}
	if err != nil {
		return err
	}
	defer c.close()
	raw, err := c.one(ctx, `SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm', 'f')
		AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist') AND n.nspname !~ '^pg_(toast|temp)'`)
	if err != nil {
		return r.target.fail("look for tables", err)
	}
	if raw == "0" || r.half { // a copy that was broken off is nobody's data
		return nil
	}
	if r.unaskedMay() {
		return nil
	}
	what := fmt.Sprintf("database %s on %s holds %s tables, which will be lost", r.target.cfg.Database, r.target.host, raw)
	if r.o.Confirm == nil {
		return r.refuse(r.target.host, "to overwrite it, give --yes", "%s", what)
	}
	return r.o.Confirm(what)
}

// createSQL makes a database like the one it is run in, but empty.
const createSQL = `SELECT format('CREATE DATABASE %I TEMPLATE template0 ENCODING %L LC_COLLATE %L LC_CTYPE %L', d.datname, pg_encoding_to_char(d.encoding), d.datcollate, d.datctype)
	|| CASE x.j ->> 'datlocprovider' WHEN 'i' THEN ' LOCALE_PROVIDER icu' || format(' ICU_LOCALE %L', coalesce(x.j ->> 'datlocale', x.j ->> 'daticulocale'))
		WHEN 'b' THEN ' LOCALE_PROVIDER builtin' || format(' BUILTIN_LOCALE %L', x.j ->> 'datlocale') WHEN 'c' THEN ' LOCALE_PROVIDER libc' ELSE '' END
	|| coalesce(' ICU_RULES ' || quote_literal(x.j ->> 'daticurules'), '')
	FROM pg_database d, LATERAL (SELECT to_jsonb(d) AS j) x WHERE d.datname = current_database()`

// creation is the statement that makes the target's database.
func (r *resync) creation(ctx context.Context) (string, error) {
	create, err := r.snap.c.one(ctx, createSQL)
	if r.src.Version/10000 < 15 && r.major >= 15 {
		create += " LOCALE_PROVIDER libc" // the only one there was; template0 may have another
	}
	return create, r.source.fail("ask how the database is made", err)
}

// makeAnew drops the target's database and makes it again, with pgdist's functions
// and the roles that definitions will name, but without saying who it is.
func (r *resync) makeAnew(ctx context.Context, create string) error {
	c, err := r.maintenance(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if err := r.knownRoles(ctx); err != nil {
		return err
	}
	r.dropped = true
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + quoteIdent(r.target.cfg.Database) + " WITH (FORCE)", create} {
		if err := c.exec(ctx, sql); err != nil {
			return err
		}
	}
	// This connection stays: should the server crash before the end, which empties
	// UNLOGGED tables, there is no end.
	if r.setup, err = dial(ctx, r.target.cfg, copyTo); err != nil {
		return err
	}
	before, err := r.setup.scripts("01", "08")
	if err != nil {
		return err
	}
	if !r.snap.public {
		before += "\nDROP SCHEMA public;"
	}
	// Should somebody else make the database meanwhile, one of the two finds the schema there.
	if err := r.setup.exec(ctx, "SELECT pg_advisory_lock_shared("+attemptLock+"); SET client_min_messages = warning; BEGIN;\n"+before+attemptSQL+"("+quoteLiteral(r.attempt)+");\nCOMMIT"); err != nil {
		return err
	}
	return r.meetRoles(ctx)
}

// meetRoles makes the roles that definitions name, and drops those of the set that are no more: the
// server has them still, and would bring them back to all others should it lead.
func (r *resync) meetRoles(ctx context.Context) error {
	kept, err := r.setup.one(ctx, `SELECT coalesce(pgdist.shed($1::jsonb, $2::jsonb), '')`, nullable(r.roles), text(r.snap.roles))
	if err == nil && kept != "" {
		r.o.Report("other databases of %s use roles that the set has no more: %s; they stay", r.target.host, kept)
	}
	return r.target.fail("make roles", err)
}

// knownRoles reads which roles the database that is to be dropped knows as the set's.
func (r *resync) knownRoles(ctx context.Context) error {
	r.roles = "[]"
	c, err := dial(ctx, r.target.cfg, nil)
	if noDatabase(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.close()
	// One that led has not been told of its roles.
	_, err = c.call(ctx, `SELECT pgdist.role_names(pgdist.shared_state() -> 'roles', 0) FROM pgdist.fence f WHERE f.last_value & 1 = 1`)
	known := ""
	if err == nil {
		known, err = c.one(ctx, `SELECT coalesce(jsonb_agg(to_jsonb(k)), '[]') FROM pgdist.roles k WHERE NOT EXISTS (SELECT 1 FROM pgdist.meta m WHERE m.set_id <> $1)`, text(r.view.Set))
	}
	switch sqlState(err) {
	case "42P01", "3F000":
		return nil // it is nobody's
	}
	r.roles = known
	return err
}

// restore runs a script of definitions, in one transaction or, if the server has no room
// for the locks of them all, one by one. again tells that an attempt before may have made some.
func (r *resync) restore(ctx context.Context, script, op string, again bool) error {
	c, err := r.restorer(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if err = r.run(ctx, c, script, op); !lockless(err) && !(again && built(err)) {
		return err
	}
	pieces := classify.Split(script)
	if len(pieces) == 0 { // it cannot be told where they end
		return err
	}
	for _, one := range pieces {
		if err = r.run(ctx, c, one, op); err != nil && !(again && built(err)) {
			return err
		}
	}
	return nil
}

// lockless tells that a server's table of locks is full, which has room for some
// max_locks_per_transaction * max_connections (PostgreSQL docs, "Lock Management").
func lockless(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "53200" && pg.Routine == "LockAcquireExtended"
}

// index builds indexes, several at a time: each locks its own table alone.
func (r *resync) index(ctx context.Context, script string) error {
	head, each := entries(script)
	todo := make(chan string, len(each))
	for _, e := range each {
		todo <- e
	}
	close(todo)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range min(r.o.Jobs, len(each)) {
		wg.Go(func() {
			c, err := r.restorer(ctx)
			if err == nil {
				err = r.run(ctx, c, head, "restore indexes")
			}
			for e := range todo {
				if err != nil || ctx.Err() != nil {
					break
				}
				if err = r.run(ctx, c, e, "restore indexes"); r.taken != nil && built(err) {
					err = nil
				}
			}
			c.close()
			if err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// built tells that an index, or its constraint, is there: an attempt before has made it, for
// each comes with all that belongs to it or not at all.
func built(err error) bool {
	state := sqlState(err)
	return state == "42P07" || state == "42710" || state == "42P16" && strings.Contains(err.Error(), "multiple primary keys")
}

// restorer connects for definitions.
func (r *resync) restorer(ctx context.Context) (*conn, error) {
	cfg := r.target.cfg.Copy()
	cfg.RuntimeParams = nil
	c, err := dialPlain(ctx, cfg)
	if err == nil {
		err = c.exec(ctx, "SET session_replication_role = replica; SET synchronous_commit = off; SET client_min_messages = warning; SET lc_messages = 'C'")
	}
	if err != nil {
		c.close()
		return nil, r.target.fail("connect", err)
	}
	if err := r.enlist(ctx, c); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (r *resync) run(ctx context.Context, c *conn, script, op string) error {
	if err := c.exec(ctx, script); err != nil {
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Position > 0 {
			rest := []rune(script)
			rest = rest[min(len(rest), max(0, int(pg.Position)-120)):]
			err = fmt.Errorf("%w, near %q", err, string(rest[:min(len(rest), 120)]))
		}
		return r.target.fail(op, err)
	}
	return nil
}

// alike compares what the definitions brought along with what the source has: sorting,
// extensions, and the order of columns must be the same.
func (r *resync) alike(ctx context.Context) error {
	raw, err := r.setup.one(ctx, factsSQL, text(r.src.User))
	var f facts
	if err == nil {
		err = decode([]byte(raw), &f)
	}
	if err != nil {
		return r.target.fail("examine the new database", err)
	}
	switch {
	case f.Encoding != r.src.Encoding || f.Collate != r.src.Collate || f.Ctype != r.src.Ctype:
		return r.refuse(r.target.host, "", "encoding and locale %s %s %s differ from %s %s %s on %s", f.Encoding, f.Collate, f.Ctype, r.src.Encoding, r.src.Collate, r.src.Ctype, r.source.host)
	case f.CollVer != r.src.CollVer:
		return r.refuse(r.target.host, "install the same version of the C library or ICU", "collation versions %q differ from %q on %s", f.CollVer, r.src.CollVer, r.source.host)
	case !slices.Equal(f.Extensions, r.src.Extensions):
		return r.refuse(r.target.host, "install the same extensions in the same versions, as the default ones", "extensions %v differ from %v on %s", f.Extensions, r.src.Extensions, r.source.host)
	}
	tables, err := readRelations(ctx, r.setup)
	if err != nil {
		return r.target.fail("examine the new database", err)
	}
	for _, t := range r.snap.tables {
		if have := tables[t.Name]; have != nil && !slices.Equal(have.Columns, t.Columns) {
			return r.refuse(r.target.host, "make the table anew on the leader with its columns in that order, or report this", "pg_dump makes table %s with its columns in the order %v, not as on %s: %v", t.Name, have.Columns, r.source.host, t.Columns)
		}
	}
	return nil
}

// complete is the end: a view that was chosen after the member's old register was
// gone, and one transaction that says who this database is and where.
func (r *resync) complete(ctx context.Context) error {
	if err := r.kept(ctx); err != nil {
		return err
	}
	// Excluded, should it have been taken back before it was dropped.
	view, err := r.renew(ctx, health.Intent{Exclude: []health.MemberID{r.target.id}})
	if err != nil {
		return err
	}
	body, err := json.Marshal(view)
	if err != nil {
		return err
	}
	after, err := r.setup.scripts("09", "99")
	if err != nil {
		return err
	}
	if err := r.setup.exec(ctx, "BEGIN; SET LOCAL synchronous_commit = on; "+copiedSQL); err != nil {
		return r.target.fail("complete the copy", err)
	}
	if err := r.identity(ctx, view.Set); err != nil {
		return err
	}
	for _, q := range []struct {
		sql    string
		params [][]byte
	}{
		{`UPDATE pgdist.register SET promised = $1::text::bigint, accepted = $1::text::bigint, view = $2::jsonb`, [][]byte{text(strconv.FormatInt(view.Epoch, 10)), body}},
		{`SELECT setval('pgdist.fence', $1::text::bigint * 2)`, [][]byte{text(strconv.FormatInt(view.Epoch, 10))}},
		{`SELECT pgdist.terms($1::jsonb)`, [][]byte{r.snap.terms}},
		{`UPDATE pgdist.position SET term = $1::text::bigint, snap = $2::text::pg_snapshot, at = now()`, place(r.snap.place)},
		{`UPDATE pgdist.floor SET term = $1::text::bigint, snap = $2::text::pg_snapshot`, place(r.snap.floor)},
		{`INSERT INTO pgdist.boot (term) VALUES (-1)`, nil},
	} {
		if _, err := r.setup.call(ctx, q.sql, q.params...); err != nil {
			return r.target.fail("complete the copy", err)
		}
	}
	for id, gen := range r.aside {
		if _, err := r.setup.call(ctx, `INSERT INTO pgdist.amiss (tab, gen, what) VALUES ($1::text::int, $2::text::int, $3)`,
			strconv.AppendInt(nil, int64(id), 10), strconv.AppendInt(nil, int64(gen), 10), text(leftForLater)); err != nil {
			return r.target.fail("complete the copy", err)
		}
	}
	err = r.setup.exec(ctx, `DROP EVENT TRIGGER IF EXISTS "!pgdist_start"; DROP EVENT TRIGGER IF EXISTS "!pgdist_ddl"; DROP EVENT TRIGGER IF EXISTS "!pgdist_as";
		DROP EVENT TRIGGER IF EXISTS "!pgdist_drop"; DROP EVENT TRIGGER IF EXISTS "!pgdist_rewrite";`+after+"\nCOMMIT")
	return r.target.fail("complete the copy", err)
}

// identity says, in the transaction that is open, who the database is, and makes what the
// mirror needs of its tables.
func (r *resync) identity(ctx context.Context, set string) error {
	mirror, err := r.snap.c.one(ctx, `SELECT mirror FROM pgdist.meta`)
	if err != nil {
		return r.source.fail("ask who mirrors", err)
	}
	_, err = r.setup.call(ctx, `INSERT INTO pgdist.meta (version, set_id, member, system, mirror) VALUES ($1::text::int, $2, $3::text::int, $4, $5)`,
		text(strconv.Itoa(Version)), text(set), text(strconv.Itoa(int(r.target.id))), text(r.system), text(mirror))
	if err == nil {
		_, err = r.setup.call(ctx, `SELECT count(*) FROM pgdist.sync($1::jsonb)`, text(r.snap.ids))
	}
	return r.target.fail("make it a member", err)
}

func place(p Place) [][]byte {
	return [][]byte{text(strconv.FormatInt(p.Term, 10)), nullable(p.Snapshot)}
}

// kept makes sure that the set can go on from the copy: what the source had seen is
// on its disk, and the leader's journal still has all that came since.
func (r *resync) kept(ctx context.Context) error {
	// Was it the source's own word that its client's commit could wait?
	src, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	defer src.close()
	if _, err := src.one(ctx, `SELECT pgdist.gate($1::pg_lsn)`, text(r.snap.gate)); err != nil {
		return r.source.fail("wait for its disk", err)
	}
	if v := newestView(askAll(ctx, r.cfg)); v != nil && v.Set == r.view.Set && v.Epoch > r.view.Epoch {
		r.view, r.s.cur = v, v
	}
	l, err := r.s.members.get(r.view.Leader).connect(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	h, err := l.where(ctx)
	if err != nil {
		return r.s.members.get(r.view.Leader).fail("ask for its state", err)
	}
	met, err := meet(&here{Term: r.snap.place.Term, Snap: r.snap.place.Snapshot, Terms: r.chain()}, h)
	if err == nil {
		err = complete("the leader's", h.floor(), met.mine)
	}
	if err != nil {
		return &Error{Op: "resync", Host: r.target.host, Err: fmt.Errorf("the set has left the copy behind: %w", err), Hint: "run it again"}
	}
	return nil
}

func (r *resync) chain() []termRow {
	var rows []termRow
	if decode(r.snap.terms, &rows) != nil {
		return nil
	}
	return rows
}
