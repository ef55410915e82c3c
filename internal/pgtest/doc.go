// Package pgtest runs throw-away PostgreSQL servers for tests, benchmarks and
// the demo, does to them what happens to servers in the field (kill -9,
// SIGSTOP, immediate shutdown, restart), and compares what they hold.
//
// [Launch] needs no testing.TB; [Start], [Three] and [Set] do, and clean up
// after themselves. A server listens on a loopback port only, with trust
// authentication for the superuser "postgres", and lives in a directory of its
// own below os.TempDir, or in memory if $PGDIST_IN_MEMORY is set, which takes half
// the time, and no disk that others keep busy. Its durability settings are
// PostgreSQL's defaults, so that a crash test tests something; see
// [Options.FsyncOff].
//
// Nothing outlives the process that asked for it: servers get SIGQUIT when
// their parent dies, and what is left over from a killed test (stopped
// processes, directories, shared memory) is removed by the next Launch.
package pgtest
