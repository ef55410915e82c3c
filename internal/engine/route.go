package engine

import (
	"strings"

	"github.com/pgdist/pgdist/classify"
)

// Route overrides, for one statement, where a read runs.
type Route uint8

const (
	// RouteDefault: as the Config's consistency and the statement say.
	RouteDefault Route = iota
	// RouteAny: a read may run on any in-sync member, whatever the Config's
	// consistency; what was not found to be a read is tried as one first.
	RouteAny
	// RouteLeader: a read runs on the leader.
	RouteLeader
	// RouteStrict: a read is released once every in-sync member has reached
	// what it saw.
	RouteStrict
)

// place is where a statement runs.
type place uint8

const (
	// anywhere: on a read-only connection to any in-sync member.
	anywhere place = iota
	// leaderRead: on a read-only connection to the leader.
	leaderRead
	// leaderWrite: on a read-write connection to the leader, in a transaction
	// of its own whose commit is acknowledged.
	leaderWrite
	// leaderBare: the same without a transaction around it: it may commit by
	// itself (CALL, DO), or is not known.
	leaderBare
	// here: on the connection that the session's transaction or pin holds.
	here
)

func (p place) String() string {
	return [...]string{"anywhere", "leader, read-only", "leader", "leader, bare", "here"}[p]
}

// txState is how far the session's transaction is.
type txState uint8

const (
	txNone    txState = iota
	txPending         // BEGIN was given; no server knows of it yet
	txReading         // on a follower, until its first statement that is no plain read
	txOpen            // on its server to the end
	txFailed          // lost with its server; waits for ROLLBACK
)

// situation is all that a routing decision depends on.
type situation struct {
	// class is the statement's, its functions looked up in the catalog.
	class classify.Class
	// traits of the statement.
	bare   bool // may commit by itself
	quiet  bool // a read of system catalogs that takes no lock
	cursor bool // DECLARE, FETCH, MOVE, CLOSE
	clock  bool // depends on the transaction's start
	rwShow bool // SHOW of what differs between read-only and other connections
	// rwDefault: it shows what differs between them in a READ ONLY transaction, too.
	rwDefault bool
	// leaderSetting: a setting that a read connection must not be told, or
	// that only the connection itself can know.
	leaderSetting bool
	// what the client asked for.
	route Route
	hint  classify.Hint
	level Consistency
	// the session.
	tx       txState
	readOnly bool // the transaction is READ ONLY
	atWriter bool // and begins where writes go
	movable  bool // READ COMMITTED with default options: may read elsewhere first
	pins     classify.Pin
	forced   bool // a server said that it writes after all
	stays    bool // it may leave something on its connection, where the session has to stay then
	hollow   bool // it reads a materialized view, which only the leader can show
	// counted: the connection that the session holds is one of a limited number. Who waits for
	// a second one while it holds the first could wait for itself.
	counted bool
}

// stayPins are those on which plain reads depend, too.
const stayPins = classify.PinTemp | classify.PinSeed | classify.PinSetting | classify.PinSession

// route decides where a statement runs. For a transaction that is not on a
// server yet, or is about to move, it decides where it goes.
func route(s situation) place {
	switch s.tx {
	case txOpen:
		return here
	case txPending:
		return routeTransaction(s)
	case txReading:
		if routeTransaction(s) == anywhere {
			return here
		}
		return leaderWrite
	}
	if s.pins != 0 && (!s.isRead() || s.cursor || s.counted || s.pins&stayPins != 0) {
		return here
	}
	return routeSingle(s)
}

// routeSingle routes a statement outside transactions.
func routeSingle(s situation) place {
	if s.forced {
		if s.bare {
			return leaderBare
		}
		return leaderWrite
	}
	any := s.hint == classify.HintAny || s.route == RouteAny
	switch s.class {
	case classify.Read:
		if s.rwShow {
			return leaderWrite
		}
		return s.readPlace(any)
	case classify.LeaderRead:
		if s.quiet {
			return leaderRead
		}
		return leaderWrite
	case classify.Session:
		if !s.leaderSetting {
			return anywhere
		}
	case classify.Write:
		if any && !s.bare && !s.hollow {
			return anywhere
		}
	}
	if s.bare {
		return leaderBare
	}
	return leaderWrite
}

// routeTransaction says where a transaction has to be for the statement.
func routeTransaction(s situation) place {
	switch {
	case s.readOnly && (s.stays || s.atWriter || s.rwDefault):
		return leaderWrite // the session will write where it stays; elsewhere it would be shown another default
	case s.readOnly && (s.class == classify.LeaderRead || s.cursor && s.level == LeaderLevel):
		return leaderRead
	case s.readOnly:
		return s.readPlace(s.route == RouteAny)
	case s.forced || !s.movable || !s.isRead() || s.cursor || s.clock || s.pins != 0:
		return leaderWrite
	case s.readPlace(false) != anywhere:
		return leaderWrite
	}
	return anywhere
}

func (s situation) isRead() bool { return s.class == classify.Read && !s.forced && !s.rwShow }

func (s situation) readPlace(any bool) place {
	if s.hollow {
		return leaderRead
	}
	if any {
		return anywhere
	}
	if s.route == RouteLeader || s.hint == classify.HintLeader || s.level == LeaderLevel && s.route == RouteDefault {
		return leaderRead
	}
	return anywhere
}

// strict tells whether a read's result waits for the other members.
func (s situation) strict() bool {
	if s.route == RouteDefault {
		return s.level == StrictLevel
	}
	return s.route == RouteStrict
}

// clockWords are in every text whose result depends on when its transaction
// began. Texts that have them for another reason run on the leader, no harm.
var clockWords = []string{"now", "current_", "localtime", "transaction_timestamp", "age", "today", "tomorrow", "yesterday"}

// containsFold tells whether one of the words, in lower case, is in a text, in whatever case.
func containsFold(sql string, words []string) bool {
	for i := range len(sql) {
		for _, w := range words {
			if (sql[i]|0x20) == w[0] && len(sql)-i >= len(w) && strings.EqualFold(sql[i:i+len(w)], w) {
				return true
			}
		}
	}
	return false
}

// readOnlyShows are parameters whose SHOW would tell about the connection
// instead of the session.
func showsReadOnly(name string) bool {
	return name == "all" || strings.HasSuffix(name, "transaction_read_only")
}
