// Package compat holds the proof that programs built on GORM, sqlx, goose and
// golang-migrate run unmodified on the driver "pgdist". Each of its tests runs
// one body of code twice, over pgx's own driver on one server and over pgdist
// on three mirrored ones, and compares what the program saw; at the end the
// three servers hold the same bytes. It exports nothing.
package compat
