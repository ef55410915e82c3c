package engine

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgdist/pgdist/classify"
)

// A function, a trigger or a block of code may leave something on its connection that outlives
// its transaction: a setting, a temporary table, an advisory lock. The text that the client
// sends does not show it. Unnoticed, the session would miss it on its next connection, and
// whoever is given this one would have it: a setting that says whose rows may be seen, say.
// So the catalog knows by their text which functions may do so, and what calls these in
// turn; after a statement with such a name in it the connection is asked what is there.

// leaving is what code may leave on its connection. The zero value is nothing.
type leaving struct {
	// pins are the kinds; PinSetting is a setting whose name does not show.
	pins classify.Pin
	// settings are names, in lower case, sorted.
	settings []string
	// roots tells of what ends with the transaction, which misses it on another server: a cursor,
	// a setting that is local.
	roots bool
	// acts tells of what reaches other sessions, and only those of the same server: an advisory lock
	// of the transaction, a notification.
	acts bool
}

func (l leaving) nothing() bool { return !l.lasts() && !l.roots && !l.acts }

// lasts tells of what outlives the transaction.
func (l leaving) lasts() bool { return l.pins != 0 || len(l.settings) > 0 }

func (l leaving) with(o leaving) leaving {
	l.pins |= o.pins
	l.roots, l.acts = l.roots || o.roots, l.acts || o.acts
	for _, name := range o.settings {
		if i, found := slices.BinarySearch(l.settings, name); !found {
			l.settings = slices.Insert(slices.Clone(l.settings), i, name)
		}
	}
	return l
}

// lasting are the kinds that a rollback does not undo.
const lasting = classify.PinAdvisoryLock | classify.PinPrepared | classify.PinSeed

// leavers are the latest that were read, nil before.
func (c *catalog) leavers() *leavers {
	if f := c.latest.Load(); f != nil {
		return f.leavers
	}
	return nil
}

// leaves tells what a call's statements may leave behind that they do not show.
func (c *catalog) leaves(call *Call) (l leaving) {
	k := c.leavers()
	for i := range call.Verdict.Statements {
		st := &call.Verdict.Statements[i]
		switch {
		case st.Tag == "DO" || st.Class == classify.Unknown || st.Newer:
			l = l.with(leavesBehind(call.SQL)).with(k.words(call.SQL))
		case st.Tag == "CALL":
			l = l.with(k.words(call.SQL))
		case k != nil:
			l = l.with(k.statement(st, call.SQL))
			if st.Prepared != nil && st.Prepared.Inner != nil {
				l = l.with(k.statement(st.Prepared.Inner, call.SQL))
			}
		}
	}
	return l
}

// statement is leaves for one statement of sql, by the names in it.
func (k *leavers) statement(st *classify.Statement, sql string) (l leaving) {
	if len(k.executes) > 0 && slices.ContainsFunc(st.Functions, func(f classify.FuncRef) bool { return k.executes[strings.ToLower(f.Name)] }) {
		l = leavesBehind("execute '" + sql)
	}
	if len(k.calls) == 0 {
		return l
	}
	for _, f := range st.Functions {
		l = l.with(k.calls[strings.ToLower(f.Name)])
	}
	for _, r := range st.Reads {
		l = l.with(k.calls[strings.ToLower(r.Name)])
	}
	if st.Class == classify.DDL { // it fires no trigger
		return l
	}
	for _, r := range st.Relations {
		name := strings.ToLower(r.Name)
		l = l.with(k.writes[name]).with(k.calls[name])
	}
	return l
}

// words is what the names in a text leave.
func (k *leavers) words(sql string) (l leaving) {
	if k == nil || len(k.calls) == 0 && len(k.executes) == 0 {
		return l
	}
	executes := false
	for _, word := range strings.FieldsFunc(strings.ToLower(sql), func(r rune) bool { return r < utf8.RuneSelf && !wordByte(byte(r)) }) {
		l = l.with(k.calls[word]).with(k.writes[word])
		executes = executes || k.executes[word]
	}
	if executes {
		l = l.with(leavesBehind("execute '" + sql))
	}
	return l
}

// brings tells what code that a call's statements make, or put to use, may leave behind. Until
// the catalog has been read again all sessions go by that.
func (c *catalog) brings(call *Call) (l leaving) {
	for i := range call.Verdict.Statements {
		if st := &call.Verdict.Statements[i]; st.Class == classify.DDL && codeTags[st.Tag] {
			l = l.with(leavesBehind(call.SQL)).with(c.leavers().words(call.SQL))
		}
	}
	return l
}

// brought is what definitions bring that were committed and that no reading of the catalog
// shows yet, which one does that was asked for at or after at.
type brought struct {
	leaving
	at int64
}

// bring has all sessions go by what definitions bring, which were committed just now.
func (c *catalog) bring(l leaving) {
	if l.nothing() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.brought.Store(&brought{leaving: l.with(c.fresh()), at: c.asked.Load() + 1})
}

// fresh is what definitions bring that no reading of the catalog shows yet.
func (c *catalog) fresh() (l leaving) {
	b := c.brought.Load()
	switch {
	case b == nil:
		return l
	case c.answered.Load() >= b.at:
		c.brought.CompareAndSwap(b, nil)
		return l
	}
	return b.leaving
}

// codeTags are the statements that make code, or have it run.
var codeTags = map[string]bool{
	"CREATE FUNCTION": true, "CREATE PROCEDURE": true, "CREATE TRIGGER": true, "CREATE VIEW": true, "CREATE RULE": true, "CREATE TABLE": true, "ALTER TABLE": true,
	"ALTER FUNCTION": true, "ALTER PROCEDURE": true, "ALTER ROUTINE": true,
}

