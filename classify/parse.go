package classify

import (
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v5"

	"github.com/pgdist/pgdist/internal/wide"
)

// Parse judges a string of statements. It never fails: what the grammar refuses
// is Unknown, with the parser's message as the reason. It costs tens of
// microseconds; see [Cache].
func Parse(sql string) *Verdict {
	if why := unjudged(sql); why != "" {
		return unknown(sql, why)
	}
	if !utf8.ValidString(sql) {
		return parseWide(sql)
	}
	return parse(sql)
}

// parseWide judges a text in another encoding, which the parser's answer could not be told in:
// every encoding that a server has keeps ASCII to itself, and the grammar asks no more.
// (PostgreSQL docs, "Supported Character Sets": those that do not are clients' alone. What
// such a client sends may be misjudged, as what the grammar refuses is.)
func parseWide(sql string) *Verdict {
	text := wide.Widen(sql)
	v := parse(text)
	wide.Narrow(v)
	v.Because = strings.ToValidUTF8(v.Because, "\ufffd")
	for i := range v.Statements {
		st := &v.Statements[i]
		st.Because = strings.ToValidUTF8(st.Because, "\ufffd")
		if st.End >= 0 {
			st.Start, st.End = wide.Offset(text, st.Start), wide.Offset(text, st.End)
		}
	}
	return v
}

func parse(sql string) *Verdict {
	tree, err := pg.Parse(sql)
	if err != nil {
		if v := newer(sql, err.Error()); v != nil {
			return v
		}
		return unknown(sql, err.Error())
	}
	v := &Verdict{Class: Read, Because: "empty query"}
	v.Hint, v.BadHint = leadingHint(sql)
	if len(tree.Stmts) > 0 {
		v.Statements = make([]Statement, len(tree.Stmts))
	}
	for i, raw := range tree.Stmts {
		s := &v.Statements[i]
		v.literal = judgeStatement(raw.Stmt, s) || v.literal
		if len(tree.Stmts) > 1 {
			s.Start, s.End = span(sql, int(raw.StmtLocation), int(raw.StmtLen))
		} else {
			s.End = -1
		}
		if i == 0 || v.Class.Stronger(s.Class) != v.Class {
			v.Class, v.Because = s.Class, s.Because
		}
	}
	return v
}

// unjudged returns why a text is not even parsed, empty if it is.
func unjudged(sql string) string {
	switch {
	case strings.IndexByte(sql, 0) >= 0:
		return "holds a NUL byte"
	case len(sql) > maxText:
		return "is too long to be judged"
	case tooDeep(sql):
		return "is nested too deeply to be judged"
	}
	return ""
}

// maxBecause bounds a parser's message, which may quote the text, in bytes.
const maxBecause = 200

// unknown is the verdict on what was not understood. Nothing is known about its
// effects, so all of them are assumed.
func unknown(sql, because string) *Verdict {
	because = cutBecause(because)
	v := &Verdict{Class: Unknown, Because: because, literal: true}
	v.Hint, v.BadHint = leadingHint(sql)
	v.Statements = []Statement{{Class: Unknown, Because: because, End: -1, Sequences: true, base: Unknown, baseBecause: because}}
	return v
}

func cutBecause(because string) string {
	because = strings.ToValidUTF8(because, "�")
	if len(because) > maxBecause {
		because = strings.ToValidUTF8(because[:maxBecause], "") + "…"
	}
	return because
}

// span is the range of a statement's text, without space around it.
func span(sql string, start, length int) (from, to int) {
	end := start + length
	if length == 0 {
		end = len(sql)
	}
	for start < end && isSpace(sql[start]) {
		start++
	}
	for end > start && isSpace(sql[end-1]) {
		end--
	}
	return start, end
}

// judge collects the verdict on one statement.
type judge struct {
	st      *Statement
	literal bool           // see Verdict.literal
	targets []*pg.RangeVar // already in Relations: not read as well
	exact   []*pg.FuncCall // calls of set_config already in Sets
	names   []*pg.TypeCast // casts that only name something
	inert   bool           // EXPLAIN: what is named is not run
}

// judgeStatement fills in st, and reports whether that depends on literals.
func judgeStatement(n *pg.Node, st *Statement) (literal bool) {
	st.base, st.baseBecause = Read, "only reads"
	j := &judge{st: st}
	j.statement(n)
	j.finish()
	return j.literal
}

// finish derives the class from what was collected.
func (j *judge) finish() {
	st := j.st
	if len(st.Sets) > 0 {
		st.Set = &st.Sets[0]
	}
	if len(st.Functions) > 0 || st.base == DDL {
		st.Sequences = true
	}
	if st.Refusal != nil {
		st.base, st.baseBecause = Refused, st.Refusal.Message
	}
	st.Class, st.Because = st.base, st.baseBecause
	if len(st.Functions) > 0 && Write.Stronger(st.base) != st.base {
		f := st.Functions[0]
		st.Class, st.Because = Write, "calls "+qualified(f.Schema, f.Name)+", which only the catalog can judge"
	}
}

func qualified(schema, name string) string {
	if schema == "" {
		return name
	}
	return schema + "." + name
}

// raise makes the statement's class c, with a reason, unless it is as strong already.
func (j *judge) raise(c Class, because string) {
	if j.st.base.Stronger(c) != j.st.base {
		j.st.base, j.st.baseBecause = c, because
	}
}

// refuse records why the statement cannot be mirrored; the first reason stays.
func (j *judge) refuse(r *Refusal) {
	if r != nil && j.st.Refusal == nil {
		j.st.Refusal = r
	}
}

// tag sets the command tag; the first one stays, for it belongs to the outermost
// statement.
func (j *judge) tag(t string) {
	if j.st.Tag == "" {
		j.st.Tag = t
	}
}
