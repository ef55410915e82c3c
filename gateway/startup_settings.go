package gateway

import (
	"fmt"
	"strings"

	"github.com/pgdist/pgdist/internal/engine"
)

// startSettings are the settings in a start-up message: its parameters, and those
// in its options, which come first.
func startSettings(params map[string]string) ([]engine.Setting, error) {
	list, err := optionSettings(params["options"])
	if err != nil {
		return nil, err
	}
	for name, value := range params {
		switch strings.ToLower(name) {
		case "user", "database", "options", "replication":
			continue
		}
		list = append(list, engine.Setting{Name: name, Value: value})
	}
	return list, nil
}

// optionSettings reads command-line options: words divided by spaces, a backslash
// making the next character an ordinary one; -c name=value, -cname=value and --name=value.
func optionSettings(options string) ([]engine.Setting, error) {
	var list []engine.Setting
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		case strings.HasPrefix(w, "-c") && len(w) > 2:
			w = w[2:]
		default:
			return nil, errStarting("42601", fmt.Sprintf("invalid command-line argument for server process: %s", w))
		}
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, errStarting("42601", fmt.Sprintf("-c %s requires a value", name))
		}
		list = append(list, engine.Setting{Name: strings.ReplaceAll(name, "-", "_"), Value: value})
	}
	return list, nil
}

func splitOptions(s string) (words []string) {
	var word strings.Builder
	in, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped, in = true, true
		case r == ' ' || r >= '\t' && r <= '\r':
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words
}
