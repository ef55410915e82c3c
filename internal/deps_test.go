// Package internal holds the test that keeps dependencies pointing one way.
package internal

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/pgdist/pgdist"

// allowed lists what each package may import of ours: cmd -> driver, gateway ->
// internal/engine -> internal/mirror -> health, classify.
var allowed = map[string][]string{
	"classify":          {"classify/", "internal/wide"},
	"internal/wide":     {},
	"health":            {},
	"internal/register": {},
	"internal/crl":      {},
	"internal/mirror":   {"health", "classify", "internal/failpoint", "internal/register", "internal/wide"},
	"internal/engine":   {"health", "classify", "internal/failpoint", "internal/mirror", "internal/crl"},
	"driver":            {"health", "classify", "internal/engine"},
	"gateway":           {"health", "classify", "internal/engine"},
}

func TestDependenciesPointOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", module+"/...").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		rules, ok := allowed[strings.TrimPrefix(pkg, module+"/")]
		if !ok {
			continue
		}
		seen++
		for imp := range strings.FieldsSeq(imports) {
			if ours, is := strings.CutPrefix(imp, module+"/"); is && !permits(rules, ours) {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
	if seen < 5 {
		t.Fatalf("only %d of the packages were found", seen)
	}
}

func permits(rules []string, pkg string) bool {
	for _, r := range rules {
		if pkg == r || (strings.HasSuffix(r, "/") && strings.HasPrefix(pkg, r)) {
			return true
		}
	}
	return false
}
