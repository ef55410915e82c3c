package classify

import (
	"regexp"
	"strings"
	"sync"
)

// origin is what pg_proc says about a built-in function.
type origin uint8

const (
	originPlain    origin = iota + 1 // stable or immutable
	originOIDs                       // the same, but takes or gives OIDs
	originVolatile                   // some overload is volatile
)

// builtins are PostgreSQL's own functions by name, those of all supported
// versions together.
var builtins = sync.OnceValue(func() map[string]origin {
	m := make(map[string]origin, 3000)
	for o, names := range map[origin]string{
		originPlain: plainBuiltins, originOIDs: oidBuiltins, originVolatile: volatileBuiltins,
	} {
		for _, name := range strings.Fields(names) {
			m[name] = o
		}
	}
	return m
})

// systemRelations are the tables and views of schema pg_catalog.
var systemRelations = sync.OnceValue(func() map[string]bool {
	m := make(map[string]bool, 200)
	for _, name := range strings.Fields(catalogRelations) {
		m[name] = true
	}
	return m
})

// effect is what a call of a built-in function means.
type effect struct {
	class   Class // never Refused: refuse says that
	because string
	pin     Pin
	unpin   Pin
	seq     bool // moves a sequence
	catalog bool // shows OIDs or transaction ids
	refuse  *Refusal
}

// builtinEffect judges a built-in function by its name; known is false for all
// others. What is volatile and not named in effects is asked of the leader: it
// tells about one server, or does something to it.
func builtinEffect(name string) (e effect, known bool) {
	o, known := builtins()[name]
	if !known {
		return effect{}, false
	}
	if e, ok := effects[name]; ok {
		return e, true
	}
	for _, f := range families {
		if strings.HasPrefix(name, f.prefix) {
			return f.effect, true
		}
	}
	switch o {
	case originVolatile:
		return effect{class: LeaderRead, because: "tells about one server, or acts on it"}, true
	case originOIDs:
		return oids, true
	}
	return effect{class: Read}, true
}

var (
	oids      = effect{class: LeaderRead, because: "depends on OIDs, in which members differ", catalog: true}
	harmless  = effect{class: Read}
	movesSeq  = effect{class: Write, because: "moves a sequence", pin: PinSequence, seq: true}
	seqState  = effect{class: LeaderRead, because: "depends on this connection's nextval", pin: PinSequence}
	xids      = effect{class: LeaderRead, because: "tells transaction ids, in which members differ", catalog: true}
	session   = effect{class: LeaderRead, because: "tells about the leader's connection"}
	runsSQL   = effect{class: Write, because: "runs SQL that is not in the text", seq: true}
	upgrade   = effect{class: Write, because: "changes system catalogs"}
	locks     = effect{class: LeaderRead, because: "takes or releases an advisory lock"}
	locksLong = effect{class: LeaderRead, because: "takes an advisory lock for the session", pin: PinAdvisoryLock}
)

var (
	refuseLargeObjects = &Refusal{
		Feature: "large objects",
		Message: "large objects are not supported: they cannot be mirrored",
		Hint:    "Store the data in a column of type bytea.",
	}
	refuseReplication = &Refusal{
		Feature: "replication slots",
		Message: "replication slots and origins are not supported: they belong to one server",
		Hint:    "Connect to that server itself.",
	}
	refuseCollations = &Refusal{
		Feature: "collation import",
		Message: "pg_import_system_collations is not supported: it depends on one server's operating system",
		Hint:    "Name the collations with CREATE COLLATION.",
	}
)

// largeObjects finds calls of functions that make or change large objects. No
// trigger fires for these, so code that has any is refused by its text; that of
// functions is looked at when they are created, by pgdist.statement().
var largeObjects = regexp.MustCompile(`(?i)\b(lo_(creat|create|from_bytea|import|open|put|truncate|truncate64|unlink)|lowrite)"?\s*\(`)

func usesLargeObjects(code string) bool { return largeObjects.MatchString(code) }

