package random

import (
	"fmt"
	"math/rand/v2"
)

// Generator makes statements about what a catalog says there is. What it makes
// depends on its seed and on the catalogs it is given, nothing else.
type Generator struct {
	rng *rand.Rand
	// settled leaves out whatever two servers may answer differently: clocks,
	// random values, rows chosen by their order.
	settled bool
	// alone says that nobody else writes: then also what locks many tables, and
	// what makes others fail, is made often.
	alone bool
	still bool // definitions stay as they are
	cat   *Catalog
	n     int    // names given so far
	own   string // part of the names it gives, so that clients' names differ
	tx    txState
	saved []string // savepoints
	named int      // prepared statements
	roled bool     // SET ROLE is in force
	empty []Name   // tables to put rows into, as soon as the catalog has them
}

// txState is where a session is.
type txState int

const (
	idle txState = iota
	open
	failed
)

func newGenerator(seed, stream int64, settled bool) *Generator {
	return &Generator{rng: rand.New(rand.NewPCG(uint64(seed), uint64(stream))), settled: settled, cat: new(Catalog), own: clientName(stream)}
}

func clientName(stream int64) string {
	if stream == 0 {
		return ""
	}
	return string(rune('a'+stream%26)) + "_"
}

// chance is true once in n times.
func (g *Generator) chance(n int) bool { return g.rng.IntN(n) == 0 }

func one[T any](g *Generator, from []T) T { return from[g.rng.IntN(len(from))] }

// choice is something to make, and how often.
type choice struct {
	weight int
	make   func() []Step
}

// pick makes one of the choices; nil if none had anything to do.
func (g *Generator) pick(choices []choice) []Step {
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	for range 20 {
		at := g.rng.IntN(total)
		for _, c := range choices {
			if at -= c.weight; at < 0 {
				if s := c.make(); len(s) > 0 {
					return s
				}
				break
			}
		}
	}
	return nil
}

// do is the one step that runs a statement.
func do(format string, args ...any) []Step {
	return []Step{{SQL: fmt.Sprintf(format, args...)}}
}

// ask is the one step that runs a query.
func ask(format string, args ...any) []Step {
	return []Step{{SQL: fmt.Sprintf(format, args...), Rows: true}}
}

// Next returns what to send next: usually one step.
func (g *Generator) Next(cat *Catalog, tx txState) []Step {
	g.cat = cat
	if g.tx != idle && tx == idle {
		g.saved = nil
	}
	g.tx = tx
	if tx == failed {
		return g.recover()
	}
	if g.roled && g.chance(4) {
		g.roled = false
		return do("RESET ROLE")
	}
	if s := g.fill(); s != nil {
		return s
	}
	if len(cat.Tables) < 3 {
		return g.createTable()
	}
	define, routine := 16, 4
	switch {
	case g.still:
		define, routine = 0, 2
	case !g.alone:
		define = 4 // many clients wait for each
	}
	return g.pick([]choice{{60, g.write}, {8, g.read}, {9, g.transaction}, {define, g.define}, {5, g.session}, {routine, g.routine}})
}

// fill puts rows into a table that was made.
func (g *Generator) fill() []Step {
	for len(g.empty) > 0 {
		t := g.lookup(g.empty[0])
		g.empty = g.empty[1:]
		if t == nil || len(t.settable()) == 0 {
			continue
		}
		var steps []Step
		for range 3 + g.rng.IntN(5) { // singly, for some are refused
			steps = append(steps, do("%s", g.insertText(t, 1))...)
		}
		return steps
	}
	return nil
}

// recover is what a client does about a transaction that failed.
func (g *Generator) recover() []Step {
	switch {
	case len(g.saved) > 0 && g.chance(2):
		return do("ROLLBACK TO SAVEPOINT %s", quote(one(g, g.saved)))
	case g.chance(6):
		return ask("SELECT 1")
	case g.chance(4):
		return do("COMMIT")
	}
	return do("ROLLBACK")
}

// transaction begins or ends one, or something in it.
func (g *Generator) transaction() []Step {
	if g.tx == idle {
		level := one(g, []string{"", "", " ISOLATION LEVEL READ COMMITTED", " ISOLATION LEVEL REPEATABLE READ", " ISOLATION LEVEL SERIALIZABLE", " ISOLATION LEVEL SERIALIZABLE, READ WRITE", " READ ONLY"})
		return do("BEGIN%s", level)
	}
	switch g.rng.IntN(10) {
	case 0, 1:
		name := one(g, []string{"s", "S 2", "t"})
		g.saved = append(g.saved, name)
		return do("SAVEPOINT %s", quote(name))
	case 2, 3:
		if len(g.saved) > 0 {
			verb := one(g, []string{"ROLLBACK TO", "ROLLBACK TO", "RELEASE"})
			return do("%s %s", verb, quote(one(g, g.saved)))
		}
	case 4:
		return do("ROLLBACK")
	case 5:
		return do("SET CONSTRAINTS ALL %s", one(g, []string{"IMMEDIATE", "DEFERRED"}))
	case 6:
		return do("COMMIT AND CHAIN")
	}
	return do("COMMIT")
}

// names are pieces of names; most need quotes or are somebody's own words.
var names = []string{"t", "t", "t", "T", `Odd "name`, "pgdist_", "user", "$", "Mixed Case", "sp ace ", "journal", "tables", "k", "ünï", "new", `back\slash`, "it's", "c_", "{x}"}

var columnNames = []string{"a", "b", "c", "k", "v", "id", `Odd "col`, "user", "$1", "x y", "ünï", "pgdist_1", "select", "keys", "tab", "r", "t", "new", "old", "val", "Order"}

// name gives a new name for a table or another object.
func (g *Generator) name() string {
	g.n++
	return one(g, names) + g.own + fmt.Sprint(g.n)
}

// schema chooses where something new goes.
func (g *Generator) schema() string {
	if g.chance(4) && len(g.cat.Schemas) > 0 {
		return one(g, g.cat.Schemas)
	}
	return "public"
}

// table chooses one of the given kinds; nil if there is none.
func (g *Generator) table(kinds string) *Table {
	var from []*Table
	for i := range g.cat.Tables {
		for _, k := range kinds {
			if t := &g.cat.Tables[i]; t.Kind == string(k) && len(t.Columns) > 0 {
				from = append(from, t)
			}
		}
	}
	if len(from) == 0 {
		return nil
	}
	return one(g, from)
}

// columns chooses between one and all of the columns, in their order.
func (g *Generator) columns(from []Column) []Column {
	var some []Column
	for _, c := range from {
		if !g.chance(3) {
			some = append(some, c)
		}
	}
	if len(some) == 0 {
		return from
	}
	return some
}

func namesOf(columns []Column) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.Name
	}
	return out
}
