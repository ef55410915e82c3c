package engine

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/pgdist/pgdist/classify"
)

// settings are what a session has set, as the statements that set it again. A
// value is immutable: every change makes a new one, so that savepoints keep
// old ones by pointer and a connection remembers which are in force on it. nil
// is a session that has set nothing.
type settings struct {
	list []setting
	// forReads and forWrites set everything from scratch on a connection of
	// that purpose.
	forReads, forWrites string
}

// setting is the last word on one parameter.
type setting struct {
	name string // lower case
	sql  string
	// value is what it is set to, "" if that is not known.
	value string
}

// Parameters by which a session changes who it is; RESET ALL leaves them.
const (
	nameRole          = "role"
	nameAuthorization = "session_authorization"
)

// resetSQL undoes whatever a pooled connection was told before.
const resetSQL = "RESET SESSION AUTHORIZATION; RESET ALL"

// readOnlySettings would let a read connection write, or make a write
// connection refuse to; they hold on the latter only. The last is what SET SESSION
// CHARACTERISTICS was kept as by programs whose sessions may be taken over.
var readOnlySettings = []string{nameReadOnly, "transaction_read_only", "session characteristics"}

// What SET SESSION CHARACTERISTICS sets.
const (
	nameIsolation  = "default_transaction_isolation"
	nameReadOnly   = "default_transaction_read_only"
	nameDeferrable = "default_transaction_deferrable"
)

// nameDateStyle is the one parameter whose SET may leave a part of its value as it was.
const nameDateStyle = "datestyle"

// newSettings builds the texts; an empty list is nil.
func newSettings(list []setting) *settings {
	if len(list) == 0 {
		return nil
	}
	s := &settings{list: list}
	var ro, rw strings.Builder
	ro.WriteString(resetSQL)
	rw.WriteString(resetSQL)
	for _, e := range list {
		rw.WriteString("; " + e.sql)
		if !slices.Contains(readOnlySettings, e.name) {
			ro.WriteString("; " + e.sql)
		}
	}
	s.forReads, s.forWrites = ro.String(), rw.String()
	return s
}

// unknownSettings are in force where a client had its hands on a connection:
// no session's are the same.
var unknownSettings = &settings{forReads: "?", forWrites: "?"}

func (s *settings) entries() []setting {
	if s == nil {
		return nil
	}
	return s.list
}

// text is what has to run on a connection of that purpose.
func (s *settings) text(p purpose) string {
	switch {
	case s == nil:
		return resetSQL
	case p == readOnly:
		return s.forReads
	}
	return s.forWrites
}

func (s *settings) same(o *settings, p purpose) bool {
	return s == o || s != nil && o != nil && s.text(p) == o.text(p)
}

// Scope is what decides, beyond a text, what it means: which objects its names are, and what
// moment, or which letters, a constant in it is. Servers read constants when a statement is prepared, not when it
// is run. It is empty for sessions that have set nothing of that kind.
func (s *Session) Scope() string {
	scope := s.settings.scope()
	if s.tx.local != 0 { // shared with nobody, for it ends with the transaction
		scope += strconv.FormatInt(s.tx.local, 36)
	}
	return scope
}

// Moment numbers the states of the definitions that a text's meaning depends on besides: what
// was prepared at an earlier one may not be what preparing it now would make. In a transaction
// that may have run DDL every call is one of its own, for nobody else sees what it sees.
func (s *Session) Moment() int64 {
	if s.tx.redefines {
		return s.e.catalog.moment.Add(2) - 1
	}
	return s.e.catalog.moment.Load()
}

func (s *settings) scope() string {
	scope := ""
	for _, e := range s.entries() {
		if givesMeaning(e.name) {
			scope += e.sql + ";"
		}
	}
	return scope
}

// forgetter is a ServerConn that prepares statements by itself, whoever it serves, and can forget them.
type forgetter interface {
	Forget(ctx context.Context) error
}

