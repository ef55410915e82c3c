package classify

import "strings"

const hintPrefix = "pgdist:"

// leadingHint reads the hints in the comments before the first token. The last
// hint counts; bad is the last one that is not understood.
func leadingHint(sql string) (h Hint, bad string) {
	l := lexer{src: sql}
	for {
		t, start := l.next()
		if t == tokSpace {
			continue
		}
		if t != tokLineComment && t != tokBlockComment {
			return h, bad
		}
		word, ok := hintText(sql[start:l.pos])
		switch {
		case !ok:
		case strings.EqualFold(word, "leader"):
			h = HintLeader
		case strings.EqualFold(word, "any"):
			h = HintAny
		default:
			bad = strings.Clone(word)
		}
	}
}

// hintText returns what stands after "pgdist:" in a comment, delimiters included
// in the argument.
func hintText(comment string) (word string, ok bool) {
	body := strings.TrimPrefix(comment, "--")
	if len(body) == len(comment) {
		body = strings.TrimSuffix(strings.TrimPrefix(comment, "/*"), "*/")
	}
	body = strings.TrimSpace(body)
	if len(body) < len(hintPrefix) || !strings.EqualFold(body[:len(hintPrefix)], hintPrefix) {
		return "", false
	}
	return strings.TrimSpace(body[len(hintPrefix):]), true
}
