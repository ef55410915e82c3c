package engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/pgdist/pgdist/health"
)

// fileConfig is what a YAML file said. Its keys are those of the DSN, with
// groups of one prefix as a mapping (pool: {size: 8} is pool_size), besides
// members and runtime (settings for the servers).
type fileConfig struct {
	path    string
	own     map[string]string // pgdist's own parameters
	conn    map[string]string // libpq's parameters and settings of the servers
	order   []string          // keys of conn as they stood
	members []fileMember
}

// fileMember is an entry of members.
type fileMember struct {
	line   int
	host   string
	port   string
	weight string
	health map[string]string // by health's own names
}

// connKeys are the libpq and pgx parameters that a file may give.
var connKeys = []string{
	"host", "port", "database", "dbname", "user", "password", "passfile", "service", "servicefile", "options",
	"sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslsni", "sslnegotiation", "sslcertmode",
	"application_name", "connect_timeout", "channel_binding", "require_auth", "krbsrvname", "krbspn",
	"min_protocol_version", "max_protocol_version",
	"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity",
}

var memberKeys = []string{"host", "port", "weight"}

// entry is one scalar of the file, its key made of its parents' with "_".
type entry struct {
	key, value string
	line       int
}

// readFile reads a YAML file. Its errors name the line and, for an unknown
// key, the nearest known one.
func readFile(path string) (*fileConfig, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("pgdist: config file: %w", err)
	}
	return parseFile(path, text)
}

func parseFile(path string, text []byte) (*fileConfig, error) {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, fmt.Errorf("pgdist: config file %s: %w", path, err)
	}
	f := &fileConfig{path: path, own: map[string]string{}, conn: map[string]string{}}
	var errs []error
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		top, ok := pairs(doc.Body)
		if !ok {
			errs = append(errs, f.errorAt(lineOf(doc.Body), "expected keys and values"))
			continue
		}
		for _, kv := range top {
			errs = append(errs, f.readTop(kv))
		}
	}
	return f, errors.Join(errs...)
}

func (f *fileConfig) errorAt(line int, format string, args ...any) error {
	return fmt.Errorf("pgdist: config file %s, line %d: %s", f.path, line, fmt.Sprintf(format, args...))
}

func (f *fileConfig) readTop(kv *ast.MappingValueNode) error {
	key, line := keyOf(kv), lineOf(kv.Key)
	if slices.Contains(sections, key) {
		return nil
	}
	switch key {
	case "members":
		return f.readMembers(kv)
	case "runtime":
		return f.each(kv.Value, "", func(e entry) error { return f.addConn(e) })
	}
	if _, isGroup := pairs(kv.Value); isGroup {
		return f.each(kv.Value, key, f.readScalar)
	}
	value, ok := scalar(kv.Value)
	if !ok {
		return f.errorAt(line, "%s must be a single value", key)
	}
	return f.readScalar(entry{key, value, line})
}

func (f *fileConfig) readScalar(e entry) error {
	if p, ok := findParam(e.key); ok && p.name != "config" {
		f.own[e.key] = e.value
		if p.set != nil {
			if err := p.set(&Config{}, e.value); err != nil {
				return f.errorAt(e.line, "%s: %v", e.key, err)
			}
		}
		return nil
	}
	if slices.Contains(connKeys, e.key) {
		return f.addConn(e)
	}
	near, distance := nearest(e.key, slices.Concat(paramNames(), connKeys, sections, []string{"members", "runtime"}))
	if head, _, nested := strings.Cut(e.key, "_"); nested { // of a section, perhaps
		if section, d := nearest(head, sections); d < min(distance, 3) {
			near = section
		}
	}
	return f.errorAt(e.line, "unknown key %s: did you mean %s?", e.key, near)
}

func (f *fileConfig) addConn(e entry) error {
	if _, twice := f.conn[e.key]; !twice {
		f.order = append(f.order, e.key)
	}
	f.conn[e.key] = e.value
	return nil
}

