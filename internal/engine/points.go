package engine

import "github.com/pgdist/pgdist/internal/failpoint"

// Where a program's death leaves its client without an answer, in the order in which it
// gets there.
var (
	pointCommit       = failpoint.New("engine: COMMIT is about to be sent")
	pointCommitted    = failpoint.New("engine: the leader has committed")
	pointAcknowledged = failpoint.New("engine: a write is acknowledged, its client not yet told")
	pointSettling     = failpoint.New("engine: a COMMIT got no answer")
	pointBare         = failpoint.New("engine: what takes several transactions has run at the leader")
)
