package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
)

// tools are the programs that write a database's definitions as SQL.
type tools struct {
	dump, restore string
	encoding      string // the database's, in which definitions come
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// errNoTools: the programs are not there.
var errNoTools = errors.New("pg_dump and pg_restore are not on this machine")

// findTools looks for pg_dump of the source's version or a newer one: beside the
// server's programs, should they be on this machine, where distributions put them,
// and in PATH.
func findTools(ctx context.Context, source *member, major int) (*tools, error) {
	var dirs []string
	c, err := source.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if dir, err := c.one(ctx, `SELECT setting FROM pg_config() WHERE name = 'BINDIR'`); err == nil {
		dirs = append(dirs, dir)
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, found...)
	}
	dirs = append(dirs, filepath.SplitList(os.Getenv("PATH"))...)
	var best *tools
	at := 0
	for _, dir := range dirs {
		t := &tools{dump: filepath.Join(dir, "pg_dump"), restore: filepath.Join(dir, "pg_restore"), encoding: c.ParameterStatus("server_encoding")}
		out, err := exec.CommandContext(ctx, t.dump, "--version").Output()
		m := versionText.FindSubmatch(out)
		if err != nil || m == nil {
			continue
		}
		if _, err := os.Stat(t.restore); err != nil {
			continue
		}
		// The source's own version is best, else the next newer one.
		if v, err := strconv.Atoi(string(m[1])); err == nil && v >= major && (best == nil || v < at) {
			best, at = t, v
		}
	}
	if best == nil {
		return nil, &Error{Op: "find pg_dump", Err: fmt.Errorf("%w: those of PostgreSQL %d or later", errNoTools, major),
			Hint: fmt.Sprintf("install them here: apt-get install postgresql-client-%d, or the like; or put them into PATH", major)}
	}
	return best, nil
}

// dumped are a database's definitions, without schema pgdist and what belongs to it: in
// the order in which they are made. indexes are those that need a table's rows and
// nothing else, and so may be made at the same time; attached make one of those of partitions.
type dumped struct{ schemas, pre, indexes, attached, post string }

// ours are entries of an archive's table of contents that pgdist makes itself, and
// data, of which a schema has none but what it says of materialized views.
var ours = regexp.MustCompile(`(?m)^\d+; \d+ \d+ (?:TRIGGER .* pgdist_[iudtabms] |EVENT TRIGGER - "?!pgdist_|COMMENT - EVENT TRIGGER "?!pgdist_|MATERIALIZED VIEW DATA ).*\n`)

// schemas and extensions are entries that come first, each kind by itself. What is granted on
// schemas, and said of them, goes with them: who grants on a table needs the one, and pg_restore
// counts it to the section of whatever comes before it.
var (
	schemas    = regexp.MustCompile(`(?m)^\d+; \d+ \d+ (?:(?:ACL|COMMENT|SECURITY LABEL) - )?SCHEMA .*\n`)
	extensions = regexp.MustCompile(`(?m)^\d+; \d+ \d+ EXTENSION .*\n`)
)

// building are entries that build an index: also of constraints, but not foreign keys.
// (INDEX ATTACH, the other kind that begins so, has what it joins made first.)
var building = regexp.MustCompile(`(?m)^\d+; \d+ \d+ (?:CONSTRAINT|INDEX) .*\n`)

var attaching = regexp.MustCompile(`(?m)^\d+; \d+ \d+ INDEX ATTACH .*\n`)

// restricted are lines for psql alone that pg_dump puts around its script.
var restricted = regexp.MustCompile(`(?m)^\\(?:un)?restrict .*$`)

