package gateway

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// token is a word; one in quotes is no keyword.
type token struct {
	text   string
	quoted bool
}

// is tells a keyword.
func (t token) is(keyword string) bool { return !t.quoted && t.text == keyword }

// maxIncludes is how deep files may include each other, as PostgreSQL has it (CONF_FILE_MAX_DEPTH).
const maxIncludes = 10

// readLines calls each with the fields of every line that has any; a field is a list of words
// with commas between them.
func readLines(path, text string, depth int, each func(where string, fields [][]token) error) error {
	if depth > maxIncludes {
		return fmt.Errorf("%s: files include each other more than %d deep", path, maxIncludes)
	}
	var errs []error
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		where := fmt.Sprintf("%s, line %d", path, i+1)
		line := strings.TrimSuffix(lines[i], "\r")
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
			i++
			line = strings.TrimSuffix(line, `\`) + strings.TrimSuffix(lines[i], "\r")
		}
		fields, err := splitLine(path, line, depth)
		if err == nil && len(fields) > 0 {
			if first := fields[0][0]; strings.HasPrefix(first.text, "include") && !first.quoted {
				err = include(path, fields, depth, each)
				if err != nil {
					errs = append(errs, err)
				}
				continue
			}
			err = each(where, fields)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
	}
	return errors.Join(errs...)
}

// include carries out include, include_if_exists and include_dir.
func include(path string, fields [][]token, depth int, each func(string, [][]token) error) error {
	how := fields[0][0].text
	if len(fields) != 2 || len(fields[1]) != 1 || !slices.Contains([]string{"include", "include_if_exists", "include_dir"}, how) {
		return fmt.Errorf("%s: %s wants one name of a file", path, how)
	}
	name := beside(path, fields[1][0].text)
	names := []string{name}
	if how == "include_dir" {
		found, err := filepath.Glob(filepath.Join(name, "[^.]*.conf"))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		names = found // in the order of their names
	}
	var errs []error
	for _, name := range names {
		text, err := os.ReadFile(name)
		switch {
		case err == nil:
			errs = append(errs, readLines(name, string(text), depth+1, each))
		case how != "include_if_exists" || !errors.Is(err, os.ErrNotExist):
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

func beside(path, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(path), name)
}

// splitLine divides a line into fields. @name stands for the words in that file.
func splitLine(path, line string, depth int) (fields [][]token, err error) {
	more := false // a comma came last
	for {
		t, comma, rest, ok, err := nextToken(line)
		if err != nil {
			return nil, err
		}
		if !ok {
			if more {
				return nil, errors.New("a word is missing behind a comma")
			}
			return fields, nil
		}
		words := []token{t}
		if !t.quoted && len(t.text) > 1 && t.text[0] == '@' {
			if words, err = wordsOf(beside(path, t.text[1:]), depth+1); err != nil {
				return nil, err
			}
		}
		if more {
			fields[len(fields)-1] = append(fields[len(fields)-1], words...)
		} else {
			fields = append(fields, words)
		}
		more, line = comma, rest
	}
}

// wordsOf are all words of a file.
func wordsOf(path string, depth int) (words []token, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	err = readLines(path, string(text), depth, func(_ string, fields [][]token) error {
		for _, f := range fields {
			words = append(words, f...)
		}
		return nil
	})
	if err == nil && len(words) == 0 {
		words = []token{{}} // a list of nothing fits nobody
	}
	return words, err
}

// nextToken takes a word off a line; comma tells whether one follows at once.
func nextToken(line string) (t token, comma bool, rest string, ok bool, err error) {
	line = strings.TrimLeft(line, " \t\f\v,")
	if line == "" || line[0] == '#' {
		return t, false, "", false, nil
	}
	var b strings.Builder
	in, i := false, 0
	for ; i < len(line); i++ {
		c := line[i]
		if c == '"' {
			if in && i+1 < len(line) && line[i+1] == '"' {
				b.WriteByte('"')
				i++
				continue
			}
			if b.Len() == 0 && !in {
				t.quoted = true
			}
			in = !in
			continue
		}
		if !in && (c == ' ' || c == '\t' || c == '\f' || c == '\v' || c == ',' || c == '#') {
			break
		}
		b.WriteByte(c)
	}
	if in {
		return t, false, "", false, errors.New("a quote is not closed")
	}
	t.text = b.String()
	return t, i < len(line) && line[i] == ',', line[i:], true, nil
}
