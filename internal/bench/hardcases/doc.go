//go:build linux

// Command hardcases runs what systems that write to several databases are known
// to get wrong, against pgpool-II's native replication over three throw-away
// servers and against pgdist over three others, and prints as a table what came
// of it: whether the three databases are still equal, and whether the answers
// and the contents are those of one plain PostgreSQL.
//
// All servers have PostgreSQL's default settings. As on servers that were
// not made by copying files, object numbers and transaction numbers differ
// between them; nothing else does when a case begins.
package main
