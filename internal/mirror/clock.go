package mirror

import "time"

// Points in time that are stored as numbers are on a clock that nobody sets: a member
// that is to be tried again in a second must not wait for the hour by which somebody has
// put the machine's clock back. Only the lease looks at both clocks, see grant.

var clockStart = time.Now()

// monotonic is that clock, in nanoseconds, and never 0.
func monotonic() int64 { return int64(time.Since(clockStart)) + 1 }

// later is what it says after d.
func later(d time.Duration) int64 { return monotonic() + int64(d) }
