//go:build linux

package main

import "errors"

var (
	errNotInSync     = errors.New("not every member of the set is in sync: the figures would be of something else")
	errNoFollower    = errors.New("the set has no follower in sync")
	errTooManyErrors = errors.New("too many statements failed in a row")
	errHung          = errors.New("statements did not return in time")
)
