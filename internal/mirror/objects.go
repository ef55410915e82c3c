package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// object is what is kept of a definition until it is found to differ.
type object struct {
	table  string // the relation it belongs to, "" if none
	digest string
}

// readObjects reads digests of all definitions, by the objects' names.
// floor is the lowest major version of the servers that are compared, 0 if all are of
// the same: what older ones do not have is left out.
func readObjects(ctx context.Context, c *conn, floor int) (map[string]object, error) {
	back, err := pinPath(ctx, c)
	if err != nil {
		return nil, err
	}
	sql, err := objectsFor(c, floor)
	if err != nil {
		return nil, err
	}
	rows, err := c.call(ctx, `SELECT name, tab, md5(def::text) FROM (`+sql+`) o`)
	if err != nil {
		return nil, err
	}
	out := make(map[string]object, len(rows))
	for _, r := range rows {
		if r[0] == nil { // dropped since the snapshot: names are looked up in the present
			return nil, errMoved
		}
		out[string(r[0])] = object{string(r[1]), string(r[2])}
	}
	return out, back()
}

// pinPath makes names be deparsed with their schemas, and returns what restores
// the transaction's search_path.
func pinPath(ctx context.Context, c *conn) (back func() error, err error) {
	path, err := c.one(ctx, `SELECT current_setting('search_path')`)
	if err != nil {
		return nil, err
	}
	set := func(path string) error {
		_, err := c.call(ctx, `SELECT set_config('search_path', $1, true)`, text(path))
		return err
	}
	return func() error { return set(path) }, set("pg_catalog")
}

func objectsFor(c *conn, floor int) (string, error) {
	major, err := strconv.Atoi(serverVersion(c))
	return objectsSQL(major, floor), err
}

// definitions reads whole definitions of the named objects.
func definitions(ctx context.Context, c *conn, floor int, names []string) (map[string]map[string]any, error) {
	back, err := pinPath(ctx, c)
	if err != nil {
		return nil, err
	}
	sql, err := objectsFor(c, floor)
	if err != nil {
		return nil, err
	}
	var list []byte
	for _, n := range names {
		list = appendElement(list, text(n))
	}
	rows, err := c.call(ctx, `SELECT name, def FROM (`+sql+`) o WHERE name = ANY ($1::text[])`, finish(list))
	if err != nil {
		return nil, err
	}
	out := make(map[string]map[string]any, len(rows))
	for _, r := range rows {
		var def map[string]any
		if err := decode(r[1], &def); err != nil {
			return nil, err
		}
		out[string(r[0])] = def
	}
	return out, back()
}

// An objectDiff is an object that differs.
type objectDiff struct {
	name   string
	here   bool // there is one on the leader
	there  bool // there is one on the other member
	attrs  []Attribute
	whole  map[string][2]string // the texts of attrs on both sides, as they are
	digest string               // of both definitions
}

func (d objectDiff) String() string {
	switch {
	case !d.there:
		return d.name + " is missing"
	case !d.here:
		return d.name + " is not on the leader"
	}
	s := make([]string, len(d.attrs))
	for i, a := range d.attrs {
		s[i] = a.String()
	}
	if len(s) == 0 {
		return d.name + " is defined differently"
	}
	return d.name + " is defined differently: " + strings.Join(s, "; ")
}

// diffObjects lists what differs by digest. Of a table that only one side has,
// columns, indexes and so on are not listed besides.
func diffObjects(lead, other map[string]object) []objectDiff {
	relations := func(m map[string]object) map[string]bool {
		out := map[string]bool{}
		for _, o := range m {
			out[o.table] = true
		}
		return out
	}
	leadHas, otherHas := relations(lead), relations(other)
	var out []objectDiff
	for _, name := range slices.Sorted(maps.Keys(lead)) {
		a := lead[name]
		if b, ok := other[name]; ok && a.digest != b.digest {
			out = append(out, objectDiff{name: name, here: true, there: true, digest: a.digest + b.digest})
		} else if !ok && (otherHas[a.table] || a.table == "" || isTable(name, a.table)) {
			out = append(out, objectDiff{name: name, here: true, digest: a.digest})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		b := other[name]
		if _, ok := lead[name]; !ok && (leadHas[b.table] || b.table == "" || isTable(name, b.table)) {
			out = append(out, objectDiff{name: name, there: true, digest: b.digest})
		}
	}
	return out
}

// isTable tells whether the object is the relation itself.
func isTable(name, relation string) bool {
	kind, is := strings.CutSuffix(name, " "+relation)
	return is && slices.Contains([]string{"table", "view", "foreign table", "materialized view", "sequence"}, kind)
}

// maxDefinitions is how many differing definitions are described; the rest are
// only named.
const maxDefinitions = 500

// describe adds to objects which attributes differ, and how.
func describeObjects(ctx context.Context, lead, other *conn, floor int, diffs []objectDiff) error {
	var names []string
	for _, d := range diffs {
		if d.here && d.there && len(names) < maxDefinitions {
			names = append(names, d.name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	a, err := definitions(ctx, lead, floor, names)
	if err != nil {
		return err
	}
	b, err := definitions(ctx, other, floor, names)
	if err != nil {
		return err
	}
	for i := range diffs {
		d := &diffs[i]
		d.attrs = diffAttributes(a[d.name], b[d.name])
		d.whole = make(map[string][2]string, len(d.attrs))
		for _, at := range d.attrs {
			d.whole[at.Name] = [2]string{textOf(a[d.name][at.Name]), textOf(b[d.name][at.Name])}
		}
	}
	return nil
}

// An Attribute of a definition that differs, both sides shortened; nil is none.
type Attribute struct {
	Name   string  `json:"name"`
	Leader *string `json:"leader"`
	Member *string `json:"member"`
}

func (a Attribute) String() string {
	return fmt.Sprintf("%s: %s instead of %s", a.Name, orNone(a.Member), orNone(a.Leader))
}

func orNone(s *string) string {
	if s == nil {
		return "none"
	}
	return *s
}

func diffAttributes(lead, other map[string]any) []Attribute {
	all := maps.Clone(lead)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, other)
	var out []Attribute
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a, b := lead[name], other[name]
		if reflect.DeepEqual(a, b) {
			continue
		}
		if l, m, ok := diffSets(a, b); ok {
			a, b = l, m
		}
		at := Attribute{Name: name, Leader: attributeText(a), Member: attributeText(b)}
		at.Leader, at.Member = shortened(at.Leader, at.Member)
		out = append(out, at)
	}
	return out
}

// diffSets leaves out of two lists what both hold, unless it is their order that
// differs.
func diffSets(a, b any) (x, y any, ok bool) {
	l, isL := a.([]any)
	m, isM := b.([]any)
	if !isL && !isM || !isL && a != nil || !isM && b != nil {
		return nil, nil, false
	}
	without := func(list, taken []any) any {
		var out []any
		for _, v := range list {
			if !slices.ContainsFunc(taken, func(w any) bool { return reflect.DeepEqual(v, w) }) {
				out = append(out, v)
			}
		}
		if out == nil {
			return nil
		}
		return out
	}
	x, y = without(l, m), without(m, l)
	return x, y, x != nil || y != nil
}

// textOf is a text attribute, "" if there is none or it is no text.
func textOf(v any) string {
	s, _ := v.(string)
	return s
}

func attributeText(v any) *string {
	var s string
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		s = v
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = orNone(attributeText(e))
		}
		s = strings.Join(parts, ", ")
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			s = fmt.Sprint(v)
		} else {
			s = string(raw)
		}
	}
	return &s
}
