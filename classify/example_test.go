package classify_test

import (
	"fmt"

	"github.com/pgdist/pgdist/classify"
)

func ExampleParse() {
	sql := "SELECT 1; WITH old AS (DELETE FROM jobs RETURNING *) SELECT * FROM old"
	v := classify.Parse(sql)
	fmt.Println(v.Class, "because it", v.Because)
	for _, s := range v.Statements {
		fmt.Printf("%s: %s\n", s.Class, s.Text(sql))
	}
	// Output:
	// write because it changes rows (DELETE inside)
	// read: SELECT 1
	// write: WITH old AS (DELETE FROM jobs RETURNING *) SELECT * FROM old
}

func ExampleParse_refused() {
	v := classify.Parse("PREPARE TRANSACTION 'x'")
	r := v.Statements[0].Refusal
	fmt.Println(v.Class, r.SQLState())
	fmt.Println(r)
	// Output:
	// refused 0A000
	// two-phase commit is not supported: a prepared transaction belongs to one server
}

func ExampleCache_Classify() {
	c := classify.NewCache(1 << 20)
	c.Classify("SELECT * FROM users WHERE name = 'alice' /* request 1 */")
	c.Classify("SELECT * FROM users WHERE name = 'bob' /* request 2 */")
	fmt.Println(c.Stats().Entries, "entry,", c.Stats().Misses, "miss")
	// Output: 1 entry, 1 miss
}

// stable vouches for one function.
type stable string

func (f stable) Volatile(schema, name string) (volatile, known bool) {
	return false, name == string(f)
}

func ExampleVerdict_Resolve() {
	v := classify.Parse("SELECT total(42)")
	fmt.Println(v.Class)
	fmt.Println(v.Resolve(stable("total")))
	// Output:
	// write
	// read
}
