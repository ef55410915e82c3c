package mirror

// appendElement adds one element to an array literal under construction
// (PostgreSQL docs, "Array Input and Output Syntax"): always quoted, so that no
// text can be taken for NULL or a delimiter.
func appendElement(lit []byte, elem []byte) []byte {
	if len(lit) == 0 {
		lit = append(lit, '{')
	} else {
		lit = append(lit, ',')
	}
	lit = append(lit, '"')
	for _, c := range elem {
		if c == '"' || c == '\\' {
			lit = append(lit, '\\')
		}
		lit = append(lit, c)
	}
	return append(lit, '"')
}

// finish closes an array literal; nothing in it makes NULL.
func finish(lit []byte) []byte {
	if len(lit) == 0 {
		return nil
	}
	return append(lit, '}')
}

// elements splits a one-dimensional array literal into its elements as they
// stand there, quotes and all.
func elements(lit []byte) [][]byte {
	if len(lit) < 2 || lit[0] != '{' {
		return nil
	}
	var out [][]byte
	quoted, start := false, 1
	for i := 1; i < len(lit); i++ {
		switch c := lit[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == '}'):
			if i > start {
				out = append(out, lit[start:i])
			}
			start = i + 1
		}
	}
	return out
}

// appendRaw adds an element as elements gave it.
func appendRaw(lit, elem []byte) []byte {
	if len(lit) == 0 {
		lit = append(lit, '{')
	} else {
		lit = append(lit, ',')
	}
	return append(lit, elem...)
}