// each calls visit for every scalar below node, with the joined keys.
func (f *fileConfig) each(node ast.Node, prefix string, visit func(entry) error) error {
	list, ok := pairs(node)
	if !ok {
		return f.errorAt(lineOf(node), "expected keys and values")
	}
	var errs []error
	for _, kv := range list {
		key := keyOf(kv)
		if prefix != "" {
			key = prefix + "_" + key
		}
		if _, nested := pairs(kv.Value); nested {
			errs = append(errs, f.each(kv.Value, key, visit))
			continue
		}
		value, ok := scalar(kv.Value)
		if !ok {
			errs = append(errs, f.errorAt(lineOf(kv.Key), "%s must be a single value", key))
			continue
		}
		errs = append(errs, visit(entry{key, value, lineOf(kv.Key)}))
	}
	return errors.Join(errs...)
}

func (f *fileConfig) readMembers(kv *ast.MappingValueNode) error {
	list, ok := kv.Value.(*ast.SequenceNode)
	if !ok {
		return f.errorAt(lineOf(kv.Key), "members must be a list, each entry with host, port, weight or a breaker setting")
	}
	var errs []error
	for _, node := range list.Values {
		m := fileMember{line: lineOf(node), health: map[string]string{}}
		errs = append(errs, f.each(node, "", func(e entry) error { return f.readMember(&m, e) }))
		if m.host == "" {
			errs = append(errs, f.errorAt(m.line, "this member has no host"))
		}
		f.members = append(f.members, m)
	}
	return errors.Join(errs...)
}

func (f *fileConfig) readMember(m *fileMember, e entry) error {
	switch e.key {
	case "host":
		m.host = e.value
		return nil
	case "port":
		m.port = e.value
		return nil
	case "weight":
		m.weight = e.value
		return nil
	}
	known := slices.Clone(memberKeys)
	for _, name := range health.Params() {
		if e.key == healthParam(name) {
			m.health[name] = e.value
			if err := setHealth(&health.Config{}, name, e.value); err != nil {
				return f.errorAt(e.line, "%v", err)
			}
			return nil
		}
		known = append(known, healthParam(name))
	}
	near, _ := nearest(e.key, known)
	return f.errorAt(e.line, "unknown key %s of a member: did you mean %s?", e.key, near)
}

// pairs returns a mapping's entries; ok tells whether node is one.
func pairs(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.NullNode:
		return "", true
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func keyOf(kv *ast.MappingValueNode) string {
	return strings.TrimSpace(kv.Key.GetToken().Value)
}

func lineOf(node ast.Node) int {
	if t := node.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// addMembers makes the Config's members those of the file.
func (f *fileConfig) addMembers(c *Config, text string) error {
	if list, err := hosts(text); err == nil && len(list) > 1 {
		return f.errorAt(f.members[0].line, "members are listed here and hosts in the DSN: leave one of them out")
	}
	for _, fm := range f.members {
		port := fm.port
		name, inHost, found := cutPort(fm.host)
		if found {
			port = inHost
		}
		n, err := parsePort(port)
		if err != nil {
			return f.errorAt(fm.line, "%v", err)
		}
		m, err := memberConfig(text, name, n)
		if err != nil {
			return f.errorAt(fm.line, "%v", err)
		}
		if err := fm.apply(&m); err != nil {
			return f.errorAt(fm.line, "%v", err)
		}
		c.Members = append(c.Members, m)
	}
	return c.Validate()
}

func (fm fileMember) apply(m *MemberConfig) error {
	if fm.weight != "" {
		one := Config{Members: []MemberConfig{*m}}
		if err := applyWeights(&one, fm.weight); err != nil {
			return err
		}
		*m = one.Members[0]
	}
	for name, value := range fm.health {
		if err := setHealth(&m.Health, name, value); err != nil {
			return err
		}
	}
	return nil
}
