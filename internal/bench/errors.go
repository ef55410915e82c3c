//go:build linux

package main

import "errors"

var (
	errNoPgpool      = errors.New("pgpool was not found: run scripts/bench-deps.sh, or point $PGDIST_PGPOOL at the program")
	errNotInSync     = errors.New("not every member of the set is in sync: the figures would be of something else")
	errNoFollower    = errors.New("the set has no follower in sync")
	errTooManyErrors = errors.New("too many statements failed in a row")
	errHung          = errors.New("statements did not return in time")
)
