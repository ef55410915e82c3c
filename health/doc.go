// Package health decides which databases of a set are used.
//
// It has two halves that know nothing of each other:
//
//   - [Board] watches every member with a circuit breaker, fed by probes of its
//     own and by the results of client work, and publishes what it knows as
//     immutable snapshots. It says whether a database works.
//   - [Next] is the view as a pure state machine: from what a quorum of members
//     answered it computes the one view that may be proposed next. It says who
//     leads and who holds every acknowledged write.
//
// Neither speaks SQL. The layer above probes, promises and accepts.
package health
