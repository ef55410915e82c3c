package engine

import (
	"testing"

	"github.com/pgdist/pgdist/classify"
)

func TestRoute(t *testing.T) {
	const read, leader, write = classify.Read, classify.LeaderRead, classify.Write
	for _, c := range []struct {
		name string
		s    situation
		want place
	}{
		{"a read", situation{class: read}, anywhere},
		{"a read, consistency leader", situation{class: read, level: LeaderLevel}, leaderRead},
		{"a read, consistency leader, told any", situation{class: read, level: LeaderLevel, route: RouteAny}, anywhere},
		{"a materialized view", situation{class: read, hollow: true}, leaderRead},
		{"a materialized view, told any", situation{class: read, hollow: true, route: RouteAny}, leaderRead},
		{"a write that reads one, hinted any", situation{class: write, hollow: true, hint: classify.HintAny}, leaderWrite},
		{"a read told leader", situation{class: read, route: RouteLeader}, leaderRead},
		{"a read hinted leader", situation{class: read, hint: classify.HintLeader}, leaderRead},
		{"a read that wrote", situation{class: read, forced: true}, leaderWrite},
		{"system catalogs", situation{class: leader, quiet: true}, leaderRead},
		{"FOR UPDATE", situation{class: leader}, leaderWrite},
		{"a write", situation{class: write}, leaderWrite},
		{"a write hinted any is tried as a read", situation{class: write, hint: classify.HintAny}, anywhere},
		{"and then not again", situation{class: write, hint: classify.HintAny, forced: true}, leaderWrite},
		{"CALL", situation{class: write, bare: true}, leaderBare},
		{"CALL hinted any", situation{class: write, bare: true, hint: classify.HintAny}, leaderBare},
		{"not understood", situation{bare: true}, leaderBare},
		{"set_config", situation{class: classify.Session}, anywhere},
		{"set_config of what reads must not be told", situation{class: classify.Session, leaderSetting: true}, leaderWrite},
		{"SHOW default_transaction_read_only", situation{class: read, rwShow: true}, leaderWrite},
		{"the same in a READ ONLY transaction", situation{class: read, tx: txPending, readOnly: true, rwShow: true, rwDefault: true}, leaderWrite},
		{"SHOW transaction_read_only there", situation{class: read, tx: txPending, readOnly: true, rwShow: true}, anywhere},

		{"LISTEN and a read", situation{class: read, pins: classify.PinListen}, anywhere},
		{"LISTEN and a write", situation{class: write, pins: classify.PinListen}, here},
		{"temporary tables and a read", situation{class: read, pins: classify.PinTemp}, here},
		{"FETCH from a held cursor", situation{class: read, cursor: true, pins: classify.PinHoldCursor}, here},

		{"on its server", situation{class: read, tx: txOpen}, here},
		{"read committed, first a read", situation{class: read, tx: txPending, movable: true}, anywhere},
		{"first a write", situation{class: write, tx: txPending, movable: true}, leaderWrite},
		{"first a cursor", situation{class: read, cursor: true, tx: txPending, movable: true}, leaderWrite},
		{"first the time", situation{class: read, clock: true, tx: txPending, movable: true}, leaderWrite},
		{"first a read, hinted leader", situation{class: read, hint: classify.HintLeader, tx: txPending, movable: true}, leaderWrite},
		{"first a read that wrote", situation{class: read, forced: true, tx: txPending, movable: true}, leaderWrite},
		{"first a materialized view", situation{class: read, hollow: true, tx: txPending, movable: true}, leaderWrite},
		{"reading, then a materialized view", situation{class: read, hollow: true, tx: txReading, movable: true}, leaderWrite},
		{"read only, a materialized view", situation{class: read, hollow: true, tx: txPending, readOnly: true}, leaderRead},
		{"read only, a write that reads one", situation{class: write, hollow: true, tx: txPending, readOnly: true}, leaderRead},
		{"serializable", situation{class: read, tx: txPending}, leaderWrite},
		{"read only", situation{class: read, tx: txPending, readOnly: true}, anywhere},
		{"read only, leader", situation{class: read, tx: txPending, readOnly: true, level: LeaderLevel}, leaderRead},
		{"read only, catalogs first", situation{class: leader, quiet: true, tx: txPending, readOnly: true}, leaderRead},
		{"read only, a write: the server says no", situation{class: write, tx: txPending, readOnly: true}, anywhere},
		{"reading, another read", situation{class: read, tx: txReading, movable: true}, here},
		{"reading, then a write", situation{class: write, tx: txReading, movable: true}, leaderWrite},
		{"reading, then a lock", situation{class: leader, tx: txReading, movable: true}, leaderWrite},
		{"reading, then the time", situation{class: read, clock: true, tx: txReading, movable: true}, leaderWrite},
	} {
		if got := route(c.s); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestMentionsClock(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT * FROM t WHERE id = $1":           false,
		"select NOW()":                            true,
		"SELECT Current_Date":                     true,
		"SELECT 'today'::date":                    true,
		"SELECT age(x)":                           true,
		"SELECT localtimestamp":                   true,
		"SELECT no":                               false,
		"SELECT id FROM messages WHERE knows = 1": true, // no harm
	} {
		if got := containsFold(sql, clockWords); got != want {
			t.Errorf("%s: %v", sql, got)
		}
	}
}

func TestStrict(t *testing.T) {
	for _, c := range []struct {
		level Consistency
		route Route
		want  bool
	}{
		{SessionLevel, RouteDefault, false}, {StrictLevel, RouteDefault, true}, {StrictLevel, RouteAny, false},
		{SessionLevel, RouteStrict, true}, {LeaderLevel, RouteDefault, false},
	} {
		if got := (situation{level: c.level, route: c.route}).strict(); got != c.want {
			t.Errorf("%s, route %d: %v", c.level, c.route, got)
		}
	}
}
