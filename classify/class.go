package classify

// Class is what a statement does, as far as routing is concerned. The zero
// value is Unknown, which is treated as a write.
type Class uint8

const (
	// Unknown is what the grammar refuses, or what is too long or too deeply
	// nested to be judged. It goes to the leader, whose own error comes back.
	Unknown Class = iota

	// Read has no effect and the same answer on every member in sync.
	Read

	// LeaderRead changes no row, but only the leader can answer it, or it
	// leaves something there: locks (FOR UPDATE, LOCK, advisory locks),
	// temporary tables, LISTEN and NOTIFY, prepared statements, system
	// catalogs and whatever shows OIDs or transaction ids. A transaction that
	// ran one stays on the leader to its end. It is not to be run in a
	// read-only transaction that the client did not ask for: row locks fail
	// there.
	LeaderRead

	// Session changes settings of the session or of the transaction: SET,
	// RESET, DISCARD, set_config. Statement.Sets says which.
	Session

	// Transaction is transaction control; Statement.Tx says which.
	Transaction

	// Write changes rows or sequences, or may do so: CALL, DO, functions that
	// only the catalog can judge (see Statement.Functions), EXECUTE of
	// something prepared elsewhere.
	Write

	// DDL changes definitions, and is shipped as its text.
	DDL

	// Utility is maintenance that each member does for itself: VACUUM, ANALYZE,
	// CLUSTER, REINDEX and whatever is done CONCURRENTLY. Statement.NoTx says
	// whether the server refuses it in a transaction block.
	Utility

	// Refused cannot be mirrored and is answered with SQLSTATE 0A000;
	// Statement.Refusal says what and why.
	Refused
)

// strengths orders the classes: the class of a string of statements, and of a
// statement with several parts, is the strongest of them.
var strengths = [...]uint8{
	Read:        1,
	LeaderRead:  2,
	Session:     3,
	Transaction: 4,
	Write:       5,
	DDL:         6,
	Utility:     7,
	Unknown:     8,
	Refused:     9,
}

// Stronger returns the stronger of two classes, in the order Read, LeaderRead,
// Session, Transaction, Write, DDL, Utility, Unknown, Refused.
func (c Class) Stronger(d Class) Class {
	if strengths[d] > strengths[c] {
		return d
	}
	return c
}

var classNames = [...]string{
	Unknown:     "unknown",
	Read:        "read",
	LeaderRead:  "leader read",
	Session:     "session",
	Transaction: "transaction",
	Write:       "write",
	DDL:         "ddl",
	Utility:     "utility",
	Refused:     "refused",
}

// String is the class in lower case, for messages and for test data.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "invalid"
}

// Hint is what the client asked for in a comment before the first statement:
// "/* pgdist: leader */" or "/* pgdist: any */", alone in the comment, upper or
// lower case. The last one counts. Hints bind the string they stand in.
type Hint uint8

const (
	// NoHint: the class decides.
	NoHint Hint = iota
	// HintLeader sends reads to the leader.
	HintLeader
	// HintAny lets any member try what was not found to be a read, because the
	// client knows its functions better. The read-only transaction still holds.
	HintAny
)

// String is the word as it stands in the comment, empty without one.
func (h Hint) String() string {
	switch h {
	case HintLeader:
		return "leader"
	case HintAny:
		return "any"
	}
	return ""
}

// Pin is a set of reasons why a session needs the same connection to the leader
// from a statement on.
type Pin uint16

const (
	// PinTemp: a temporary table, view, sequence, function or type.
	PinTemp Pin = 1 << iota
	// PinListen: LISTEN.
	PinListen
	// PinAdvisoryLock: an advisory lock that outlives its transaction.
	PinAdvisoryLock
	// PinHoldCursor: a cursor WITH HOLD.
	PinHoldCursor
	// PinPrepared: a statement prepared by SQL PREPARE.
	PinPrepared
	// PinSeed: setseed, or SET SEED, decides what random() gives next.
	PinSeed
	// PinSequence: currval and lastval depend on this connection's earlier nextval.
	PinSequence
	// PinSetting: a setting was changed in a way that the text does not show.
	PinSetting

	// PinAll is every reason that a statement gives.
	PinAll Pin = 1<<iota - 1

	// PinSession: the client has asked for a connection for its whole session. No statement does.
	PinSession Pin = 1 << 8
)

var pinNames = [...]string{"temp", "listen", "advisory lock", "hold cursor", "prepared", "seed", "sequence", "setting", "session"}

// String lists the reasons, separated by ", ".
func (p Pin) String() string {
	var s string
	for i, name := range pinNames {
		if p&(1<<i) == 0 {
			continue
		}
		if s != "" {
			s += ", "
		}
		s += name
	}
	return s
}
