package classify

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// The grammar here is PostgreSQL 16's. Definitions may be written in words that came later
// (virtual generated columns, WITHOUT OVERLAPS, JSON_TABLE in a view, MERGE … RETURNING in a
// function): what begins like one is taken for one, so that it is announced and shipped. A
// server that does not know it either answers with its own error; what must not be mirrored
// the event triggers refuse. What begins like a query is taken for a write, which it may be.

// newer judges a text that the grammar refuses because of such statements in it; nil: there is
// something else that is not understood.
func newer(sql, because string) *Verdict {
	pieces := split(sql)
	if len(pieces) == 0 {
		return nil
	}
	v := &Verdict{literal: true, Statements: make([]Statement, len(pieces))}
	v.Hint, v.BadHint = leadingHint(sql)
	found := false
	for i, p := range pieces {
		s, text := &v.Statements[i], sql[p[0]:p[1]]
		switch tree, err := pg.Parse(text); {
		case err == nil && len(tree.Stmts) == 1:
			judgeStatement(tree.Stmts[0].Stmt, s)
		case newerDefinition(text, because, s), newerQuery(text, because, s):
			found = true
		default:
			return nil
		}
		if s.Start, s.End = p[0], p[1]; len(pieces) == 1 {
			s.Start, s.End = 0, -1
		}
		if i == 0 || v.Class.Stronger(s.Class) != v.Class {
			v.Class, v.Because = s.Class, s.Because
		}
	}
	if !found {
		return nil
	}
	return v
}

// newerQuery fills in the verdict on what begins like a statement that returns or changes rows.
func newerQuery(sql, because string, st *Statement) bool {
	l := lexer{src: sql}
	words := l.words()
	if len(words) == 0 {
		return false
	}
	tag := strings.ToUpper(words[0])
	switch words[0] {
	case "select", "with", "values", "table":
		tag = "SELECT"
	case "insert", "update", "delete", "merge":
	default:
		return false
	}
	st.newer(Write, tag, "looks like a query in a newer grammar than is known here: "+cutBecause(because))
	return true
}

// newer fills in what is known of a statement that is not understood.
func (st *Statement) newer(c Class, tag, because string) {
	st.Newer, st.Sequences = true, true
	st.Class, st.base, st.Tag = c, c, tag
	st.Because, st.baseBecause = because, because
}

// newerKinds are what definitions in newer words are taken for that are one transaction and of
// which event triggers hear (PostgreSQL docs, "Event Trigger Firing Matrix").
var newerKinds = []string{
	"table", "domain", "view", "materialized view", "function", "procedure", "aggregate", "trigger", "rule", "policy",
	"statistics", "operator", "type", "sequence", "schema", "collation", "publication", "default privileges",
}

// newerDefinition fills in the verdict on a definition that the grammar refuses. It reports
// false for what does not begin like one.
func newerDefinition(sql, because string, st *Statement) bool {
	l := lexer{src: sql}
	words := l.words()
	if len(words) < 2 || words[0] != "create" && words[0] != "alter" {
		return false
	}
	verb := words[0]
	words = words[1:]
	for len(words) > 0 && slices.Contains([]string{"or", "replace", "unlogged", "recursive"}, words[0]) {
		words = words[1:]
	}
	kind := ""
	for n := min(2, len(words)); n > 0 && kind == ""; n-- {
		if k := strings.Join(words[:n], " "); slices.Contains(newerKinds, k) {
			kind = k
		}
	}
	if kind == "" {
		return false
	}
	for { // what is pgdist's own is for the grammar, which knows where names stand
		switch t, start := l.next(); {
		case t == tokEnd:
			st.newer(DDL, strings.ToUpper(verb+" "+kind), "looks like a definition in a newer grammar than is known here: "+cutBecause(because))
			if st.Tag == "ALTER TABLE" {
				st.Relations = alteredTable(sql)
				st.Shut = st.Relations
			}
			return true
		case t == tokIdent && strings.HasPrefix(strings.ToLower(sql[start:l.pos]), ownSchema),
			t == tokQuoted && strings.HasPrefix(sql[start+1:l.pos], ownSchema), t == tokOdd:
			return false
		}
	}
}

// words returns the keywords, or names, that a statement begins with, in lower case, and goes
// back to its beginning.
func (l *lexer) words() (words []string) {
	defer func() { l.pos = 0 }()
	for len(words) < 8 {
		switch t, start := l.next(); t {
		case tokSpace, tokLineComment, tokBlockComment:
		case tokIdent:
			words = append(words, strings.ToLower(l.src[start:l.pos]))
		default:
			return words
		}
	}
	return words
}

// alteredTable is the table of an ALTER TABLE.
func alteredTable(sql string) []RelRef {
	l := lexer{src: sql}
	var r RelRef
	skip := []string{"alter", "table", "if", "exists", "only"}
	for dotted := false; ; {
		t, start := l.next()
		text := l.src[start:l.pos]
		switch {
		case t == tokSpace, t == tokLineComment, t == tokBlockComment:
		case t == tokIdent && r.Name == "" && len(skip) > 0 && slices.Contains(skip, strings.ToLower(text)):
			skip = skip[slices.Index(skip, strings.ToLower(text))+1:]
		case (t == tokIdent || t == tokQuoted) && r.Name == "":
			r.Name = plainName(text)
		case (t == tokIdent || t == tokQuoted) && dotted:
			return []RelRef{{Schema: r.Name, Name: plainName(text)}}
		case t == tokPunct && text == "." && r.Name != "":
			dotted = true
		case r.Name == "":
			return nil
		default:
			return []RelRef{r}
		}
	}
}

// plainName is what an identifier means.
func plainName(s string) string {
	if q, ok := strings.CutPrefix(s, `"`); ok {
		return strings.ReplaceAll(strings.TrimSuffix(q, `"`), `""`, `"`)
	}
	return strings.ToLower(s)
}

// Split divides a text into its statements, without the semicolons and the comments between
// them, as PostgreSQL's scanner does; it need not be able to parse them. It returns nil if
// the text ends within a quotation, a comment or the like.
func Split(sql string) []string {
	var each []string
	for _, p := range split(sql) {
		each = append(each, sql[p[0]:p[1]])
	}
	return each
}

// split divides a text at the semicolons that stand outside of quotes, comments, parentheses
// and BEGIN ATOMIC … END; it returns where the statements begin and end, nothing if that
// cannot be told.
func split(sql string) (pieces [][2]int) {
	l := lexer{src: sql}
	from, to := -1, 0 // from the first token that counts past the last one
	depth, atomic := 0, 0
	before := "" // the last word
	for {
		t, start := l.next()
		if t == tokSpace || t == tokLineComment || t == tokBlockComment {
			continue
		}
		text := sql[start:l.pos]
		word := ""
		switch {
		case t == tokOdd:
			return nil
		case t == tokIdent:
			word = strings.ToLower(text)
			switch {
			case word == "atomic" && before == "begin":
				atomic = 1
			case word == "case" && atomic > 0:
				atomic++
			case word == "end" && atomic > 0:
				atomic--
			}
		case t == tokPunct && (text == "(" || text == "["):
			depth++
		case t == tokPunct && (text == ")" || text == "]"):
			depth--
		}
		before = word
		if t != tokEnd && !(t == tokPunct && text == ";" && depth <= 0 && atomic == 0) {
			if from < 0 {
				from = start
			}
			to = l.pos
			continue
		}
		if from >= 0 {
			pieces = append(pieces, [2]int{from, to})
		}
		if from = -1; t == tokEnd {
			return pieces
		}
	}
}
