package mirror

import "github.com/pgdist/pgdist/internal/failpoint"

// Where a program's death leaves something half done, in the order in which it gets there.
var (
	pointTurn       = failpoint.New("mirror: it has the turn")
	pointRead       = failpoint.New("mirror: a batch was read")
	pointAppliedOne = failpoint.New("mirror: a follower has applied a batch")
	pointAppliedAll = failpoint.New("mirror: all followers have applied a batch")
	pointPieces     = failpoint.New("mirror: a batch in pieces is about to be committed")
	pointServed     = failpoint.New("mirror: a batch may be acknowledged")

	pointPromised    = failpoint.New("mirror: a member has promised")
	pointPromisedAll = failpoint.New("mirror: all who answer have promised")
	pointAccepted    = failpoint.New("mirror: a member has accepted a view")
	pointChosen      = failpoint.New("mirror: a view is chosen")
	pointOffice      = failpoint.New("mirror: the leader has taken office")
	pointEntered     = failpoint.New("mirror: a new view is gone by")
	pointStruckOff   = failpoint.New("mirror: programs were struck off")

	pointCaughtUp = failpoint.New("mirror: a member has caught up")
	pointJoining  = failpoint.New("mirror: a member that joins has the rest")

	pointHeld        = failpoint.New("mirror: the leader's fence is locked")
	pointSurrendered = failpoint.New("mirror: the leader has given up its office")

	pointEmptied = failpoint.New("mirror: a copy's database was made anew")
	pointIndexed = failpoint.New("mirror: a copy has its indexes")
	pointFilled  = failpoint.New("mirror: a copy is filled")
)