// means makes what is prepared on the connection mean what the scope says: what was
// prepared under another one is forgotten. What a client has prepared by SQL stays, on its own connection.
func (c *conn) means(ctx context.Context, scope string, pins classify.Pin) error {
	f, ok := c.ServerConn.(forgetter)
	if !ok || c.meaning == scope || pins&classify.PinPrepared != 0 {
		return nil
	}
	if err := f.Forget(ctx); err != nil {
		return err
	}
	c.meaning = scope
	return nil
}

// means follows what a statement of the session has set. A connection that does not
// answer is lost, of which the next statement hears.
func (s *Session) means(ctx context.Context, c *conn) {
	if err := c.means(ctx, s.Scope(), s.pins); err != nil {
		c.kill()
	}
}

// restored tells that settings hold on the connection again, at the end of a transaction. If
// something was prepared meanwhile that means something else, the next session begins there anew.
func (c *conn) restored(s *settings) {
	c.applied = s
	if _, ok := c.ServerConn.(forgetter); ok && c.meaning != s.scope() {
		c.applied, c.meaning = unknownSettings, unknownSettings.forReads
	}
}

// givesMeaning tells whether a parameter may have a part in what a statement means: all but
// those of which it is known that they have none.
func givesMeaning(name string) bool {
	return !strings.Contains(name, ".") && !meaningless[name] && !strings.HasPrefix(name, "log_") && !strings.HasPrefix(name, "enable_")
}

var meaningless = map[string]bool{
	"application_name": true, "client_min_messages": true, "statement_timeout": true, "lock_timeout": true, "transaction_timeout": true,
	"idle_in_transaction_session_timeout": true, "idle_session_timeout": true, "work_mem": true, "maintenance_work_mem": true, "temp_buffers": true,
	"synchronous_commit": true, nameIsolation: true, nameReadOnly: true, nameDeferrable: true, "seed": true, "jit": true, "row_security": true,
	"random_page_cost": true, "seq_page_cost": true, "geqo": true, "plan_cache_mode": true, "default_table_access_method": true, "default_tablespace": true,
	"tcp_keepalives_idle": true, "tcp_keepalives_interval": true, "tcp_keepalives_count": true, "check_function_bodies": true,
}

// locals numbers the transactions that have set something for themselves.
var locals atomic.Int64

// noteLocal notes what a statement has set for its transaction alone.
func (s *Session) noteLocal(ctx context.Context, st *classify.Statement) {
	if s.tx.state == txNone || s.held.c == nil {
		return
	}
	for i := range st.Sets {
		if set := &st.Sets[i]; set.Local && (set.NameParam > 0 || givesMeaning(strings.ToLower(set.Name))) {
			s.tx.local = locals.Add(1)
			s.means(ctx, s.held.c)
		}
	}
}

// has tells whether any of the names is set.
func (s *settings) has(names ...string) bool {
	return slices.ContainsFunc(s.entries(), func(e setting) bool { return slices.Contains(names, e.name) })
}

// transactionDefaults tells whether the session changed what BEGIN means.
func (s *settings) transactionDefaults() bool {
	return s.has(nameIsolation, nameReadOnly, nameDeferrable)
}

// set returns s with one parameter changed.
func (s *settings) set(name, sql, value string) *settings {
	list := s.without(name)
	if name == nameDateStyle {
		list = append(list, s.dateStyles(value)...)
	}
	return newSettings(append(list, setting{name, sql, value}))
}

// dateStyles are the entries of DateStyle of which something is left once it is set to value:
// it has two parts, the style and the order of day and month, and SET may name one of them.
func (s *settings) dateStyles(value string) []setting {
	style, order := dateStyleParts(value)
	return slices.DeleteFunc(slices.Clone(s.entries()), func(e setting) bool {
		wasStyle, wasOrder := dateStyleParts(e.value)
		return e.name != nameDateStyle || (!wasStyle || style) && (!wasOrder || order)
	})
}

