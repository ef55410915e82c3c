package engine

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// catalog knows which of the users' functions are volatile. It satisfies
// classify.Volatility: it never blocks; what it does not know counts as
// volatile until it has been looked up.
type catalog struct {
	e       *Engine
	known   atomic.Pointer[functions]
	looked  atomic.Bool  // it was read at least once
	views   atomic.Bool  // materialized views were there then, or DDL may have made some
	changes atomic.Int64 // Mirror.Changes when it was last told to forget
	// latest is kept while definitions that changed are being read: whose DDL it was goes
	// by its leavers besides, until answered is as much as asked was then.
	latest          atomic.Pointer[functions]
	asked, answered atomic.Int64
	brought         atomic.Pointer[brought]
	moment          atomic.Int64      // see Session.Moment
	mu              sync.Mutex        // guards loading, and what follows
	settings        string            // of the latest reading
	roles           map[string]string // the same: who has the tenants' names, as all members know them
	active          bool              // a load is running
	again           bool              // what it reads may be out of date already
}

// functions is one reading of pg_proc; true is volatile in its worst overload.
type functions struct {
	qualified map[[2]string]bool
	bare      map[string]bool // over all schemas: the search path is not asked
	hollow    *hollow
	explains  bool // one has EXPLAIN or REASSIGN in its text
	executes  map[string]bool
	leavers   *leavers
	code      string            // the print of the functions that it was read from
	settings  string            // a digest of what roles and the database have set for connections
	roles     map[string]string // who has the tenants' names, as all members know them
	asked     int64             // catalog.asked when it was read
	at        time.Time
}

// catalogAge is when a reading is renewed, for DDL that others ran.
const catalogAge = 30 * time.Second

// catalogTimeout bounds one reading.
const catalogTimeout = 10 * time.Second

const functionsSQL = `SELECT n.nspname, p.proname, bool_or(p.provolatile = 'v')::text, bool_or(p.prosrc ~* 'explain|reassign')::text, bool_or(p.prosrc ~* '\mexecute\M')::text
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgdist')
  GROUP BY 1, 2`

// settingsSQL tells them by names: numbers are others at another leader.
const settingsSQL = `SELECT coalesce(pg_catalog.md5(pg_catalog.string_agg(x.t, E'\\n' ORDER BY x.t COLLATE "C")), '') FROM (
  SELECT coalesce(r.rolname, '') || E'\\t' || (s.setdatabase <> 0) || E'\\t' || s.setconfig::text AS t
    FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
   WHERE s.setdatabase = 0 OR s.setdatabase = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())) x`

// rolesSQL tells who has the names of tenants, whoever leads.
const rolesSQL = `SELECT r.rolname, coalesce(i.id, '') FROM pgdist.role_ids() i JOIN pg_catalog.pg_roles r ON r.oid = i.oid
  WHERE r.rolname = ANY (pg_catalog.string_to_array($1, E'\t'))`

func newCatalog(e *Engine) *catalog { return &catalog{e: e} }

// Volatile tells whether a function is, or may be, volatile.
func (c *catalog) Volatile(schema, name string) (volatile, known bool) {
	f := c.known.Load()
	if f == nil || time.Since(f.at) > catalogAge {
		c.load(false)
	}
	if f == nil {
		return true, false
	}
	if schema != "" {
		volatile, known = f.qualified[[2]string{schema, name}]
		return volatile, known
	}
	volatile, known = f.bare[name]
	return volatile, known
}

// explains tells whether a function has EXPLAIN or REASSIGN in its text, as far as is known.
func (c *catalog) explains() bool {
	f := c.known.Load()
	return f == nil || f.explains
}

// forget is called after DDL, which may have changed any function.
func (c *catalog) forget() {
	if !c.looked.Load() {
		c.views.Store(true)
	}
	c.known.Store(nil)
	c.moment.Add(1)
	c.asked.Add(1)
	c.load(true)
}

func (c *catalog) store(f *functions) {
	if c.looked.Swap(true) {
		c.heedLocked(f.settings, f.roles)
	} else {
		c.settings, c.roles = f.settings, f.roles
	}
	c.views.Store(len(f.hollow.names) > 0)
	c.latest.Store(f)
	c.answered.Store(f.asked)
	c.known.Store(f)
}

// first reads it before anybody asks. What goes wrong now goes wrong again, and
// is told, when there is a statement to run.
func (c *catalog) first(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	if f, err := c.read(ctx); err == nil {
		c.store(f)
	}
}

// load reads pg_proc in the background, once at a time; changed tells that what
// a reading under way sees may be out of date.
func (c *catalog) load(changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active {
		c.again = c.again || changed
		return
	}
	c.again = false
	c.active = c.e.spawn(c.run)
}

