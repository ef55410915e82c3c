package health

import "time"

// window counts results over the last interval, in buckets that fall out one
// by one. gobreaker has windows of its own, but they also clear its run of
// consecutive failures, and at the border of one a dead database would be
// found late.
type window struct {
	bucket  time.Duration
	start   time.Time
	newest  int64 // number of the newest bucket since start
	buckets [windowBuckets]counts
}

type counts struct{ good, bad uint64 }

const windowBuckets = 10

func newWindow(interval time.Duration, now time.Time) *window {
	return &window{bucket: max(interval/windowBuckets, 1), start: now}
}

func (w *window) add(now time.Time, good, bad uint64) {
	w.advance(now)
	b := &w.buckets[w.newest%windowBuckets]
	b.good += good
	b.bad += bad
}

// total is what the window holds at the last add.
func (w *window) total() counts {
	var sum counts
	for _, b := range w.buckets {
		sum.good += b.good
		sum.bad += b.bad
	}
	return sum
}

func (w *window) clear() { w.buckets = [windowBuckets]counts{} }

func (w *window) advance(now time.Time) {
	n := int64(now.Sub(w.start) / w.bucket)
	if n-w.newest >= windowBuckets {
		w.clear()
		w.newest = n
	}
	for w.newest < n {
		w.newest++
		w.buckets[w.newest%windowBuckets] = counts{}
	}
}
