package wide

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNarrow(t *testing.T) {
	type inner struct{ A string }
	type outer struct {
		inner
		S    []string
		P, Q *inner
		M    map[string]*inner
		Raw  json.RawMessage
		Any  any
		N    int
		E    [1]string
		Our  string
	}
	every := ""
	for b := range 256 {
		every += string([]byte{byte(b)})
	}
	w := Widen(every)
	p := &inner{w}
	got := outer{inner{w}, []string{w, "plain"}, p, p, map[string]*inner{w: {w}}, json.RawMessage(w), []any{w, 1}, 7, [1]string{w}, "it is …"}
	Narrow(&got)
	q := &inner{every}
	want := outer{inner{every}, []string{every, "plain"}, q, q, map[string]*inner{every: {every}}, json.RawMessage(every), []any{every, 1}, 7, [1]string{every}, "it is …"}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(outer{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if n := Offset(w, len(w)-2); n != 255 {
		t.Errorf("the last begins at %d", n)
	}
}
