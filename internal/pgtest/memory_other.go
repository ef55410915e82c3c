//go:build unix && !linux

package pgtest

// memory is nowhere that is known.
const memory = ""

func roomInMemory() bool { return false }