// definitions writes down the source's definitions as a snapshot sees them.
// major is of the server that they are for; disordered are tables that pg_dump would make
// with columns in another order.
func (t *tools) definitions(ctx context.Context, cfg *pgconn.Config, snapshot string, major int, disordered []string) (*dumped, error) {
	tmp, err := newScratch()
	if err != nil {
		return nil, err
	}
	defer tmp.close() //nolint:errcheck // what is left is swept up by the next copy
	archive, list := filepath.Join(tmp.dir, "archive"), filepath.Join(tmp.dir, "list")
	args := []string{"--format=custom", "--schema-only", "--no-sync", "--exclude-schema=pgdist", "--lock-wait-timeout=" + dumpLockWait, "--snapshot=" + snapshot, "--file=" + archive}
	if _, err := t.dumping(ctx, cfg, args...); err != nil {
		return nil, err
	}
	toc, err := run(ctx, nil, t.restore, "--list", archive)
	if err != nil {
		return nil, err
	}
	toc = ours.ReplaceAll(toc, nil)
	rest := extensions.ReplaceAll(schemas.ReplaceAll(toc, nil), nil)
	indexes := bytes.Join(building.FindAll(attaching.ReplaceAll(rest, nil), -1), nil)
	attached := bytes.Join(attaching.FindAll(rest, -1), nil)
	d := &dumped{}
	for _, part := range []struct {
		section string
		entries []byte
		script  *string
	}{
		{"pre-data", bytes.Join(schemas.FindAll(toc, -1), nil), &d.schemas},
		{"pre-data", rest, &d.pre},
		{"post-data", indexes, &d.indexes},
		{"post-data", attached, &d.attached},
		{"post-data", without(rest, slices.Concat(indexes, attached)), &d.post},
	} {
		if err := os.WriteFile(list, part.entries, 0o600); err != nil {
			return nil, err
		}
		text, err := run(ctx, nil, t.restore, "--section="+part.section, "--use-list="+list, "--file=-", archive)
		if err != nil {
			return nil, err
		}
		*part.script = withoutInternals(forServer(string(restricted.ReplaceAll(text, nil)), major))
	}
	d.pre, err = t.inOrder(ctx, cfg, snapshot, d.pre, disordered)
	return d, err
}

// without leaves lines out of others.
func without(lines, out []byte) []byte {
	drop := map[string]bool{}
	for l := range bytes.Lines(out) {
		drop[string(l)] = true
	}
	var kept []byte
	for l := range bytes.Lines(lines) {
		if !drop[string(l)] {
			kept = append(kept, l...)
		}
	}
	return kept
}

// entryMark is how pg_dump begins what makes one thing.
const entryMark = "\n--\n-- Name: "

// entries divides a script into its head, which holds settings, and what it makes one
// after the other. One that sets more in between is not divided.
func entries(script string) (head string, each []string) {
	parts := strings.Split(script, entryMark)
	for _, p := range parts[1:] {
		each = append(each, "-- Name: "+p)
	}
	for _, e := range each {
		if strings.Count(e, "\nSET ") != strings.Count(e, "\nSET default_tablespace = '';") {
			return "", []string{script}
		}
	}
	return parts[0], each
}

// newSettings are set at the head of a script by a pg_dump that may be newer than the
// server, and by the version since which a server knows them.
var newSettings = map[string]int{"SET transaction_timeout = 0;\n": 17}

// forServer leaves out of a script's head what a server of a major version does not know.
func forServer(script string, major int) string {
	head, body := script, ""
	if i := strings.Index(script, "\n-- Name: "); i >= 0 {
		head, body = script[:i], script[i:]
	}
	for line, since := range newSettings {
		if major < since {
			head = strings.Replace(head, line, "", 1)
		}
	}
	return head + body
}

var (
	// columnOptions is a statement by which pg_dump gives a column options.
	columnOptions = regexp.MustCompile(`^(ALTER (?:FOREIGN )?TABLE ONLY (?:` + identifier + `\.)?` + identifier + ` ALTER COLUMN ` + identifier + ` SET) \(([^()]*)\)$`)
	// internalOption is one that a server keeps for itself.
	internalOption = regexp.MustCompile(`pg_\w+=(?:'[^']*'|[^,]*)(?:, |$)`)
)

// withoutInternals leaves out what servers since November 2026 (15.20 and its siblings) note among
// the options of each column, which a pg_dump of before takes for options, and servers of before
// do not know.
func withoutInternals(script string) string {
	if !strings.Contains(script, "pg_attver=") {
		return script
	}
	var b strings.Builder
	for _, statement := range classify.Split(script) {
		before, after, _ := strings.Cut(script, statement)
		b.WriteString(before)
		script = after
		m := columnOptions.FindStringSubmatch(statement)
		if m == nil || !internalOption.MatchString(m[2]) {
			b.WriteString(statement)
			continue
		}
		if rest := strings.TrimSuffix(internalOption.ReplaceAllString(m[2], ""), ", "); rest != "" {
			b.WriteString(m[1] + " (" + rest + ")")
		} else {
			script = strings.TrimPrefix(script, ";")
		}
	}
	b.WriteString(script)
	return b.String()
}

// dumping runs pg_dump on a server.
func (t *tools) dumping(ctx context.Context, cfg *pgconn.Config, args ...string) ([]byte, error) {
	b, err := newBridge(ctx, cfg, map[string]string{"client_encoding": t.encoding, "application_name": "pgdist", "options": "-c lc_messages=C"})
	if err != nil {
		return nil, err
	}
	out, err := run(ctx, append(b.env(), "PGCLIENTENCODING="+t.encoding), t.dump, args...)
	if e := b.close(); e != nil && err != nil {
		return nil, e // the cause
	}
	return out, err
}

