// Package classify says what a statement does, and why, before it runs: may
// any member answer it, or only the leader, and what does it leave behind in
// its session. The verdict comes from PostgreSQL's own grammar (pg_query,
// the grammar of PostgreSQL 16) and from a table of PostgreSQL's own
// functions; nothing is asked of a server and nothing is executed.
//
// # What a verdict is worth
//
// A verdict of [Read] is a well-founded guess, not a proof. What the text does
// not show is not judged: functions behind operators, casts, views, row level
// security policies, column defaults and attribute notation (row.function); a
// STABLE function that calls a writing one; a user's function that shadows a
// built-in one by an explicit search_path or by better matching arguments; a
// temporary table hidden behind an unqualified name. The wall behind the
// guess is the read-only transaction in which members other than the leader
// run everything: what writes there fails with SQLSTATE 25006 and is run again
// on the leader.
//
// The other direction is safe by construction: reads are a white list. What the
// grammar refuses, statements newer than the grammar, functions nobody has
// vouched for and kinds of statement unknown here all count as writes.
//
// # Text
//
// Text is read with standard_conforming_strings on, as UTF-8 or, if it is none, as some
// encoding that a server may have: names have the bytes that they have in the text. Whoever
// accepts encodings that are clients' alone (SJIS, BIG5, GBK, …) converts first, or may have
// misjudged what has a backslash for a letter's second half in an escape string. Switching that setting off is
// refused (see [Refusal]), because a string would then end elsewhere for the
// server than it did here.
package classify

//go:generate go run ./internal/gen -o functions_gen.go $PGDIST_GEN_DSNS
