package classify

import (
	"strings"
	"unicode/utf8"
)

// keyWords begin the statements whose literals may be left out of the key.
// Elsewhere literals matter: SET x = 'y', DO '…'.
var keyWords = [...]string{"select", "insert", "update", "delete", "values", "table", "with", "merge"}

// appendKey appends to dst the key of sql: the text with every literal replaced
// by a short one of the same kind and every comment emptied. The key is itself a
// text with the very same tokens otherwise, so that equal keys mean equal
// trees but for the values of literals. ok is false if the text must be its
// own key.
func appendKey(dst []byte, sql string) (key []byte, ok bool) {
	if !startsWithKeyWord(sql) || !utf8.ValidString(sql) || strings.IndexByte(sql, 0) >= 0 {
		return dst, false
	}
	l := lexer{src: sql}
	copied := 0 // how much of sql is in dst already
	ended, skip := false, uint8(byteSpace|bytePlain)
	for {
		for l.pos < len(sql) && byteKinds[sql[l.pos]]&skip != 0 {
			l.pos++
		}
		t, start := l.next()
		switch t {
		case tokSpace:
			continue
		case tokEnd:
			return append(dst, sql[copied:]...), true
		case tokOdd:
			return dst, false
		case tokPunct:
			if sql[start] == ';' {
				ended, skip = true, byteSpace
				continue
			}
		case tokIdent:
			if l.pos-start == 5 && strings.EqualFold(sql[start:l.pos], "float") {
				return dst, false // float(n): the grammar looks at n
			}
		case tokQuoted, tokParam:
		default: // literals and comments
			dst = append(dst, sql[copied:start]...)
			dst = append(dst, placeholder(t, sql[start:l.pos])...)
			copied = l.pos
			if t == tokLineComment || t == tokBlockComment {
				continue
			}
		}
		if ended {
			return dst, false // several statements: their offsets differ
		}
	}
}

// placeholder returns what stands for a literal or a comment in the key.
func placeholder(t token, text string) string {
	switch t {
	case tokString:
		return "''"
	case tokEscape, tokBits:
		return text[:1] + "''"
	case tokDollar:
		return "$$$$"
	case tokInteger:
		return "1"
	case tokFloat:
		if text[0] == '.' {
			return ".1" // "1.0" would join the word before it
		}
		return "1.0"
	}
	if _, isHint := hintText(text); isHint {
		return text
	}
	if t == tokLineComment {
		return "--" // the line break follows as space
	}
	return "/**/"
}

// startsWithKeyWord reports whether the first word, after comments and opening
// parentheses, is one of keyWords.
func startsWithKeyWord(sql string) bool {
	l := lexer{src: sql}
	for {
		t, start := l.next()
		switch {
		case t == tokSpace || t == tokLineComment || t == tokBlockComment:
		case t == tokPunct && sql[start] == '(':
		case t == tokIdent:
			return isKeyWord(sql[start:l.pos])
		default:
			return false
		}
	}
}

func isKeyWord(word string) bool {
	for _, w := range keyWords {
		if len(word) == len(w) && word[0]|0x20 == w[0] && strings.EqualFold(word, w) {
			return true
		}
	}
	return false
}
