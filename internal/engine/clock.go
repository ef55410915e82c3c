package engine

import "time"

var clockStart = time.Now()

// nanotime is a monotonic clock, in nanoseconds and never 0.
func nanotime() int64 { return int64(time.Since(clockStart)) + 1 }
