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