// run executes one of PostgreSQL's programs.
func run(ctx context.Context, env []string, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = slices.Concat(os.Environ(), env, []string{"LC_ALL=C"})
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(program), err, strings.TrimSpace(errs.String()))
	}
	return out, nil
}

// frozen is the source as one snapshot sees it, and the position that this is.
type frozen struct {
	c      *conn  // keeps the snapshot
	name   string // by which others take it over
	place  Place
	terms  []byte // JSON
	ids    string // of the tables, for pgdist.sync
	floor  Place
	tables []*relation
	named  []byte // JSON: what all members know the source's roles by that the snapshot has
	roles  string // the leader's shared objects; not of the snapshot: they are state
	gate   string // up to where the source's WAL must be on disk
	public bool   // there is a schema public
}

func (f *frozen) close() {
	if f != nil {
		f.c.close()
	}
}

// positionSQL reads the position that a snapshot of a member is. At the leader it is
// capped, like what a batch gives a follower: above the newest journaled transaction
// there may be some that left nothing, whose numbers a crash gives out again.
const positionSQL = `SELECT json_build_object(
	'term', CASE WHEN f.last_value & 1 = 1 THEN t.last_value ELSE p.term END,
	'snap', CASE WHEN f.last_value & 1 = 1 THEN pgdist.cap(pg_current_snapshot(), greatest('3'::xid8,
			(SELECT (j.xid::text::bigint + 1)::text::xid8 FROM pgdist.journal j WHERE j.term = t.last_value ORDER BY j.xid DESC LIMIT 1),
			(SELECT pg_snapshot_xmax(l.snap) FROM pgdist.floor l WHERE l.term = t.last_value)))::text ELSE p.snap::text END,
	'leads', f.last_value & 1 = 1, 'booted', coalesce((SELECT b.term = t.last_value FROM pgdist.boot b), false), 'sound', pgdist.sound(),
	'floor_term', l.term, 'floor_snap', l.snap,
	'terms', (SELECT coalesce(json_agg(json_build_object('term', x.term, 'leader', x.leader, 'prev', x.prev, 'snap', x.snap) ORDER BY x.term), '[]') FROM pgdist.terms x),
	'ids', (SELECT coalesce(json_agg(json_build_object('id', x.id, 'nsp', x.nsp, 'rel', x.rel, 'gen', x.gen)), '[]') FROM pgdist.tables x),
	'public', EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'public'))
	FROM pgdist.fence f, pgdist.term t, pgdist.floor l, (SELECT * FROM pgdist.position q ORDER BY q.one DESC LIMIT 1) p`

// freezeTries is how often definitions are read again because DDL came in between, or tables stay
// locked, and freezePatience how long at least.
const (
	freezeTries    = 10
	freezePatience = 30 * time.Second
)

// dumpLockWait is how long pg_dump waits for tables, in milliseconds: it locks all of them, and
// a client that has some and wants more would find itself in a deadlock after deadlock_timeout,
// one second by default, if pg_dump waited longer.
const dumpLockWait = "400"

// waitedForLock is in what pg_dump says then: its --lock-wait-timeout is a statement_timeout.
var waitedForLock = regexp.MustCompile("due to lock timeout|LOCK TABLE(?s:.*)due to statement timeout|due to statement timeout(?s:.*)LOCK TABLE")

// freezePause is how long a change of the view is left to come to its end.
const freezePause = 200 * time.Millisecond

// freeze takes the snapshot and reads the definitions that go with it. pg_dump
// deparses some of these as they are now, not as its snapshot sees them, so DDL that
// came since calls for another.
func (r *resync) freeze(ctx context.Context, t *tools) (*dumped, error) {
	r.o.Report("reading definitions on %s", r.source.host)
	for began, n := time.Now(), 0; n < freezeTries || time.Since(began) < freezePatience; n++ {
		r.snap.close()
		var err error
		if r.snap, err = r.snapshot(ctx); err != nil {
			// Whoever changes the view ends what has looked at the fence.
			if sqlState(err) == "57P01" && sleep(ctx, freezePause) {
				continue
			}
			return nil, r.source.fail("take a snapshot", err)
		}
		var defs *dumped
		disordered, err := r.snap.disordered(ctx)
		if err == nil {
			defs, err = t.definitions(ctx, r.source.cfg, r.snap.name, r.major, disordered)
		}
		var changed bool
		if err == nil {
			changed, err = r.ddlSince(ctx)
		}
		if err == nil && !changed {
			changed, err = r.rolesSince(ctx)
		}
		if err == nil && !changed {
			return defs, nil
		}
		if err != nil { // DDL may have been the reason
			if changed, why := r.ddlSince(ctx); why != nil || !changed && !waitedForLock.MatchString(err.Error()) {
				return nil, r.source.fail("read definitions", err)
			}
		}
		if !sleep(ctx, freezePause) {
			return nil, context.Cause(ctx)
		}
	}
	return nil, r.source.fail("read definitions", errors.New("the schema, or who has which role's name, changes all the time, or tables stay locked"))
}

