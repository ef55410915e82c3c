package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Ident maps the names in clients' certificates, or those that the operating system knows them by, to users, as a pg_ident.conf does (PostgreSQL
// docs, "User Name Maps"). It is made by ParseIdent and not changed afterwards.
type Ident struct{ entries []identEntry }

// identEntry is one line.
type identEntry struct {
	name   string // of the map
	system string
	match  *regexp.Regexp // of /expression, in place of system
	user   hbaName
	quoted bool // \1 in the user is no reference
}

// ParseIdent reads maps from text; path is what messages call it.
func ParseIdent(path, text string) (*Ident, error) {
	m := &Ident{}
	err := readLines(path, text, 0, func(_ string, fields [][]token) error {
		if len(fields) != 3 || slices.ContainsFunc(fields, func(f []token) bool { return len(f) != 1 }) {
			return errors.New("a map's name, a name in certificates or of the system's, and a user are wanted")
		}
		e := identEntry{name: fields[0][0].text, system: fields[1][0].text, quoted: fields[2][0].quoted}
		var err error
		if system := fields[1][0]; strings.HasPrefix(system.text, "/") { // quoted, too
			if e.match, err = regexp.Compile(system.text[1:]); err != nil {
				return fmt.Errorf("%s: %w", system.text, err)
			}
		}
		users, err := parseNames(fields[2], "all")
		if err != nil {
			return err
		}
		e.user = users[0]
		if e.refers() && e.match != nil && e.match.NumSubexp() < 1 {
			return fmt.Errorf(`%s has no part in parentheses for \1 to stand for`, e.system)
		}
		m.entries = append(m.entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// ReadIdent reads a file of that format.
func ReadIdent(path string) (*Ident, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ident file: %w", err)
	}
	return ParseIdent(path, string(text))
}

func (m *Ident) has(name string) bool {
	return m != nil && slices.ContainsFunc(m.entries, func(e identEntry) bool { return e.name == name })
}

func (e *identEntry) refers() bool {
	return e.user.keyword == "" && e.user.match == nil && strings.Contains(e.user.name, `\1`)
}

// allows tells whether who is called system elsewhere may be user here.
func (m *Ident) allows(ctx context.Context, name, system, user string, is membership) (bool, error) {
	for i := range m.entries {
		e := &m.entries[i]
		if e.name != name {
			continue
		}
		want := e.user
		if e.match == nil {
			if e.system != system {
				continue
			}
		} else {
			parts := e.match.FindStringSubmatch(system)
			if parts == nil {
				continue
			}
			if e.refers() && !e.quoted {
				want.name = strings.Replace(want.name, `\1`, parts[1], 1)
			}
		}
		switch {
		case want.keyword == "all":
			return true, nil
		case want.member:
			if ok, err := is(ctx, user, want.name); ok || err != nil {
				return ok, err
			}
		case want.fits(user):
			return true, nil
		}
	}
	return false, nil
}
