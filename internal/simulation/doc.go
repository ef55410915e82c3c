// Package simulation runs pgdist's decisions about who leads, who is in sync, what is
// acknowledged and who may read, in a world of its own: members, distributors and clients
// are small state machines, time is a number, and a seeded scheduler picks what happens
// next. It is there for its tests; nothing imports it.
//
// What decides is the product's: health.Propose and Next, Chosen, InOffice and InForce, Conclude,
// Drained and Settled are called as internal/mirror calls them. What talks is modelled after it, and
// the functions bear the names of those they stand for:
//
//	member.go       what a member's database does: sql/06_apply.sql, 07_epoch.sql, 07_distributors.sql
//	change.go       having a view chosen, and going by one that others have: change.go, adopt.go
//	flush.go        shipping, and acknowledging: flush.go, loop.go
//	join.go         the way back of a member: join.go, lineage.go; a full copy: resync_view.go
//	lease.go        confirmations and drains: lease.go
//	client.go       a write, its unknown outcome, a read: internal/engine, resolve.go
//
// Data are as many rows as there are writes, one bit each; a batch ships the rows that the
// journal names, as they are at the leader. What is not modelled: values, DDL, sequences, several
// writes of one row (the mirror's own tests are about these), pruning of the journal, and
// the server's loss of what was committed.
//
// Everything that crosses the network may be delayed, reordered, lost on the way there or back,
// or be executed though whoever asked has given up, or twice; members and distributors crash, are stopped and
// go on, are cut off from each other one by one; servers are replaced by old copies of themselves, and come back; distributors'
// clocks run at different speeds. Some accidents take a dozen steps in one order:
// a script (guide.go, scripts_*.go) leads to these. Every rule that can be broken on purpose (bugs.go) is found by TestMutants,
// most of them within a hundred schedules of such a scene. After every step the world is held against the
// rules of check.go.
package simulation