func (r *resync) snapshot(ctx context.Context) (*frozen, error) {
	c, err := dial(ctx, r.source.cfg, readerSettings)
	if err != nil {
		return nil, err
	}
	f := &frozen{c: c}
	if err := c.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"); err != nil {
		return f, err
	}
	raw, err := c.one(ctx, positionSQL)
	if err != nil {
		return f, err
	}
	var h struct {
		here
		Sound  bool            `json:"sound"`
		Public bool            `json:"public"`
		Terms  json.RawMessage `json:"terms"`
		IDs    json.RawMessage `json:"ids"`
	}
	if err := decode([]byte(raw), &h); err != nil {
		return f, err
	}
	if leads := r.source.id == r.view.Leader; h.Leads != leads || !h.Sound || (leads && !h.Booted) {
		return f, errors.New("it crashed or changed its role just now; try again")
	}
	f.place, f.floor, f.terms, f.ids, f.public = h.place(), h.floor(), h.Terms, string(h.IDs), h.Public
	if f.place.Snapshot == "" && f.place.Term > 0 { // all of term 0 is what every member has at init
		return f, fmt.Errorf("it has no position to copy: it is at %v", f.place)
	}
	named, err := c.one(ctx, `SELECT coalesce(json_object_agg(a.rolname, i.id), '{}') FROM pg_authid a JOIN pgdist.role_ids() i USING (oid)
		WHERE a.rolname !~ '^pg_' AND (EXISTS (SELECT 1 FROM pgdist.roles k WHERE k.oid = a.oid) OR (SELECT f.last_value & 1 = 1 FROM pgdist.fence f))`)
	if err != nil {
		return f, err
	}
	f.named = []byte(named)
	if f.gate, err = c.one(ctx, `SELECT pg_current_wal_insert_lsn()`); err != nil {
		return f, err
	}
	tables, err := readRelations(ctx, c)
	if err != nil {
		return f, err
	}
	for _, t := range tables {
		f.tables = append(f.tables, t)
	}
	// Handed over to a transaction that has read nothing: this one has a lock on the
	// fence, for which a change of view ends whoever has it.
	name, err := c.one(ctx, exportSQL)
	if err != nil {
		return f, err
	}
	if f.c, err = dial(ctx, r.source.cfg, readerSettings); err != nil {
		f.c = nil
		c.close()
		return f, err
	}
	err = f.c.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT "+quoteLiteral(name))
	c.close()
	if err == nil {
		f.name, err = f.c.one(ctx, exportSQL)
	}
	return f, err
}

// rolesSince reads the leader's roles, and tells whether another has the name of one that the
// definitions name: who has it now would get what they grant.
func (r *resync) rolesSince(ctx context.Context) (bool, error) {
	l, err := r.s.members.get(r.view.Leader).connect(ctx)
	if err != nil {
		return false, err
	}
	defer l.close()
	if r.snap.roles, err = l.one(ctx, `SELECT pgdist.shared_state()`); err != nil {
		return false, err
	}
	var now struct {
		Roles map[string]struct {
			ID *string `json:"id"`
		} `json:"roles"`
	}
	var then map[string]*string
	if err := errors.Join(decode([]byte(r.snap.roles), &now), decode(r.snap.named, &then)); err != nil {
		return false, err
	}
	names := map[string]string{}
	for name, role := range now.Roles {
		if role.ID != nil {
			names[*role.ID] = name
		}
	}
	for name, id := range then {
		if id == nil {
			continue
		}
		if at, ok := names[*id]; ok && at != name {
			return true, nil
		}
		if other := now.Roles[name].ID; other != nil && *other != *id {
			return true, nil
		}
	}
	return false, nil
}

// ddlSince tells whether the source got DDL after the snapshot.
func (r *resync) ddlSince(ctx context.Context) (bool, error) {
	c, err := r.source.connect(ctx)
	if err != nil {
		return false, err
	}
	defer c.close()
	n, err := c.one(ctx, `SELECT count(*) FROM pgdist.fresh($1::bigint, $2::pg_snapshot) j WHERE j.op = 'd'`,
		strconv.AppendInt(nil, r.snap.place.Term, 10), nullable(r.snap.place.Snapshot))
	return n != "0", err
}
