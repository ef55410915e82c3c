package classify

import "strings"

// The parser recurses in C, on a stack that Go does not grow: a text that nests
// too deeply would end the process, not the statement. So what could is counted
// beforehand and is Unknown.
const (
	// maxText is the longest text that is parsed, in bytes: a syntax tree takes
	// some hundred times the room of its text.
	maxText = 4 << 20

	// maxChain bounds the tokens that can nest in each other: those since the
	// last comma, on every level of parentheses that is open, and the set
	// operations. A level takes up to 370 bytes of stack (x86-64): this bound is
	// safe on 2 MB, what glibc gives a thread when the limit is "unlimited".
	maxChain = 4_000
)

// nesting counts tokens on one level of parentheses.
type nesting struct {
	chain int // since the last comma
	sets  int // set operations: their operands may hold commas
}

// tooDeep reports whether the text could exhaust the parser's stack.
func tooDeep(sql string) bool {
	if len(sql) <= maxChain {
		return false // every token has a byte
	}
	l := lexer{src: sql}
	levels := make([]nesting, 1, 16)
	total := 0
	for {
		t, start := l.next()
		switch t {
		case tokEnd:
			return false
		case tokSpace, tokLineComment, tokBlockComment:
			continue
		}
		here := &levels[len(levels)-1]
		here.chain++
		total++
		switch text := sql[start:l.pos]; {
		case text == "(" || text == "[":
			levels = append(levels, nesting{})
		case (text == ")" || text == "]") && len(levels) > 1:
			total -= here.chain + here.sets
			levels = levels[:len(levels)-1]
		case text == ",":
			total -= here.chain
			here.chain = 0
		case text == ";" && len(levels) == 1:
			total, *here = 0, nesting{}
		case t == tokIdent && isSetOperation(text):
			here.sets++
			total++
		}
		if total > maxChain {
			return true
		}
	}
}

func isSetOperation(word string) bool {
	return strings.EqualFold(word, "union") || strings.EqualFold(word, "intersect") || strings.EqualFold(word, "except")
}
