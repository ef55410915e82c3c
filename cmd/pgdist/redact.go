package main

import (
	"cmp"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
)

// redactedError replaces the text of an error that may quote a DSN.
type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

func escapeQuery(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

const mask = "***"

// minSecret is the shortest piece that is looked for: shorter ones would take
// harmless text along.
const minSecret = 3

var passwordValue = regexp.MustCompile(`(?i)(?:pass(?:word)?|sslpassword|mirror_password)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&]*)`)

// redact masks in text whatever looks like a password in dsn, which may be as
// malformed as can be: a password with an @ or / in it, not escaped, is the
// commonest reason why a DSN cannot be read.
func redact(text, dsn string) string {
	for _, s := range secrets(dsn) {
		text = strings.ReplaceAll(text, s, mask)
	}
	return text
}

// secrets lists what could be a password in dsn or in parts of it, longest first.
func secrets(dsn string) []string {
	whole := []string{os.Getenv("PGPASSWORD")}
	for _, m := range passwordValue.FindAllStringSubmatch(dsn, -1) {
		whole = append(whole, strings.Trim(m[1], "'"))
	}
	if _, rest, ok := strings.Cut(dsn, "://"); ok {
		if at := strings.LastIndex(rest, "@"); at >= 0 {
			if _, password, ok := strings.Cut(rest[:at], ":"); ok {
				whole = append(whole, password)
			}
		}
	}
	var all []string
	for _, s := range whole {
		all = append(all, s)
		all = append(all, strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(":/@?#&", r) })...)
		if plain, err := url.QueryUnescape(s); err == nil {
			all = append(all, plain)
		}
	}
	all = slices.DeleteFunc(all, func(s string) bool { return len(s) < minSecret })
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return slices.Compact(all)
}
