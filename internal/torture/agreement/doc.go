// Package agreement runs several programs on one set, each a process of its own with
// its own links to the servers, while servers, links and programs fail, and judges what
// their clients were told by package history.
//
// A program is this package's test binary, run again: see [Main]. One holds the driver,
// another a gateway. The clients are with the test, which outlives everything. What a
// program that died left unsaid is of unknown outcome; what it had said must hold.
package agreement
