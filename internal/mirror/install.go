package mirror

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/pgdist/pgdist/health"
)

// Version is the version of schema pgdist that this program installs and needs.
const Version = 2

// MinServer is the oldest PostgreSQL that works, as server_version_num has it:
// 13 brought xid8 and pg_current_snapshot().
const MinServer = 130000

//go:embed sql/*.sql sql/upgrade/*.sql
var embedded embed.FS

// schemaSQL is what is installed; a test puts the version before in its place.
var schemaSQL fs.FS = embedded

// scripts returns the embedded files whose number lies in [from, to].
func scripts(from, to string) (string, error) {
	names, err := fs.Glob(schemaSQL, "sql/*.sql")
	if err != nil {
		return "", err
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		if k := n[len("sql/") : len("sql/")+2]; k < from || k > to {
			continue
		}
		text, err := fs.ReadFile(schemaSQL, n)
		if err != nil {
			return "", err
		}
		b.Write(text)
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// scripts are those for the database at the other end.
func (c *conn) scripts(from, to string) (string, error) {
	sql, err := scripts(from, to)
	return c.words(sql), err
}

// InitOptions says how a set is made of databases.
type InitOptions struct {
	// Leader is "host:port" of the first leader; "" takes the first member.
	Leader string
	// Mirror is the role that mirrors; "" takes the one of the connections.
	Mirror string
	// Report hears what is being done, for people; nil is silent.
	Report func(format string, args ...any)
}

// candidate is a database about to become a member.
type candidate struct {
	cfg   MemberConfig
	c     *conn
	facts facts
	here  *here // nil if pgdist is not installed
}

// facts are what must be equal on all members, or high enough.
type facts struct {
	Version    int      `json:"version"`
	Super      bool     `json:"super"`
	User       string   `json:"user"`
	Recovery   bool     `json:"recovery"`
	System     string   `json:"system"`
	Encoding   string   `json:"encoding"`
	Collate    string   `json:"collate"`
	Ctype      string   `json:"ctype"`
	CollVer    string   `json:"collver"`
	Extensions []string `json:"extensions"`
	Fsync      string   `json:"fsync"`
	FPW        string   `json:"fpw"`
	Subs       int      `json:"subs"`
	Large      int      `json:"large"`
	Logins     int      `json:"logins"` // event triggers on login
	Set        string   `json:"set"`
	Schema     int      `json:"schema"`
	Role       bool     `json:"role"`
}

const factsSQL = `SELECT json_build_object(
	'version', current_setting('server_version_num')::int, 'super', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), 'user', current_user,
	'recovery', pg_is_in_recovery(), 'system', (SELECT system_identifier::text FROM pg_control_system()),
	'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
	'collver', coalesce((SELECT string_agg(DISTINCT c.collname || '=' || coalesce(CASE
			-- Before PostgreSQL 15 it does not tell of the database's own: of the C library any other of its collations does.
			WHEN c.oid = 100 AND current_setting('server_version_num')::int < 150000 THEN CASE WHEN d.datcollate !~ '^(C|POSIX)(\.|$)'
				THEN (SELECT pg_collation_actual_version(x.oid) FROM pg_collation x WHERE x.collprovider = 'c' AND x.collcollate !~ '^(C|POSIX)(\.|$)' AND x.collencoding IN (-1, d.encoding) LIMIT 1) END
			WHEN c.collprovider = 'c' AND c.collcollate ~ '^(C|POSIX)(\.|$)' THEN NULL
			ELSE pg_collation_actual_version(c.oid) END, ''), ',') FROM pg_collation c
		WHERE c.oid IN (SELECT attcollation FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid JOIN pg_namespace n ON n.oid = r.relnamespace
			WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'))), ''),
	'extensions', (SELECT coalesce(json_agg(extname || ' ' || extversion ORDER BY extname), '[]') FROM pg_extension),
	'fsync', current_setting('fsync'), 'fpw', current_setting('full_page_writes'),
	'subs', (SELECT count(*) FROM pg_stat_subscription), 'large', (SELECT count(*) FROM pg_largeobject_metadata),
	'logins', (SELECT count(*) FROM pg_event_trigger WHERE evtevent = 'login'),
	'role', EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1))
	FROM pg_database d WHERE d.datname = current_database()`

// Init makes a set of databases that hold the same data: it checks that they do,
// installs schema pgdist in each, and chooses the first view. Databases whose
// contents differ, or that cannot be kept identical, are refused by name and
// left as they were.
func Init(ctx context.Context, cfg Config, o InitOptions) (*health.View, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if o.Report == nil {
		o.Report = func(string, ...any) {}
	}
	all := make([]*candidate, len(cfg.Members))
	defer func() {
		for _, k := range all {
			if k != nil {
				k.c.close()
			}
		}
	}()
	mirror := o.Mirror
	if mirror == "" {
		mirror = cfg.Members[0].Conn.User
	}
	for i, mc := range cfg.Members {
		o.Report("checking %s", mc.Host())
		k, err := examine(ctx, mc, mirror)
		if err != nil {
			return nil, err
		}
		all[i] = k
	}
	if v, err := installedAlready(ctx, all, o.Report); v != nil || err != nil {
		return v, err
	}
	lead, err := chooseLeader(all, o.Leader)
	if err != nil {
		return nil, err
	}
	if err := compatible(all, all[lead], mirror); err != nil {
		return nil, err
	}
	view := newView(all, lead)
	if err := installAll(ctx, all, lead, view, mirror, o.Report); err != nil {
		return nil, err
	}
	if _, err := all[lead].c.one(ctx, `SELECT pgdist.activate(1)`); err != nil {
		return nil, &Error{Op: "give the leader its role", Host: all[lead].cfg.Host(), Err: err, Hint: "the set is installed; open it once and it will elect"}
	}
	o.Report("done: %d members, %s leads", len(all), all[lead].cfg.Host())
	return view, nil
}

// installedAlready upgrades databases that form a set of an older version, and
// refuses those that need nothing or belong to different sets.
func installedAlready(ctx context.Context, all []*candidate, report func(string, ...any)) (*health.View, error) {
	var in, out []*candidate
	for _, k := range all {
		if k.here != nil {
			in = append(in, k)
		} else {
			out = append(out, k)
		}
	}
	if len(in) == 0 {
		return nil, nil
	}
	var errs []error
	for _, k := range in {
		if len(out) > 0 || k.here.Set != in[0].here.Set {
			errs = append(errs, &Error{Op: "init", Host: k.cfg.Host(), Err: fmt.Errorf("it belongs to set %s already", k.here.Set), Hint: "to begin anew, run: pgdist uninstall DSN"})
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	did, err := upgradeAll(ctx, in, report)
	if err != nil {
		return nil, err
	}
	if !did {
		return nil, &Error{Op: "init", Err: fmt.Errorf("the databases are set %s already, at version %d", in[0].here.Set, Version), Hint: "nothing is to be done; to begin anew, run: pgdist uninstall DSN"}
	}
	v := in[0].here.View
	for _, k := range in {
		if k.here.View != nil && (v == nil || k.here.View.Epoch > v.Epoch) {
			v = k.here.View
		}
	}
	return v, nil
}

// examine connects and looks at one database.
func examine(ctx context.Context, mc MemberConfig, mirror string) (*candidate, error) {
	fail := func(err error, hint string) (*candidate, error) {
		return nil, &Error{Op: "init", Host: mc.Host(), Err: err, Hint: hint}
	}
	dctx, cancel := context.WithTimeoutCause(ctx, openTimeout, health.ErrTimeout)
	defer cancel()
	c, err := dial(dctx, mc.Conn, nil)
	if err != nil {
		return fail(causeOf(dctx, err), connectHint(err, mc))
	}
	k := &candidate{cfg: mc, c: c}
	v, err := strconv.Atoi(serverVersion(c))
	if err == nil && v < MinServer/10000 {
		c.close()
		return fail(fmt.Errorf("the server is PostgreSQL %s", c.ParameterStatus("server_version")), "pgdist needs PostgreSQL 13 or later; upgrade this server")
	}
	s, err := c.one(ctx, factsSQL, text(mirror))
	if err == nil {
		err = decode([]byte(s), &k.facts)
	}
	if err != nil {
		c.close()
		return fail(err, "")
	}
	if k.here, err = c.where(ctx); err != nil && !errors.Is(err, ErrNotInstalled) {
		c.close()
		return fail(err, "")
	}
	return k, nil
}

func serverVersion(c *conn) string {
	major, _, _ := strings.Cut(c.ParameterStatus("server_version"), ".")
	return strings.TrimRightFunc(major, func(r rune) bool { return r < '0' || r > '9' })
}

// connectHint says what to do about a connection that failed (SQLSTATEs:
// PostgreSQL docs, appendix A).
func connectHint(err error, mc MemberConfig) string {
	switch sqlState(err) {
	case "28P01", "28000":
		return "check user, password and the server's pg_hba.conf"
	case "3D000":
		return "create it: createdb -h " + mc.Conn.Host + " -p " + strconv.Itoa(int(mc.Conn.Port)) + " " + mc.Conn.Database
	case "57P03":
		return "the server is starting or stopping; try again"
	}
	return "is the server running, and does it listen there?"
}

func chooseLeader(all []*candidate, host string) (int, error) {
	if host == "" {
		return 0, nil
	}
	for i, k := range all {
		if k.cfg.Host() == host || k.cfg.Conn.Host == host {
			return i, nil
		}
	}
	return 0, &Error{Op: "init", Err: fmt.Errorf("the wanted leader %s is none of the hosts named", host), Hint: "give it as host:port, as in the DSN"}
}

// compatible joins every reason why these databases cannot mirror each other.
func compatible(all []*candidate, lead *candidate, mirror string) error {
	var errs []error
	bad := func(k *candidate, hint, format string, args ...any) {
		errs = append(errs, &Error{Op: "init", Host: k.cfg.Host(), Err: fmt.Errorf(format, args...), Hint: hint})
	}
	for _, k := range all {
		f, l := k.facts, lead.facts
		if !f.Super {
			bad(k, "init needs a superuser once, for event triggers and roles; run it as one and name the mirroring role with mirror_user", "role %s is not a superuser", f.User)
		}
		if !f.Role {
			bad(k, "create it on every member: CREATE ROLE … LOGIN", "the mirroring role %s does not exist", mirror)
		}
		if f.Recovery {
			bad(k, "use its primary, or promote it", "the server is a standby in recovery")
		}
		if f.Fsync != "on" || f.FPW != "on" {
			bad(k, "turn both on: without them a crash loses what was acknowledged", "fsync is %s, full_page_writes is %s", f.Fsync, f.FPW)
		}
		if f.Subs > 0 {
			bad(k, "DROP SUBSCRIPTION: what logical replication applies fires no statement triggers", "it has %d subscriptions", f.Subs)
		}
		if f.Large > 0 {
			bad(k, "large objects are not mirrored; store bytea", "it holds %d large objects", f.Large)
		}
		if f.Logins > 0 {
			bad(k, "drop them, or do what they do when a session begins: they would run for every connection of pgdist's own", "it has %d event triggers on login", f.Logins)
		}
		if f.Encoding != l.Encoding || f.Collate != l.Collate || f.Ctype != l.Ctype {
			bad(k, "create the database with equal settings: equal bytes must sort equally", "encoding and locale %s %s %s differ from the leader's %s %s %s",
				f.Encoding, f.Collate, f.Ctype, l.Encoding, l.Collate, l.Ctype)
		}
		if f.CollVer != l.CollVer {
			bad(k, "install the same version of the C library or ICU", "collation versions %q differ from the leader's %q", f.CollVer, l.CollVer)
		}
		if !slices.Equal(f.Extensions, l.Extensions) {
			bad(k, "install the same extensions in the same versions", "extensions %v differ from the leader's %v", f.Extensions, l.Extensions)
		}
		if f.Version/10000 < l.Version/10000 {
			bad(k, "let a server of the oldest version lead: --leader HOST; a newer one may follow", "PostgreSQL %d is older than the leader's %d", f.Version/10000, l.Version/10000)
		}
	}
	return errors.Join(errs...)
}

func newView(all []*candidate, lead int) *health.View {
	v := &health.View{Set: uuid.Must(uuid.NewRandomFromReader(rand.Reader)).String(), Epoch: 1, Term: 1, Leader: health.MemberID(lead + 1)}
	weights := health.Weights(len(all))
	for i, k := range all {
		id := health.MemberID(i + 1)
		v.InSync = append(v.InSync, id)
		v.Members = append(v.Members, health.Member{ID: id, Host: k.cfg.Host(), System: k.facts.System, Weight: weights[i]})
	}
	return v
}

// installAll installs everywhere in one transaction each, which holds writers of
// every table from before contents are compared until all have committed.
func installAll(ctx context.Context, all []*candidate, lead int, view *health.View, mirror string, report func(string, ...any)) error {
	before, err := all[lead].c.scripts("01", "08")
	if err != nil {
		return err
	}
	after, err := all[lead].c.scripts("09", "99")
	if err != nil {
		return err
	}
	for i, k := range all {
		report("installing on %s", k.cfg.Host())
		if err := k.install(ctx, before, i+1, view, mirror); err != nil {
			return &Error{Op: "install", Host: k.cfg.Host(), Err: err}
		}
	}
	ids, err := all[lead].register(ctx, "")
	if err != nil {
		return &Error{Op: "install", Host: all[lead].cfg.Host(), Err: err}
	}
	for i, k := range all {
		if i != lead {
			if _, err := k.register(ctx, ids); err != nil {
				return &Error{Op: "install", Host: k.cfg.Host(), Err: err}
			}
		}
	}
	report("comparing contents")
	if err := sameContents(ctx, all, lead, report); err != nil {
		return err
	}
	for _, k := range all {
		if err := k.c.exec(ctx, after+"\nINSERT INTO pgdist.boot (term) VALUES (-1); SELECT setval('pgdist.fence', 2); COMMIT"); err != nil {
			return &Error{Op: "install", Host: k.cfg.Host(), Err: err, Hint: "run pgdist uninstall DSN, then init again"}
		}
	}
	return nil
}

// unheard keeps users' event triggers from hearing of schema pgdist in this transaction.
// What they write, a log of DDL, say, would differ from member to member, and the
// followers refuse it.
const unheard = "SET LOCAL session_replication_role = replica;"

func (k *candidate) install(ctx context.Context, sql string, id int, view *health.View, mirror string) error {
	body, err := json.Marshal(view)
	if err != nil {
		return err
	}
	if err := k.c.exec(ctx, "BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL client_min_messages = warning; "+unheard+"\n"+sql); err != nil {
		return err
	}
	_, err = k.c.call(ctx, `INSERT INTO pgdist.meta (version, set_id, member, system, mirror) VALUES ($1::text::int, $2, $3::text::int, $4, $5)`,
		text(strconv.Itoa(Version)), text(view.Set), text(strconv.Itoa(id)), text(k.facts.System), text(mirror))
	if err != nil {
		return err
	}
	_, err = k.c.call(ctx, `UPDATE pgdist.register SET promised = 1, accepted = 1, view = $1::jsonb`, body)
	return err
}

// register attaches capture to all tables and returns their ids.
func (k *candidate) register(ctx context.Context, ids string) (string, error) {
	if _, err := k.c.call(ctx, `SELECT pgdist.sync($1::jsonb)`, nullable(ids)); err != nil {
		return "", err
	}
	return k.c.one(ctx, `SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'nsp', nsp, 'rel', rel, 'gen', gen)), '[]') FROM pgdist.tables`)
}

func sameContents(ctx context.Context, all []*candidate, lead int, report func(string, ...any)) error {
	sums := make([]*Contents, len(all))
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	majors := make([]int, len(all))
	for i, k := range all {
		majors[i] = k.c.major()
	}
	floor := floorOf(majors)
	for i, k := range all {
		wg.Go(func() { sums[i], errs[i] = contents(ctx, k.c, floor) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return &Error{Op: "compare contents", Err: err}
	}
	for i := range all {
		if i == lead {
			continue
		}
		objects, unclear, err := settleObjects(ctx, all[lead].c, all[i].c, floor, diffObjects(sums[lead].Objects, sums[i].Objects))
		if err != nil {
			return &Error{Op: "compare definitions", Host: all[i].cfg.Host(), Err: err}
		}
		for _, d := range unclear {
			report("PostgreSQL %s and %s write it differently, see for yourself whether it is the same on %s: %s", all[lead].c.release(), all[i].c.release(), all[i].cfg.Host(), d)
		}
		if d := sums[lead].diff(sums[i], objects); len(d) > 0 {
			errs = append(errs, &Error{Op: "init", Host: all[i].cfg.Host(), Err: fmt.Errorf("its contents differ from the leader's: %s", summary(d)),
				Hint: "copy the leader's database there (pg_dump | psql) while nobody writes, then run init again"})
		}
	}
	return errors.Join(errs...)
}

func summary(d []string) string {
	if len(d) > 5 {
		return strings.Join(d[:5], "; ") + fmt.Sprintf("; and %d more", len(d)-5)
	}
	return strings.Join(d, "; ")
}
