package history

import (
	"fmt"
	"slices"
	"strings"
)

// dependency says why one transaction comes before another in any serial order.
type dependency uint8

const (
	ww       dependency = 1 << iota // it wrote what the other wrote over
	wr                              // it wrote what the other read
	rw                              // it read what the other wrote over
	process                         // the same process did both, in this order
	realtime                        // it had ended when the other began
)

func (d dependency) String() string {
	return map[dependency]string{ww: "ww", wr: "wr", rw: "rw", process: "process", realtime: "realtime"}[d]
}

// graph is what is known of the order of transactions, which are numbered from 0.
type graph struct {
	out []map[int]dependency // to whom, for which reasons
}

func newGraph(n int) *graph {
	g := &graph{out: make([]map[int]dependency, n)}
	for i := range g.out {
		g.out[i] = map[int]dependency{}
	}
	return g
}

func (g *graph) add(from, to int, d dependency) {
	if from != to {
		g.out[from][to] |= d
	}
}

// components numbers the strongly connected components of the edges of kinds. Two
// transactions lie on one circle if they have the same number. (Tarjan, without
// recursion: a history may be one long path.)
func (g *graph) components(kinds dependency) []int {
	n := len(g.out)
	comp, low, seen := make([]int, n), make([]int, n), make([]int, n)
	next := make([][]int, n)
	on := make([]bool, n)
	var stack []int
	count, parts := 0, 0
	for root := range n {
		if seen[root] != 0 {
			continue
		}
		path := []int{root}
		for len(path) > 0 {
			v := path[len(path)-1]
			if seen[v] == 0 {
				count++
				seen[v], low[v], on[v] = count, count, true
				stack = append(stack, v)
				for to, d := range g.out[v] {
					if d&kinds != 0 {
						next[v] = append(next[v], to)
					}
				}
			}
			if len(next[v]) > 0 {
				to := next[v][len(next[v])-1]
				next[v] = next[v][:len(next[v])-1]
				if seen[to] == 0 {
					path = append(path, to)
				} else if on[to] {
					low[v] = min(low[v], seen[to])
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				up := path[len(path)-1]
				low[up] = min(low[up], low[v])
			}
			if low[v] == seen[v] {
				for {
					w := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					on[w], comp[w] = false, parts
					if w == v {
						break
					}
				}
				parts++
			}
		}
	}
	return comp
}

// edge is one step of a circle.
type edge struct {
	to  int
	why dependency
}

// path finds a shortest way from one transaction to another within a component.
// plain edges may be used at will; rw edges, if spaced, never twice in a row, nor as
// the first or the last; if loose, at will; else not at all.
func (g *graph) path(from, to int, plain dependency, comp []int, rws rwUse) []edge {
	type state struct {
		at  int
		rwd bool // the last edge was an rw
	}
	type step struct {
		before state
		edge
	}
	begin := state{from, rws == spaced}
	came := map[state]step{begin: {}}
	for queue := []state{begin}; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		if s.at == to && s != begin && !(rws == spaced && s.rwd) {
			var way []edge
			for s != begin {
				way = append(way, came[s].edge)
				s = came[s].before
			}
			slices.Reverse(way)
			return way
		}
		for next, d := range g.out[s.at] {
			if comp[next] != comp[from] {
				continue
			}
			if why := d & plain; why != 0 {
				n := state{next, false}
				if _, been := came[n]; !been {
					came[n] = step{s, edge{next, why & -why}}
					queue = append(queue, n)
				}
			}
			if d&rw != 0 && (rws == loose || rws == spaced && !s.rwd) {
				n := state{next, rws == spaced}
				if _, been := came[n]; !been {
					came[n] = step{s, edge{next, rw}}
					queue = append(queue, n)
				}
			}
		}
	}
	return nil
}

type rwUse int

const (
	none rwUse = iota
	spaced
	loose
)

// circle is a cycle of dependencies: from the first transaction over the edges back
// to it.
type circle struct {
	first int
	edges []edge
}

// circles looks for cycles and names them by the weakest level that forbids them.
func (l *lists) circles() {
	g := l.graph()
	for _, order := range []struct {
		kinds  dependency
		suffix string
	}{{0, ""}, {process, "-process"}, {process | realtime, "-realtime"}} {
		before := len(l.found.list)
		l.cyclesOf(g, order.kinds, order.suffix)
		if len(l.found.list) > before {
			return // what follows contains it
		}
	}
}

// cyclesOf looks for cycles in which the edges of order may have part.
func (l *lists) cyclesOf(g *graph, order dependency, suffix string) {
	report := func(name string, c circle) { l.report(name+suffix, c) }
	writes := g.components(ww | order)
	for _, e := range g.within(writes, ww) {
		if way := g.path(e[1], e[0], ww|order, writes, none); way != nil {
			report("G0", circle{e[0], append([]edge{{e[1], ww}}, way...)})
		}
	}
	flow := g.components(ww | wr | order)
	for _, e := range g.within(flow, wr) {
		if way := g.path(e[1], e[0], ww|wr|order, flow, none); way != nil {
			report("G1c", circle{e[0], append([]edge{{e[1], wr}}, way...)})
		}
	}
	all := g.components(ww | wr | rw | order)
	for _, e := range g.within(all, rw) {
		begin := edge{e[1], rw}
		if way := g.path(e[1], e[0], ww|wr|order, all, none); way != nil {
			report("G-single", circle{e[0], append([]edge{begin}, way...)})
		} else if way := g.path(e[1], e[0], ww|wr|order, all, spaced); way != nil {
			report("G-nonadjacent", circle{e[0], append([]edge{begin}, way...)})
		} else if way := g.path(e[1], e[0], ww|wr|order, all, loose); way != nil {
			report("G2-item", circle{e[0], append([]edge{begin}, way...)})
		}
	}
}

// within lists the edges of a kind that lie within a component.
func (g *graph) within(comp []int, kind dependency) (out [][2]int) {
	for from, edges := range g.out {
		for to, d := range edges {
			if d&kind != 0 && comp[from] == comp[to] {
				out = append(out, [2]int{from, to})
			}
		}
	}
	slices.SortFunc(out, func(a, b [2]int) int { return slices.Compare(a[:], b[:]) })
	return out
}

// report describes a cycle once, whichever of its transactions it was found from.
func (l *lists) report(name string, c circle) {
	ops := []int{l.txns[c.first].from}
	var text strings.Builder
	fmt.Fprintf(&text, "%d", ops[0])
	for _, e := range c.edges {
		at := l.txns[e.to].from
		fmt.Fprintf(&text, " -%v-> %d", e.why, at)
		ops = append(ops, at)
	}
	ops = ops[:len(ops)-1]
	slices.Sort(ops)
	for _, v := range l.found.list {
		if v.Name == name && slices.Equal(v.Ops, ops) {
			return
		}
	}
	l.found.add(name, ops, "a circle: %s", text.String())
}
