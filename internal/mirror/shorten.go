package mirror

import (
	"strings"
	"unicode/utf8"
)

// shown is about how many characters of a value a report shows.
const shown = 80

// shortened cuts two texts that differ down to where they first do.
func shortened(a, b *string) (x, y *string) {
	from := 0
	if a != nil && b != nil {
		n := min(len(*a), len(*b))
		for from < n && (*a)[from] == (*b)[from] {
			from++
		}
		from -= shown / 4 // what stands before it shows where that is
	}
	return cut(a, from), cut(b, from)
}

// cut shows a text from about a byte on, on one line.
func cut(s *string, from int) *string {
	if s == nil {
		return nil
	}
	t := *s
	if utf8.RuneCountInString(t) <= shown {
		from = 0
	}
	head := ""
	if from > 0 {
		for from < len(t) && !utf8.RuneStart(t[from]) {
			from++
		}
		t, head = t[min(from, len(t)):], "…"
	}
	if utf8.RuneCountInString(t) > shown {
		t = string([]rune(t)[:shown]) + "…"
	}
	t = head + strings.NewReplacer("\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(t)
	return &t
}
