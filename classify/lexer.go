package classify

import "strings"

// token is the kind of a lexical element.
type token uint8

const (
	tokEnd token = iota
	tokSpace
	tokLineComment  // without its newline
	tokBlockComment // nested ones included
	tokIdent        // identifier or keyword
	tokQuoted       // "identifier"
	tokString       // '…'
	tokEscape       // E'…'
	tokBits         // B'…' and X'…'
	tokDollar       // $tag$…$tag$
	tokInteger      // decimal, fits the grammar's ICONST
	tokFloat        // decimal, does not
	tokParam        // $1
	tokPunct        // one byte of anything else
	// tokOdd is what this lexer leaves to the grammar: unterminated quotes, U&
	// strings, hexadecimal numbers, junk after numbers. Where the grammar accepts
	// the text nevertheless, the tokens after it are still right.
	tokOdd
)

// lexer splits a text exactly as PostgreSQL does with standard_conforming_strings
// on, or says tokOdd.
type lexer struct {
	src string
	pos int
}

// next returns the next token and where it starts; it ends at l.pos.
func (l *lexer) next() (t token, start int) {
	start = l.pos
	if start >= len(l.src) {
		return tokEnd, start
	}
	c := l.src[start]
	switch {
	case isSpace(c):
		for start++; start < len(l.src) && isSpace(l.src[start]); start++ {
		}
		l.pos, start = start, l.pos
		return tokSpace, start
	case isIdentStart(c):
		return l.word(), start
	case c >= '0' && c <= '9' || c == '.' && isDigit(l.at(1)):
		return l.number(), start
	case c == '.' && l.at(1) == '.':
		l.pos += 2
		return tokOdd, start
	case c == '\'':
		return l.quoted('\'', false, tokString), start
	case c == '"':
		return l.quoted('"', false, tokQuoted), start
	case c == '-' && l.at(1) == '-':
		if n := strings.IndexAny(l.src[start:], "\r\n"); n >= 0 {
			l.pos += n
		} else {
			l.pos = len(l.src)
		}
		return tokLineComment, start
	case c == '/' && l.at(1) == '*':
		return l.blockComment(), start
	case c == '$':
		return l.dollar(), start
	}
	l.pos++
	if c == 0 {
		return tokOdd, start
	}
	return tokPunct, start
}

// at returns the byte n after the present position, 0 beyond the end.
func (l *lexer) at(n int) byte {
	if l.pos+n < len(l.src) {
		return l.src[l.pos+n]
	}
	return 0
}

// word reads an identifier, or a string with a letter in front.
func (l *lexer) word() token {
	start, end := l.pos, l.pos+1
	for end < len(l.src) && isIdentPart(l.src[end]) {
		end++
	}
	if l.pos = end; end-start != 1 {
		return tokIdent
	}
	switch quote := l.at(0); l.src[start] | 0x20 {
	case 'e':
		if quote == '\'' {
			return l.continued(l.quoted('\'', true, tokEscape), true)
		}
	case 'b', 'x':
		if quote == '\'' {
			return l.continued(l.bits(), false)
		}
	case 'u':
		if q := l.at(1); quote == '&' && (q == '\'' || q == '"') {
			return tokOdd
		}
	}
	return tokIdent
}

// quoted reads up to the closing quote. A doubled quote stands for itself.
func (l *lexer) quoted(quote byte, backslash bool, t token) token {
	for l.pos++; l.pos < len(l.src); l.pos++ {
		switch c := l.src[l.pos]; {
		case c == 0:
			t = tokOdd
		case c == '\\' && backslash:
			l.pos++
			if strings.IndexByte("01234567xXuU", l.at(0)) >= 0 {
				t = tokOdd // the grammar may refuse the character meant
			}
		case c != quote:
		case l.at(1) == quote:
			l.pos++
		default:
			l.pos++
			return t
		}
	}
	l.pos = len(l.src)
	return tokOdd
}

// bits reads a bit string, in which quotes are not doubled.
func (l *lexer) bits() token {
	n := strings.IndexByte(l.src[l.pos+1:], '\'')
	if n < 0 {
		l.pos = len(l.src)
		return tokOdd
	}
	l.pos += n + 2
	return tokBits
}

// continued reads on if the string does so after a line break, by the rules of
// its first part, and calls the whole tokOdd.
func (l *lexer) continued(t token, backslash bool) token {
	ahead := lexer{src: l.src, pos: l.pos}
	broken := false
	for {
		k, start := ahead.gap()
		text := l.src[start:ahead.pos]
		switch k {
		case tokSpace:
			broken = broken || strings.ContainsAny(text, "\r\n")
		case tokLineComment:
		default:
			if !broken || text != "'" {
				return t
			}
			l.pos, t, broken = start, tokOdd, false
			l.quoted('\'', backslash, tokOdd)
			ahead.pos = l.pos
		}
	}
}

