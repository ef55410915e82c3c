package engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// sections are groups of the file that are a command's own: the set passes them over.
var sections = []string{"gateway"}

// Section is what a file says in one of its sections.
type Section struct {
	path, name string
	Entries    []SectionEntry
}

// SectionEntry is one key of a section. Groups within it are joined with "_", as
// elsewhere in the file.
type SectionEntry struct {
	Key string
	// Name is the key below Key in a mapping of free names, such as users, and Sub that below
	// it, if there is one.
	Name, Sub string
	// Values are one, or those of a list.
	Values []string
	Line   int
}

// FreeKey is a key that holds a mapping whose own keys are anything; their values are single
// ones, or mappings of keys and single values.
type FreeKey struct {
	Key string
	// List: the key may also hold a list, or a single value.
	List bool
}

// ReadSection reads one section of a YAML file. A file without the section has no entries.
func ReadSection(path, name string, free ...FreeKey) (*Section, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("pgdist: config file: %w", err)
	}
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, fmt.Errorf("pgdist: config file %s: %w", path, err)
	}
	s := &Section{path: path, name: name}
	var errs []error
	for _, doc := range tree.Docs {
		top, _ := pairs(doc.Body) // what is no mapping is readFile's to refuse
		for _, kv := range top {
			if keyOf(kv) == name {
				errs = append(errs, s.read(kv.Value, "", free))
			}
		}
	}
	return s, errors.Join(errs...)
}

func (s *Section) read(node ast.Node, prefix string, free []FreeKey) error {
	list, ok := pairs(node)
	if !ok {
		if _, empty := node.(*ast.NullNode); empty && prefix == "" {
			return nil
		}
		return s.errorAt(lineOf(node), "expected keys and values")
	}
	var errs []error
	for _, kv := range list {
		e := SectionEntry{Key: keyOf(kv), Line: lineOf(kv.Key)}
		if prefix != "" {
			e.Key = prefix + "_" + e.Key
		}
		if i := slices.IndexFunc(free, func(f FreeKey) bool { return f.Key == e.Key }); i >= 0 {
			if _, mapping := pairs(kv.Value); mapping || !free[i].List {
				errs = append(errs, s.readFree(kv, e.Key))
				continue
			}
		}
		if _, nested := pairs(kv.Value); nested {
			errs = append(errs, s.read(kv.Value, e.Key, free))
			continue
		}
		if e.Values, ok = valuesOf(kv.Value); !ok {
			errs = append(errs, s.errorAt(e.Line, "%s must be a single value or a list of them", e.Key))
			continue
		}
		s.Entries = append(s.Entries, e)
	}
	return errors.Join(errs...)
}

// readFree reads a mapping whose keys are names.
func (s *Section) readFree(kv *ast.MappingValueNode, key string) error {
	list, ok := pairs(kv.Value)
	if !ok {
		return s.errorAt(lineOf(kv.Key), "%s must be names and values", key)
	}
	var errs []error
	for _, one := range list {
		name, ok := scalarKey(one)
		if !ok {
			errs = append(errs, s.errorAt(lineOf(one.Key), "%s must be names and values", key))
			continue
		}
		e := SectionEntry{Key: key, Name: name, Line: lineOf(one.Key)}
		if inner, mapping := pairs(one.Value); mapping {
			s.Entries = append(s.Entries, e) // it is there, if by its name only
			errs = append(errs, s.readInner(e, inner))
			continue
		}
		if _, empty := one.Value.(*ast.NullNode); !empty {
			value, ok := scalar(one.Value)
			if !ok {
				errs = append(errs, s.errorAt(e.Line, "%s must be names and single values, or keys and values", key))
				continue
			}
			e.Values = []string{value}
		}
		s.Entries = append(s.Entries, e)
	}
	return errors.Join(errs...)
}

// readInner reads what belongs to one free name.
func (s *Section) readInner(of SectionEntry, list []*ast.MappingValueNode) error {
	var errs []error
	for _, kv := range list {
		value, ok := scalar(kv.Value)
		of.Sub, of.Values, of.Line = keyOf(kv), []string{value}, lineOf(kv.Key)
		if !ok {
			errs = append(errs, s.errorAt(of.Line, "%s of %s %s must be a single value", of.Sub, of.Key, of.Name))
			continue
		}
		s.Entries = append(s.Entries, of)
	}
	return errors.Join(errs...)
}

func scalarKey(kv *ast.MappingValueNode) (string, bool) {
	if n, ok := kv.Key.(ast.Node); ok {
		return scalar(n)
	}
	return "", false
}

func valuesOf(node ast.Node) ([]string, bool) {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		v, ok := scalar(node)
		return []string{v}, ok
	}
	values := []string{}
	for _, n := range list.Values {
		v, ok := scalar(n)
		if !ok {
			return nil, false
		}
		values = append(values, v)
	}
	return values, true
}

func (s *Section) errorAt(line int, format string, args ...any) error {
	return fmt.Errorf("pgdist: config file %s, line %d: %s", s.path, line, fmt.Sprintf(format, args...))
}

// Errorf is an error in an entry.
func (s *Section) Errorf(e SectionEntry, format string, args ...any) error {
	return s.errorAt(e.Line, format, args...)
}

// Unknown is the error for an entry whose key is none of known.
func (s *Section) Unknown(e SectionEntry, known []string) error {
	key, of := e.Key, s.name
	if e.Sub != "" {
		key, of = e.Sub, e.Key+" "+e.Name
	}
	near, _ := nearest(key, known)
	if near == "" {
		return s.errorAt(e.Line, "unknown key %s of %s: the keys are %s", key, of, strings.Join(known, ", "))
	}
	return s.errorAt(e.Line, "unknown key %s of %s: did you mean %s?", key, of, near)
}

// ParseDuration reads durations as all of the configuration has them: 300ms, 2m, or a bare
// number of seconds.
func ParseDuration(v string) (d time.Duration, err error) { return parseDuration(v) }
