package classify

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	// ways is the number of places that a text may take in the table.
	ways = 8
	// meanEntry is what an entry takes on average, in bytes; the table's size
	// follows from it.
	meanEntry = 512
	// maxShare bounds a single entry, as a fraction of the whole.
	maxShare = 16
	// keyRoom is how long a key may be without costing an allocation, in bytes.
	keyRoom = 1024
	// DefaultCacheBytes is the size of a Cache made with 0.
	DefaultCacheBytes = 16 << 20
)

// Cache remembers verdicts by text within a fixed memory. It is safe for
// concurrent use; a hit takes no lock and allocates nothing. Texts that differ
// in literals and comments only share a verdict, unless a literal matters.
type Cache struct {
	seed  maphash.Seed
	mask  uint64
	limit int64
	slots []slot // ways of them for each value of the masked hash

	misses atomic.Uint64

	mu   sync.Mutex // for whatever changes slots
	used int64      // bytes of all entries
	hand int        // where the search for something to drop goes on
}

type slot struct{ entry atomic.Pointer[entry] }

// entry is never changed once it is published, but for touched.
type entry struct {
	hash    uint64
	key     string
	verdict *Verdict
	size    int64
	touched atomic.Bool // since the hand last passed
	// shared: the verdict holds for all texts with this key. Otherwise it holds for
	// the text that is the key only, which may look like the key of others:
	// set_config('', '', true).
	shared bool
}

// NewCache returns an empty cache that holds about the given number of bytes;
// zero or less means DefaultCacheBytes.
func NewCache(bytes int) *Cache {
	if bytes <= 0 {
		bytes = DefaultCacheBytes
	}
	sets := uint64(1)
	for sets*ways*meanEntry < uint64(bytes) {
		sets *= 2
	}
	return &Cache{
		seed:  maphash.MakeSeed(),
		mask:  sets - 1,
		limit: int64(bytes),
		slots: make([]slot, sets*ways),
	}
}

// Classify returns what [Parse] returns for sql, from memory if it can. The
// verdict is shared and must not be changed.
func (c *Cache) Classify(sql string) *Verdict {
	var room [keyRoom]byte
	v, hash, keyHash, key, keyed := c.look(sql, room[:0])
	if v != nil {
		return v
	}
	c.misses.Add(1)
	v = Parse(sql)
	if keyed && !v.literal {
		c.keep(&entry{hash: keyHash, key: string(key), verdict: v, shared: true})
	} else {
		c.keep(&entry{hash: hash, key: strings.Clone(sql), verdict: v})
	}
	return v
}

// Known returns what [Cache.Classify] would return if it is in memory, and nil
// otherwise: it never takes the time that parsing takes.
func (c *Cache) Known(sql string) *Verdict {
	var room [keyRoom]byte
	v, _, _, _, _ := c.look(sql, room[:0])
	return v
}

// look looks for a text. If it is not there, hash and, if keyed, key and keyHash are
// under what it is to be kept; key may be in room.
func (c *Cache) look(sql string, room []byte) (v *Verdict, hash, keyHash uint64, key []byte, keyed bool) {
	hash = maphash.String(c.seed, sql)
	if v = c.find(hash, sql, false); v != nil {
		return v, hash, 0, nil, false
	}
	if key, keyed = appendKey(room, sql); keyed {
		keyHash = maphash.Bytes(c.seed, key)
		v = c.find(keyHash, unsafe.String(unsafe.SliceData(key), len(key)), true)
	}
	return v, hash, keyHash, key, keyed
}

// Stats says how full the cache is, and how often it did not know an answer. Hits
// are not counted: the counter would be what processors wait for.
type Stats struct {
	Entries int
	// Bytes is an estimate; it never exceeds what NewCache was given.
	Bytes  int64
	Misses uint64
}

// Stats returns the present figures.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Bytes: c.used, Misses: c.misses.Load()}
	for i := range c.slots {
		if c.slots[i].entry.Load() != nil {
			s.Entries++
		}
	}
	return s
}

