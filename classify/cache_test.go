package classify

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestCacheSharesVerdicts(t *testing.T) {
	tests := []struct {
		name, a, b string
		shared     bool
	}{
		{"same text", "SET a.b = 'x'", "SET a.b = 'x'", true},
		{"strings", "SELECT * FROM t WHERE b = 'x'", "SELECT * FROM t WHERE b = 'it''s'", true},
		{"numbers", "SELECT * FROM t LIMIT 1", "SELECT * FROM t LIMIT 20", true},
		{"comments", "/* trace 1 */ SELECT 1", "/* trace 2 */ SELECT 1", true},
		{"hint", "/* pgdist: any */ SELECT 1", "/* pgdist: leader */ SELECT 1", false},
		{"names", "SELECT a FROM t", "SELECT b FROM t", false},
		{"quoted names", `SELECT 1 FROM "a"`, `SELECT 1 FROM "b"`, false},
		{"settings", "SET a.b = 'x'", "SET a.b = 'y'", false},
		{"set_config", "SELECT set_config('a.b', 'x', true)", "SELECT set_config('a.b', 'y', true)", false},
		{"set_config like its own key", "SELECT set_config('', '', true)", "SELECT set_config('role', 'x', true)", false},
		{"current_setting", "SELECT current_setting('a.b')", "SELECT current_setting('transaction_read_only')", false},
		{"errors", "SELECT FROM 1", "SELECT FROM 2", false},
		{"kinds of numbers", "SELECT 1", "SELECT 1.5", false},
		{"kinds of literals", "SELECT 'a'", "SELECT 1", false},
		{"several statements", "SELECT 1; SELECT 2", "SELECT 1; SELECT 33", false},
	}
	for _, tt := range tests {
		c := NewCache(0)
		if got := c.Classify(tt.a) == c.Classify(tt.b); got != tt.shared {
			t.Errorf("%s: %q and %q share a verdict: %v, want %v", tt.name, tt.a, tt.b, got, tt.shared)
		}
		misses := c.Stats().Misses
		c.Classify(tt.a)
		c.Classify(tt.b)
		if again := c.Stats().Misses; again != misses {
			t.Errorf("%s: the second time misses %d times", tt.name, again-misses)
		}
	}
}

// TestCacheKeepsItsSize fills a small cache many times over, first with texts so
// short that places run out, then with texts so long that bytes do.
func TestCacheKeepsItsSize(t *testing.T) {
	const limit = 64 << 10
	for _, padding := range []int{0, 1500} {
		c := NewCache(limit)
		for i := range 2000 {
			c.Classify(fmt.Sprintf("SELECT a%d%s FROM t%d", i, strings.Repeat("x", i*padding/2000), i))
			if s := c.Stats(); s.Bytes > limit {
				t.Fatalf("padding %d: after %d texts: %d bytes, more than %d", padding, i+1, s.Bytes, limit)
			}
		}
		s := c.Stats()
		if s.Misses != 2000 {
			t.Errorf("padding %d: %d misses, want 2000", padding, s.Misses)
		}
		if s.Entries < 20 || s.Bytes < limit/2 {
			t.Errorf("padding %d: only %d entries, %d bytes are left", padding, s.Entries, s.Bytes)
		}
		sum := int64(0)
		for i := range c.slots {
			if e := c.slots[i].entry.Load(); e != nil {
				sum += e.size
			}
		}
		if sum != s.Bytes {
			t.Errorf("padding %d: the entries are %d bytes, the account says %d", padding, sum, s.Bytes)
		}
	}
}

// TestCacheKeepsWhatIsUsed asks for one text between all others.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := NewCache(64 << 10)
	c.Classify("SELECT favourite FROM t")
	before := 0
	for i := range 2000 {
		c.Classify(fmt.Sprintf("SELECT a%d FROM t%d", i, i))
		c.Classify("SELECT favourite FROM t")
		before++
	}
	if again := int(c.Stats().Misses) - before - 1; again > before/20 {
		t.Errorf("a text asked for every other time missed %d times of %d", again, before)
	}
}

func TestCacheLeavesOutWhatIsTooLarge(t *testing.T) {
	c := NewCache(64 << 10)
	long := "SELECT " + strings.Repeat("a, ", 5000) + "a"
	if c.Classify(long).Class != Read || c.Classify(long).Class != Read {
		t.Error("not a read")
	}
	if s := c.Stats(); s.Entries != 0 || s.Misses != 2 {
		t.Errorf("%+v, want no entries and two misses", s)
	}
}

func TestCacheIsSafeForConcurrentUse(t *testing.T) {
	c := NewCache(32 << 10)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				n := (i*7 + g) % 100
				want, sql := Read, fmt.Sprintf("SELECT a%d FROM t", n)
				if n%2 == 1 {
					want, sql = Write, fmt.Sprintf("DELETE FROM t%d", n)
				}
				if got := c.Classify(sql).Class; got != want {
					t.Errorf("%s is a %v", sql, got)
				}
			}
		})
	}
	wg.Wait()
}

// TestKnown: what is known is what Classify returns, and asking makes nothing known.
func TestKnown(t *testing.T) {
	c := NewCache(0)
	for _, sql := range []string{"SELECT * FROM t WHERE id = 42", "SET a.b = 'c'", "BEGIN"} {
		for range 2 {
			if v := c.Known(sql); v != nil {
				t.Errorf("%q is known as %v before it was classified", sql, v)
			}
		}
		if v := c.Classify(sql); c.Known(sql) != v {
			t.Errorf("%q: %v is known, and not %v", sql, c.Known(sql), v)
		}
	}
	if v := c.Known("SELECT * FROM t WHERE id = 43"); v == nil || v.Class != Read {
		t.Errorf("the same with another literal is known as %v", v)
	}
	if v := c.Known("SET a.b = 'd'"); v != nil {
		t.Errorf("another value, which matters, is known as %v", v)
	}
	if n := c.Stats().Misses; n != 3 {
		t.Errorf("%d misses", n)
	}
}

func TestHitsAllocateNothing(t *testing.T) {
	c := NewCache(0)
	for _, sql := range []string{
		"BEGIN", "SELECT * FROM t WHERE id = $1", "SELECT * FROM t WHERE id = 42 AND b = 'x' /* trace */", "SET a.b = 'c'",
	} {
		c.Classify(sql)
		if n := testing.AllocsPerRun(100, func() { c.Classify(sql) }); n != 0 {
			t.Errorf("a hit for %q allocates %v times", sql, n)
		}
	}
}
