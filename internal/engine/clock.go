package engine

import "time"

var clockStart = time.Now()

// Now is the clock that statements are timed by: monotonic, in nanoseconds, never 0.
func Now() int64 { return nanotime() }

// nanotime is a monotonic clock, in nanoseconds and never 0.
func nanotime() int64 { return int64(time.Since(clockStart)) + 1 }
