package classify

import "strings"

// Normalize returns sql fit for a log: every literal is a question mark, comments
// are gone, white space is one space. Whatever cannot be told from a literal with
// certainty is left out, up to the end: "…" stands for it.
func Normalize(sql string) string {
	var b strings.Builder
	l := lexer{src: sql}
	space := false
	for {
		t, start := l.next()
		text := sql[start:l.pos]
		switch t {
		case tokEnd:
			return b.String()
		case tokSpace, tokLineComment, tokBlockComment:
			space = b.Len() > 0
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		switch t {
		case tokOdd:
			b.WriteString("…")
			return b.String()
		case tokString, tokEscape, tokBits, tokDollar:
			b.WriteByte('?')
			// With standard_conforming_strings off this quote was not the end.
			if t == tokString && strings.HasSuffix(text, `\'`) {
				b.WriteString("…")
				return b.String()
			}
		case tokInteger, tokFloat:
			b.WriteByte('?')
		default:
			b.WriteString(text)
		}
	}
}
