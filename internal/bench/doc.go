//go:build linux

// Command bench measures pgdist on throw-away servers, side by side with plain
// pgx on one server and with pgpool-II's native replication over as many
// servers: reads, writes, how fast a database that was away catches up, and
// memory; and the gateway with PgBouncer before one server.
//
// Contenders take turns in short windows, so that whatever else the machine
// does hits all of them, and the figures are medians over the windows. Every
// server has the same settings, PostgreSQL's defaults, fsync included; each
// contender that replicates has servers of its own. After the writes, what each
// contender's servers hold is compared.
//
// Processor time is what the kernel charged to the processes: go is this
// process, clients and pgdist alike; leader, followers, server and servers are
// PostgreSQL's processes; pgpool is pgpool's.
package main