// dateStyleParts tells which parts of DateStyle a value names; one that is not known, both.
// German brings an order with it.
func dateStyleParts(value string) (style, order bool) {
	for _, word := range strings.Split(strings.ToLower(value), ",") {
		switch word = strings.TrimSpace(word); {
		case word == "iso", word == "sql", strings.HasPrefix(word, "postgres"):
			style = true
		case word == "ymd", word == "dmy", word == "mdy", word == "us", strings.HasPrefix(word, "euro"), strings.HasPrefix(word, "noneuro"):
			order = true
		default:
			return true, true
		}
	}
	return style, order
}

// characteristics returns s after SET SESSION CHARACTERISTICS, which sets a parameter for
// each mode that it names and leaves the others.
func (s *settings) characteristics(tx *classify.TxStmt) *settings {
	for _, mode := range []Setting{{nameIsolation, tx.Isolation}, {nameReadOnly, onOff(tx.ReadOnly)}, {nameDeferrable, onOff(tx.Deferrable)}} {
		if mode.Value != "" {
			s = s.set(mode.Name, "SET "+mode.Name+" = "+quoteLiteral(mode.Value), mode.Value)
		}
	}
	return s
}

// onOff is a boolean as SET takes it, "" if there is none.
func onOff(b *bool) string {
	switch {
	case b == nil:
		return ""
	case *b:
		return "on"
	}
	return "off"
}

// reset returns s with a parameter as it was when the session began.
func (s *settings) reset(name string, base *settings) *settings {
	list := s.without(name)
	if e, ok := base.entry(name); ok {
		list = append(list, e)
	}
	return newSettings(list)
}

// entry is the last word on one parameter, if there is any.
func (s *settings) entry(name string) (setting, bool) {
	for _, e := range s.entries() {
		if e.name == name {
			return e, true
		}
	}
	return setting{}, false
}

func (s *settings) without(name string) []setting {
	return slices.DeleteFunc(slices.Clone(s.entries()), func(e setting) bool {
		return e.name == name || name == nameAuthorization && e.name == nameRole
	})
}

// resetAll returns s after RESET ALL: what the session began with, and who it is.
func (s *settings) resetAll(base *settings) *settings {
	who := slices.DeleteFunc(slices.Clone(s.entries()), func(e setting) bool {
		return e.name != nameRole && e.name != nameAuthorization
	})
	began := slices.DeleteFunc(slices.Clone(base.entries()), func(e setting) bool {
		return e.name == nameRole || e.name == nameAuthorization
	})
	return newSettings(append(who, began...))
}

// Setting is a parameter that a session begins with: its value for RESET.
type Setting struct{ Name, Value string }

// baseSettings are what RESET and DISCARD ALL go back to: in PostgreSQL's start-up
// packet they would be the session's defaults (docs, "Setting Parameters").
func baseSettings(list []Setting) *settings {
	var base *settings
	for _, e := range list {
		name := strings.ToLower(e.Name)
		base = base.set(name, fmt.Sprintf("SELECT pg_catalog.set_config(%s, %s, false)", quoteLiteral(name), quoteLiteral(e.Value)), e.Value)
	}
	return base
}

// toBase is what has to run instead of a RESET so that the session's own defaults
// hold afterwards, "" if RESET itself does.
func toBase(st *classify.Statement, text string, base *settings) string {
	if base == nil || st.Set == nil || st.Set.Local {
		return ""
	}
	switch st.Set.Kind {
	case classify.SetReset:
		e, _ := base.entry(st.Set.Name)
		return e.sql
	case classify.SetResetAll:
		for _, e := range base.list {
			text += "; " + e.sql
		}
		return text
	}
	return ""
}

