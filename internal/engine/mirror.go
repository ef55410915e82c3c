package engine

import (
	"context"
	"errors"
	"time"

	"github.com/pgdist/pgdist/health"
)

// Mirror is what the engine needs of the mirroring below it
// (internal/mirror.Set). It is declared here, by its consumer, so that
// sessions and routing can be tested against a fake.
type Mirror interface {
	// View is the present view; never nil, never changed in place, cheap
	// enough to be asked for every statement.
	View() *health.View

	// Usable tells whether a member's breaker lets reads through; one that does
	// not is about to leave the view. Asked for every read: it must be cheap.
	Usable(id health.MemberID) bool

	// Alike tells whether reads may go to a member at all: its server is of the
	// leader's major version. Asked when the view changes.
	Alike(id health.MemberID) bool

	// Evicted tells whether the mirror has lately made that backend of a member
	// give way, by cancelling its statement or ending its session, because its
	// locks held up a change.
	Evicted(id health.MemberID, pid uint32) bool

	// Vouch tells whether a member has lost nothing by a crash since it was last
	// as the others. Asked after connecting, for each new connection.
	Vouch(ctx context.Context, id health.MemberID) error

	// Current returns once the view is known to be the present one, at once unless
	// no majority of the members has answered lately. Asked before every statement:
	// it must be cheap. limit bounds the wait; 0 leaves that to ctx.
	Current(ctx context.Context, limit time.Duration) error

	// Confirmed tells whether Current would return at once.
	Confirmed() bool

	// Changes grows when others may have changed definitions: functions, views.
	// Asked for every statement.
	Changes() int64

	// Ack waits until every in-sync follower holds what was committed on the
	// leader of term before the call. It returns ErrTermOver when the term of
	// the commit ended meanwhile: the outcome is then unknown until Resolve
	// tells. Any other error means that the write is committed on the leader
	// but not known to be mirrored (ctx ended, no majority).
	Ack(ctx context.Context, term int64, c Change) error

	// Resolve tells definitely whether the last transaction of a lost leader
	// connection was committed. It ends the backend if it still lives, waits
	// for a new leader if need be, and the answer is itself acknowledged.
	// The error is ErrOutcomeUnknown (SQLSTATE 08007) if nothing that could
	// tell was reached before ctx ended.
	Resolve(ctx context.Context, a Attempt) (Outcome, error)

	// Acked is a point in the leader's history that lies behind every
	// transaction acknowledged so far. A session reads it when it begins a
	// transaction and hands it back in Attempt.
	Acked() Point

	// Report hands the mirror the result of client work on a member (nil for
	// success), to feed that member's breaker. It never blocks.
	Report(id health.MemberID, d time.Duration, err error)

	// WaitView blocks until the view's epoch is above epoch or ctx ends; a
	// session whose leader is gone waits here before it runs a statement again.
	WaitView(ctx context.Context, epoch int64) (*health.View, error)
}

// Change tells Ack what kind of effects a transaction may have had, beyond rows.
type Change struct {
	// Sequences is set when nextval, setval, anything unknown, or DDL that may set
	// sequences ran. Sequences in use are compared before every acknowledgement; then
	// those that nobody has called yet are, too.
	Sequences bool
	// Schema is set when DDL ran, or what may run it: roles and other shared
	// objects are then compared.
	Schema bool
}

// Point is a position in the leader's history; opaque to the engine.
type Point struct {
	Term     int64
	Snapshot string
}

// Attempt identifies the last transaction that ran on a leader connection.
type Attempt struct {
	// Conn is the token of the server connection: the value of its setting
	// pgdist.conn, a UUID given in the start-up packet, fresh for every
	// connection, and stamped by capture on whatever the connection writes.
	Conn string
	// PID and Started identify its backend: pg_stat_activity.pid, backend_start
	// (in UTC as "YYYY-MM-DD HH24:MI:SS.US").
	PID     uint32
	Started string
	// Leader and Term in force when the transaction began.
	Leader health.MemberID
	Term   int64
	// Since is Mirror.Acked() taken after the connection's previous
	// transaction was over and before this one began.
	Since Point
	// Parts is set for a statement that may commit several transactions by itself (CALL,
	// DO, or one that runs outside of transactions), once it has succeeded. Last is then
	// the number of the last one that it wrote in, as capture left it in the setting
	// pgdist.last; "" if that could not be read.
	Parts bool
	Last  string
}

// Outcome of a transaction whose COMMIT got no answer.
type Outcome int

const (
	// Unknown is the zero value and never returned without an error.
	Unknown Outcome = iota
	// Committed: it is committed, on every in-sync member.
	Committed
	// RolledBack: it left no trace and never will.
	RolledBack
)

var (
	// ErrTermOver: the leader changed or crashed between commit and acknowledgement.
	ErrTermOver = errors.New("the leader's term ended before the commit was acknowledged")
	// ErrInPart: of the transactions that one statement committed, the first are kept
	// and the last are lost, or may be.
	ErrInPart = errors.New("only a part of the statement is known to have been kept")
	// ErrOutcomeUnknown: nothing that could tell the outcome could be reached.
	ErrOutcomeUnknown = errors.New("whether the transaction was committed could not be found out")
)