// runsCode tells whether a statement may run code of users'.
func runsCode(st *classify.Statement) bool {
	if st.Class == classify.DDL { // CREATE TABLE AS does
		return st.Newer || len(st.Functions) > 0 || len(st.Reads) > 0
	}
	return len(st.Functions) > 0 || len(st.Reads) > 0 || len(st.Relations) > 0 || st.Tag == "DO" || st.Tag == "CALL" || st.Class == classify.Unknown || st.Newer
}

// leaves is catalog.leaves with what definitions bring that it does not know yet.
func (l *Lease) leaves() leaving {
	s := l.s
	fresh := s.e.catalog.fresh() // before what is known is looked at
	left := s.e.catalog.leaves(&l.call)
	if (!fresh.nothing() || !s.tx.brings.nothing()) && slices.ContainsFunc(l.call.Verdict.Statements, func(st classify.Statement) bool { return runsCode(&st) }) {
		left = left.with(fresh).with(s.tx.brings)
	}
	return left
}

// leftSQL asks a connection what is there, of each kind.
var leftSQL = []struct {
	pin classify.Pin
	sql string
}{
	{classify.PinTemp, `EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid = pg_catalog.pg_my_temp_schema())`},
	{classify.PinAdvisoryLock, `EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())`},
	{classify.PinPrepared, `EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)`},
	{classify.PinHoldCursor, `EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)`},
	{classify.PinSeed, `true`},
	{classify.PinSetting, `true`},
}

// leftSettingsSQL gives the values in force, and whether they are the session's. Users' own
// parameters do not stand in pg_settings.
const leftSettingsSQL = `SELECT n, pg_catalog.current_setting(n, true), coalesce((SELECT s.source = 'session' FROM pg_catalog.pg_settings s WHERE pg_catalog.lower(s.name) = n), true)::text
  FROM pg_catalog.unnest($1::text[]) n`

// leftTimeout bounds these questions.
const leftTimeout = 5 * time.Second

// keepLeft keeps for the session what code has left on c, outside a transaction: what can be set
// again is set wherever the session goes, for the rest it has to stay. undone tells that the
// transaction was rolled back. A connection that does not answer, or is no place to stay, is closed.
func (s *Session) keepLeft(l leaving, c *conn, undone bool) {
	if undone {
		l = leaving{pins: l.pins & lasting}
	}
	l.pins &^= s.pins
	if s.pins&classify.PinSetting != 0 || l.pins&classify.PinSetting != 0 { // all are where the session is
		l.settings = nil
	}
	if s.whole || !l.lasts() || c.IsClosed() || c.spoiled.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(s.e.ctx, leftTimeout)
	defer cancel()
	c.waiting.Store(nanotime())
	defer c.waiting.Store(0)
	pins, err := c.leftPins(ctx, l.pins)
	next, err2 := s.settings.afterCode(ctx, c, l.settings)
	err = errors.Join(err, err2)
	switch {
	case err != nil: // the next statement is told what may be lost
		s.pins |= l.pins
		if len(l.settings) > 0 {
			s.pins |= classify.PinSetting
		}
	case pins != 0 && c.purpose == readOnly && c.member != s.e.route().leader:
		err = errNoPlace
	}
	if err != nil {
		s.e.log.Warn("a connection on which a function has left something is closed", "member", c.member.id, "error", err)
		c.spoil()
		return
	}
	s.pins |= pins
	s.settings, c.applied = next, next
	s.means(ctx, c)
}

// errNoPlace: no session stays on a follower.
var errNoPlace = errors.New("it was left on a follower, in a READ ONLY transaction")

// leftPins tells which of the kinds are on the connection.
func (c *conn) leftPins(ctx context.Context, of classify.Pin) (pins classify.Pin, err error) {
	var asked []classify.Pin
	var questions []string
	for _, q := range leftSQL {
		if of&q.pin != 0 {
			asked, questions = append(asked, q.pin), append(questions, "("+q.sql+")::text")
		}
	}
	if len(asked) == 0 {
		return 0, nil
	}
	rows, err := c.Rows(ctx, "SELECT "+strings.Join(questions, ", "))
	if err != nil {
		return 0, err
	}
	for i, pin := range asked {
		if len(rows) == 1 && len(rows[0]) == len(asked) && string(rows[0][i]) == strconv.FormatBool(true) {
			pins |= pin
		}
	}
	return pins, nil
}

// afterCode is after for code that may have set parameters of these names.
func (s *settings) afterCode(ctx context.Context, c *conn, names []string) (*settings, error) {
	if len(names) == 0 {
		return s, nil
	}
	rows, err := c.Rows(ctx, leftSettingsSQL, textArray(names))
	if err != nil {
		return s, err
	}
	for _, row := range rows {
		name, value, own := string(row[0]), string(row[1]), string(row[2]) == "true"
		if r := classify.RefusedSetting(name, value); own && value != "" && r != nil {
			return s, errors.New(r.Message)
		}
		was, had := s.entry(name)
		switch {
		case !own && had:
			s = newSettings(s.without(name))
		case !own, row[1] == nil, had && was.value == value, !had && value == "" && strings.Contains(name, "."): // as in a session that never set it
		default:
			s = s.config(name, value)
		}
	}
	return s, nil
}

// config is s after set_config.
func (s *settings) config(name, value string) *settings {
	return s.set(name, "SELECT pg_catalog.set_config("+quoteLiteral(name)+", "+quoteLiteral(value)+", false)", value)
}