func (c *catalog) run() {
	for {
		ctx, cancel := context.WithTimeout(c.e.ctx, catalogTimeout)
		f, err := c.read(ctx)
		cancel()
		c.mu.Lock()
		if err == nil && !c.again {
			c.store(f)
		}
		if err != nil || !c.again {
			c.active = false
			c.mu.Unlock()
			break
		}
		c.again = false
		c.mu.Unlock()
	}
}

func (c *catalog) read(ctx context.Context) (*functions, error) {
	h, err := c.e.acquireLeader(ctx, nil, readOnly)
	if err != nil {
		return nil, err
	}
	defer h.give()
	before := c.latest.Load()
	if before == nil {
		before = &functions{}
	}
	f := &functions{asked: c.asked.Load(), at: time.Now()}
	// What a print was of may be older than what is read then, which the next print tells.
	if f.code, err = h.c.print(ctx, codePrintSQL); err != nil {
		return nil, err
	}
	if err := f.volatile(ctx, h.c, before); err != nil {
		return nil, err
	}
	if f.leavers, err = h.c.leavers(ctx, before.leavers, f.code, f.executes); err != nil {
		return nil, err
	}
	if f.hollow, err = h.c.hollow(ctx, before.hollow, f.code); err != nil {
		return nil, err
	}
	if f.settings, err = h.c.roleSettings(ctx); err != nil {
		return nil, err
	}
	f.roles, err = h.c.roles(ctx, c.e.users())
	return f, err
}

// volatile reads which functions are, unless they are what they were before.
func (f *functions) volatile(ctx context.Context, c *conn, before *functions) error {
	if f.code == before.code && before.qualified != nil {
		f.qualified, f.bare, f.explains, f.executes = before.qualified, before.bare, before.explains, before.executes
		return nil
	}
	rows, err := c.Rows(ctx, functionsSQL)
	if err != nil {
		return err
	}
	f.qualified, f.bare, f.executes = map[[2]string]bool{}, map[string]bool{}, map[string]bool{}
	for _, row := range rows {
		schema, name, volatile := string(row[0]), string(row[1]), string(row[2]) == "true"
		f.qualified[[2]string{schema, name}] = volatile
		f.bare[name] = f.bare[name] || volatile
		f.explains = f.explains || string(row[3]) == "true"
		if string(row[4]) == "true" {
			f.executes[strings.ToLower(name)] = true
		}
	}
	return nil
}

func (c *conn) roleSettings(ctx context.Context) (string, error) {
	rows, err := c.Rows(ctx, settingsSQL)
	if err != nil {
		return "", err
	}
	return string(rows[0][0]), nil
}

// roles tells who has which of the names; "" is nobody.
func (c *conn) roles(ctx context.Context, names []string) (map[string]string, error) {
	roles := map[string]string{}
	if len(names) == 0 {
		return roles, nil
	}
	for _, name := range names {
		roles[name] = ""
	}
	rows, err := c.Rows(ctx, rolesSQL, strings.Join(names, "\t"))
	for _, row := range rows {
		roles[string(row[0])] = string(row[1])
	}
	return roles, err
}

// users are the tenants' names.
func (e *Engine) users() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := make([]string, 0, len(e.tenants))
	for _, t := range e.tenants {
		names = append(names, t.user)
	}
	return names
}

// look finds whether anybody has changed what roles and the database have set, or who has a name:
// followers are not brought that as definitions are, of which Mirror.Changes tells.
func (c *catalog) look() {
	if !c.looked.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(c.e.ctx, catalogTimeout)
	defer cancel()
	h, err := c.e.acquireLeader(ctx, nil, readOnly)
	if err != nil {
		return // the next look finds it
	}
	defer h.give()
	settings, err := h.c.roleSettings(ctx)
	if err != nil {
		return
	}
	roles, err := h.c.roles(ctx, c.e.users())
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heedLocked(settings, roles)
}

// heedLocked has connections begun anew if settings are others than before, or a name is
// somebody else's, or nobody's.
func (c *catalog) heedLocked(settings string, roles map[string]string) {
	changed := settings != c.settings
	for name, id := range c.roles {
		now, asked := roles[name]
		changed = changed || asked && now != id
	}
	c.settings, c.roles = settings, roles
	if changed {
		c.e.spawn(c.e.renewAll)
	}
}

// renew has sessions go on with connections that are begun from now on: what roles and the
// database have set is asked for at a connection's beginning, and who has the user's name. Settings that only some
// connections have would be worse for a session that changes between them than new ones.
func (e *Engine) renew() {
	for _, m := range *e.members.Load() {
		m.renew()
	}
}

// renewAll is renew once all members have what the leader has.
func (e *Engine) renewAll() {
	ctx, cancel := context.WithTimeout(e.ctx, catalogTimeout)
	defer cancel()
	if err := e.mirror.Ack(ctx, e.route().view.Term, Change{}); err != nil {
		e.log.Debug("connections are renewed before all members are known to have what roles have set", "error", err)
	}
	e.renew()
}