// gap returns the next token if it is space or a line comment, otherwise the
// next byte.
func (l *lexer) gap() (t token, start int) {
	if c := l.at(0); isSpace(c) || c == '-' && l.at(1) == '-' {
		return l.next()
	}
	start = l.pos
	l.pos = min(l.pos+1, len(l.src))
	return tokPunct, start
}

// number reads a decimal number.
func (l *lexer) number() token {
	start := l.pos
	l.digits()
	whole := l.src[start:l.pos]
	t := integerToken(whole)
	if l.at(0) == '.' {
		if l.at(1) == '.' {
			return tokOdd
		}
		l.pos++
		l.digits()
		t = tokFloat
	}
	if l.at(0)|0x20 == 'e' {
		n := 1
		if c := l.at(1); c == '+' || c == '-' {
			n = 2
		}
		if !isDigit(l.at(n)) {
			return tokOdd
		}
		l.pos += n
		l.digits()
		t = tokFloat
	}
	if isIdentPart(l.at(0)) {
		return tokOdd // 0x1F, 1_000, or junk
	}
	return t
}

func (l *lexer) digits() {
	for isDigit(l.at(0)) {
		l.pos++
	}
}

// integerToken tells whether the grammar takes the digits as an integer.
func integerToken(digits string) token {
	switch {
	case len(digits) < 10 || len(digits) == 10 && digits <= "2147483647":
		return tokInteger
	case digits[0] == '0':
		return tokOdd
	}
	return tokFloat
}

// dollar reads a parameter or a dollar-quoted string.
func (l *lexer) dollar() token {
	start := l.pos
	l.pos++
	if isDigit(l.at(0)) {
		l.digits()
		if isIdentPart(l.at(0)) {
			return tokOdd
		}
		return tokParam
	}
	if c := l.at(0); isIdentStart(c) {
		for ; l.pos < len(l.src) && l.src[l.pos] != '$' && isIdentPart(l.src[l.pos]); l.pos++ {
		}
	}
	if l.at(0) != '$' {
		l.pos = start + 1
		return tokOdd // a lone dollar sign is an error
	}
	l.pos++
	tag := l.src[start:l.pos]
	n := strings.Index(l.src[l.pos:], tag)
	if n < 0 {
		return tokOdd
	}
	l.pos += n + len(tag)
	return tokDollar
}

// blockComment reads a comment with those nested in it.
func (l *lexer) blockComment() token {
	depth := 0
	for l.pos < len(l.src) {
		switch {
		case l.at(0) == '/' && l.at(1) == '*':
			depth++
			l.pos += 2
		case l.at(0) == '*' && l.at(1) == '/':
			l.pos += 2
			if depth--; depth == 0 {
				return tokBlockComment
			}
		default:
			l.pos++
		}
	}
	return tokOdd
}

// What a byte may be, by value: the lexer spends its time on these questions.
const (
	byteSpace      = 1 << iota
	byteDigit      // 0-9
	byteIdentStart // letters, _ and whatever is not ASCII
	byteIdentPart  // these, digits and $
	bytePlain      // punctuation that is a token by itself, but for the semicolon
)

var byteKinds = func() (kinds [256]uint8) {
	for i := range kinds {
		c := byte(i)
		switch {
		case c == ' ', c == '\t', c == '\n', c == '\f', c == '\r': // not the vertical tab: the grammar refuses it
			kinds[i] = byteSpace
		case c >= '0' && c <= '9':
			kinds[i] = byteDigit | byteIdentPart
		case c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80:
			kinds[i] = byteIdentStart | byteIdentPart
		case c == '$':
			kinds[i] = byteIdentPart
		case c > ' ' && strings.IndexByte(`'"-/.;`, c) < 0:
			kinds[i] = bytePlain
		}
	}
	return kinds
}()

func isSpace(c byte) bool      { return byteKinds[c]&byteSpace != 0 }
func isDigit(c byte) bool      { return byteKinds[c]&byteDigit != 0 }
func isIdentStart(c byte) bool { return byteKinds[c]&byteIdentStart != 0 }
func isIdentPart(c byte) bool  { return byteKinds[c]&byteIdentPart != 0 }

// trimStatement returns the only statement of sql without the semicolons before
// and after it. Semicolons inside are the statement's own (CREATE RULE … DO (…; …)).
func trimStatement(sql string) string {
	l := lexer{src: sql}
	begin, end := -1, len(sql) // end is that of a run of semicolons and comments so far
	for seen, ended := false, false; ; {
		t, start := l.next()
		if t == tokPunct && sql[start] == ';' {
			if !seen {
				begin = -1
			} else if !ended {
				end, ended = start, true
			}
			continue
		}
		switch t {
		case tokEnd:
			return strings.TrimSpace(sql[max(begin, 0):end])
		case tokSpace:
			continue
		case tokLineComment, tokBlockComment:
		default:
			seen = true
			end, ended = len(sql), false
		}
		if begin < 0 {
			begin = start
		}
	}
}