// set is the range of slots in which a hash may be.
func (c *Cache) set(hash uint64) []slot {
	i := hash & c.mask * ways
	return c.slots[i : i+ways]
}

// find looks for a text, or, if shared, for a key.
func (c *Cache) find(hash uint64, key string, shared bool) *Verdict {
	set := c.set(hash)
	for i := range set {
		e := set[i].entry.Load()
		if e == nil || e.hash != hash || e.key != key || shared && !e.shared {
			continue
		}
		if !e.touched.Load() {
			e.touched.Store(true) // not on every hit: the line is shared between processors
		}
		return e.verdict
	}
	return nil
}

// keep stores a verdict unless it is too large, and drops others to make room.
func (c *Cache) keep(e *entry) {
	e.size = entrySize(e.key, e.verdict)
	if e.size > c.limit/maxShare {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(e.hash, e.key, e.shared) != nil {
		return // another goroutine was faster
	}
	c.putLocked(e)
	for c.used > c.limit {
		c.dropLocked(e)
	}
}

// putLocked takes a free slot of the set, or that of an entry not used lately.
func (c *Cache) putLocked(e *entry) {
	set := c.set(e.hash)
	victim := -1
	for i := range set {
		old := set[i].entry.Load()
		if old == nil {
			victim = i
			break
		}
		if !old.touched.Swap(false) && victim < 0 {
			victim = i
		}
	}
	if victim < 0 {
		victim = int(e.hash>>32) % ways
	}
	if old := set[victim].entry.Swap(e); old != nil {
		c.used -= old.size
	}
	c.used += e.size
}

// dropLocked moves the hand to the next entry other than e and drops it if it was
// not used since the hand last passed.
func (c *Cache) dropLocked(e *entry) {
	for {
		s := &c.slots[c.hand]
		c.hand = (c.hand + 1) % len(c.slots)
		old := s.entry.Load()
		if old == nil || old == e {
			continue
		}
		if !old.touched.Swap(false) {
			s.entry.Store(nil)
			c.used -= old.size
		}
		return
	}
}

// entrySize estimates what an entry takes, in bytes.
func entrySize(key string, v *Verdict) int64 {
	n := int(unsafe.Sizeof(entry{})+unsafe.Sizeof(*v)) + len(key) + len(v.Because) + len(v.BadHint)
	for i := range v.Statements {
		n += v.Statements[i].size()
	}
	return int64(n)
}

// size estimates what a statement takes, in bytes.
func (s *Statement) size() int {
	const ref = int(unsafe.Sizeof(RelRef{}))
	n := int(unsafe.Sizeof(*s)) + len(s.Because) + len(s.baseBecause)
	for _, f := range s.Functions {
		n += ref + len(f.Schema) + len(f.Name)
	}
	for _, r := range s.Relations {
		n += ref + len(r.Schema) + len(r.Name)
	}
	for _, r := range s.Shut {
		n += ref + len(r.Schema) + len(r.Name)
	}
	for _, r := range s.Reads {
		n += ref + len(r.Schema) + len(r.Name)
	}
	for i := range s.Sets {
		n += int(unsafe.Sizeof(s.Sets[i])) + len(s.Sets[i].Name) + len(s.Sets[i].Value)
	}
	if s.Refusal != nil {
		n += int(unsafe.Sizeof(*s.Refusal)) + len(s.Refusal.Message)
	}
	if s.Tx != nil {
		n += int(unsafe.Sizeof(*s.Tx)) + len(s.Tx.Savepoint) + len(s.Tx.Snapshot)
	}
	if s.Cursor != nil {
		n += int(unsafe.Sizeof(*s.Cursor)) + len(s.Cursor.Name)
	}
	if p := s.Prepared; p != nil {
		n += int(unsafe.Sizeof(*p)) + len(p.Name)
		if p.Inner != nil {
			n += p.Inner.size()
		}
	}
	return n
}
