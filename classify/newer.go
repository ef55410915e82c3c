package classify

import (
	"regexp"
	"strings"
)

// The grammar here is PostgreSQL 16's. Tables and domains may be defined in words that
// came later (virtual generated columns, WITHOUT OVERLAPS, NOT ENFORCED): what is one
// statement and begins like such a definition is taken for one, so that it is announced
// and shipped. A server that does not know it either answers with its own error; what
// must not be mirrored the event triggers refuse.

const word = `(?:"(?:[^"]|"")+"|[\pL_][\pL\d_$]*)`

var newer = regexp.MustCompile(`(?is)^(?:\s|--[^\n]*\n|/\*[^*]*\*/)*(create|alter)\s+(unlogged\s+)?(table|domain)\s+(?:if\s+(?:not\s+)?exists\s+)?(?:only\s+)?(` + word + `)(?:\s*\.\s*(` + word + `))?[\s(*]`)

// newerDefinition judges what the grammar refuses; nil: it is not such a definition.
func newerDefinition(sql, because string) *Verdict {
	m := newer.FindStringSubmatch(sql)
	if m == nil || strings.Contains(strings.TrimRight(sql, "; \t\r\n"), ";") || m[2] != "" && !strings.EqualFold(m[3], "table") {
		return nil
	}
	v := unknown(sql, because)
	st := &v.Statements[0]
	st.Tag = strings.ToUpper(m[1] + " " + m[3])
	r := RelRef{Name: plainName(m[4])}
	if m[5] != "" {
		r = RelRef{Schema: r.Name, Name: plainName(m[5])}
	}
	if st.Tag == "ALTER TABLE" {
		st.Relations = []RelRef{r}
	}
	if r.Schema == ownSchema || r.Schema == "" && r.Name == ownSchema {
		return nil
	}
	v.Class, st.Class, st.base = DDL, DDL, DDL
	v.Because = "looks like a definition in a newer grammar than is known here: " + v.Because
	st.Because, st.baseBecause = v.Because, v.Because
	return v
}

// plainName is what an identifier means.
func plainName(s string) string {
	if q, ok := strings.CutPrefix(s, `"`); ok {
		return strings.ReplaceAll(strings.TrimSuffix(q, `"`), `""`, `"`)
	}
	return strings.ToLower(s)
}