// after returns s once st, whose text is sql, has succeeded. What is local to
// the transaction is the server's affair.
func (s *settings) after(st *classify.Statement, sql string, base *settings) *settings {
	if st.Tx != nil && st.Tx.Kind == classify.TxSetCharacteristics {
		return s.characteristics(st.Tx)
	}
	for i := range st.Sets {
		set := &st.Sets[i]
		if set.Local {
			continue
		}
		switch set.Kind {
		case classify.SetSession:
			s = s.set(set.Name, sql, set.Value)
		case classify.SetReset:
			s = s.reset(set.Name, base)
		case classify.SetResetAll:
			s = s.resetAll(base)
		case classify.SetDiscardAll:
			s = base
		}
	}
	return s
}

// pinned settings cannot be followed from the text: the session must stay.
func opaqueConfig(st *classify.Statement) bool {
	for _, set := range st.Sets {
		if set.Kind == classify.SetConfig && (set.NameParam > 0 || set.LocalParam > 0) {
			return true
		}
	}
	return false
}

// boundSettings refuses a set_config whose bound parameter's name names what must
// not be changed, or cannot be read.
func (c *Call) boundSettings(st *classify.Statement) error {
	if st.Prepared != nil && st.Prepared.Inner != nil { // what EXECUTE will bind is not known
		return (&Call{}).boundSettings(st.Prepared.Inner)
	}
	for i := range st.Sets {
		set := &st.Sets[i]
		if set.Kind != classify.SetConfig || set.NameParam == 0 {
			continue
		}
		name, known := c.param(set.NameParam)
		if !known {
			return errRefused("set_config is not given the name of its parameter as a string", "Bind the name as text, or write it in the statement.")
		}
		value := set.Value
		if set.ValueParam > 0 {
			value, _ = c.param(set.ValueParam)
		}
		if r := classify.RefusedSetting(name, value); r != nil {
			return errRefused(r.Message, r.Hint)
		}
	}
	return nil
}

func (c *Call) param(n int) (string, bool) {
	if c.Param == nil {
		return "", false
	}
	return c.Param(n)
}

// afterConfig is after for calls of set_config: what they set is read back.
func (s *settings) afterConfig(ctx context.Context, c *conn, st *classify.Statement) (*settings, error) {
	for _, set := range st.Sets {
		if set.Kind != classify.SetConfig || set.Local {
			continue
		}
		rows, err := c.Rows(ctx, "SELECT pg_catalog.current_setting($1, true)", set.Name)
		if err != nil {
			return s, err
		}
		value := ""
		if len(rows) == 1 && len(rows[0]) == 1 {
			value = string(rows[0][0])
		}
		s = s.set(set.Name, fmt.Sprintf("SELECT pg_catalog.set_config(%s, %s, false)", quoteLiteral(set.Name), quoteLiteral(value)), value)
	}
	return s, nil
}

// apply makes the settings in force on c exactly want. It is called outside
// transactions only. A session without settings pays nothing on connections
// that never had any.
func (c *conn) apply(ctx context.Context, want *settings) error {
	if c.applied == want || want.same(c.applied, c.purpose) {
		return nil
	}
	if _, err := c.exec(ctx, want.text(c.purpose)); err != nil {
		return fmt.Errorf("pgdist: repeating the session's settings: %w", err)
	}
	c.applied = want
	return c.means(ctx, want.scope(), 0)
}

// touchesReadOnly tells a statement that must not be told to a read connection.
func touchesReadOnly(st *classify.Statement) bool {
	if st.Tx != nil && st.Tx.Kind == classify.TxSetCharacteristics {
		return true
	}
	return slices.ContainsFunc(st.Sets, func(set classify.SetStmt) bool { return slices.Contains(readOnlySettings, set.Name) })
}

// quoteLiteral is a string constant that means v whatever the settings.
func quoteLiteral(v string) string {
	v = strings.ReplaceAll(v, "'", "''")
	if strings.Contains(v, `\`) {
		return " E'" + strings.ReplaceAll(v, `\`, `\\`) + "'"
	}
	return "'" + v + "'"
}
