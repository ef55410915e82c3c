package engine

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

const defaultPort = "5432"

// cutPort splits "host:port" or "[v6]:port"; a bare IPv6 address and a socket
// directory are hosts without a port.
func cutPort(s string) (host, port string, found bool) {
	if strings.HasPrefix(s, "/") || strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "[") {
		return s, "", false
	}
	if h, p, err := net.SplitHostPort(s); err == nil {
		return h, p, true
	}
	return strings.Trim(s, "[]"), "", false
}

func parsePort(s string) (uint16, error) {
	if s == "" {
		s = defaultPort
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not a number between 1 and 65535", s)
	}
	return uint16(n), nil
}

// withFileParam adds a connection parameter of the file to the DSN text unless
// the DSN itself gives it.
func withFileParam(text, key string, file map[string]string) string {
	if givenInText(text, key) {
		return text
	}
	return with(text, key, file[key])
}

// givenInText tells whether the DSN decides a parameter: whether giving it a
// default beforehand would make no difference. PG* variables do not count.
func givenInText(text, key string) bool {
	switch key {
	case "host":
		return isURL(text) && urlHost(text) != "" || mentions(text, "host")
	case "port":
		return isURL(text) && strings.Contains(urlHost(text), ":") || mentions(text, "port")
	case "user":
		return isURL(text) && strings.Contains(authority(text), "@") || mentions(text, "user")
	case "password":
		return isURL(text) && strings.Contains(userinfo(text), ":") || mentions(text, "password")
	case "database", "dbname":
		return isURL(text) && urlPath(text) != "" || mentions(text, "database") || mentions(text, "dbname")
	}
	return mentions(text, key)
}

// mentions tells whether key= stands in the text as a parameter's name.
func mentions(text, key string) bool {
	for rest := text; ; {
		i := strings.Index(rest, key+"=")
		if i < 0 {
			return false
		}
		if i == 0 || strings.ContainsRune(" \t\n?&", rune(rest[i-1])) {
			return true
		}
		rest = rest[i+len(key):]
	}
}

func authority(text string) string {
	_, rest, _ := strings.Cut(text, "://")
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		end := strings.IndexAny(rest[i:], "/?")
		if end < 0 {
			return rest
		}
		return rest[:i+end]
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		return rest[:i]
	}
	return rest
}

func userinfo(text string) string {
	before, _, found := strings.Cut(authority(text), "@")
	if !found {
		return ""
	}
	return before
}

func urlHost(text string) string {
	a := authority(text)
	if _, after, found := strings.Cut(a, "@"); found {
		return after
	}
	return a
}

func urlPath(text string) string {
	_, rest, _ := strings.Cut(text, "://")
	rest = strings.TrimPrefix(rest, authority(text))
	path, _, _ := strings.Cut(rest, "?")
	return strings.Trim(path, "/")
}