// effects are the built-in functions that pg_proc's volatility does not judge.
var effects = map[string]effect{
	// Volatile without effect: any member answers as well as any other.
	"random": harmless, "random_normal": harmless, "array_sample": harmless, "array_shuffle": harmless,
	"gen_random_uuid": harmless, "uuidv4": harmless, "uuidv7": harmless,
	"clock_timestamp": harmless, "timeofday": harmless, "timezone": harmless,
	"pg_sleep": harmless, "pg_sleep_for": harmless, "pg_sleep_until": harmless,
	"current_query": harmless, "pg_is_in_recovery": harmless, "pg_jit_available": harmless,

	"nextval": movesSeq, "setval": movesSeq, "currval": seqState, "lastval": seqState,
	"setseed": {class: LeaderRead, because: "decides what random() gives next", pin: PinSeed},

	"pg_advisory_lock": locksLong, "pg_advisory_lock_shared": locksLong,
	"pg_try_advisory_lock": locksLong, "pg_try_advisory_lock_shared": locksLong,
	"pg_advisory_unlock_all": {class: LeaderRead, because: locks.because, unpin: PinAdvisoryLock},
	"pg_notify":              {class: LeaderRead, because: "notifies listeners, who are on the leader"},

	"query_to_xml": runsSQL, "query_to_xmlschema": runsSQL, "query_to_xml_and_xmlschema": runsSQL,
	"cursor_to_xml": runsSQL, "cursor_to_xmlschema": runsSQL, "ts_stat": runsSQL, "ts_rewrite": runsSQL,
	"pg_extension_config_dump": upgrade, "pg_nextoid": upgrade, "pg_stop_making_pinned_objects": upgrade,

	"pg_current_snapshot": xids, "txid_current_snapshot": xids,
	"pg_current_xact_id": xids, "pg_current_xact_id_if_assigned": xids,
	"txid_current": xids, "txid_current_if_assigned": xids, "txid_status": xids, "pg_xact_status": xids,
	"pg_export_snapshot": xids,

	// it takes an OID or a name, and which one does not show; what psql gives it is an OID
	"pg_get_viewdef": oids,

	"pg_backend_pid": session, "pg_listening_channels": session, "pg_prepared_statement": session,
	"pg_cursor": session, "pg_show_all_settings": session,

	"loread": {refuse: refuseLargeObjects}, "lowrite": {refuse: refuseLargeObjects},
	"pg_replication_slot_advance": {refuse: refuseReplication},
	"pg_drop_replication_slot":    {refuse: refuseReplication},
	"pg_sync_replication_slots":   {refuse: refuseReplication},
	"pg_import_system_collations": {refuse: refuseCollations},
}

// families are built-in functions judged by how their names begin, in order,
// after effects.
var families = []struct {
	prefix string
	effect effect
}{
	{"lo_", effect{refuse: refuseLargeObjects}},
	{"pg_advisory_", locks},
	{"pg_try_advisory_", locks},
	{"pg_logical_slot_", effect{refuse: refuseReplication}},
	{"pg_create_logical_", effect{refuse: refuseReplication}},
	{"pg_create_physical_", effect{refuse: refuseReplication}},
	{"pg_copy_logical_", effect{refuse: refuseReplication}},
	{"pg_copy_physical_", effect{refuse: refuseReplication}},
	{"pg_replication_origin_advance", effect{refuse: refuseReplication}},
	{"pg_replication_origin_create", effect{refuse: refuseReplication}},
	{"pg_replication_origin_drop", effect{refuse: refuseReplication}},
	{"pg_replication_origin_session_setup", effect{refuse: refuseReplication}},
	{"pg_replication_origin_xact_", effect{refuse: refuseReplication}},
	{"pg_stat_", effect{class: LeaderRead, because: "tells one server's statistics"}},
	{"pg_restore_", upgrade},
	{"pg_clear_", upgrade},
	{"binary_upgrade_", upgrade},
}
