package mirror

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// MUTANTS.md lists what `make mutants` breaks, and every test it names is there.
// (Whether they fail takes minutes to find out, and is not asked here.)
func TestMutantsAreListed(t *testing.T) {
	list, err := os.ReadFile("MUTANTS.md")
	if err != nil {
		t.Fatal(err)
	}
	patches, err := filepath.Glob("testdata/mutants/*.patch")
	if err != nil || len(patches) == 0 {
		t.Fatal(patches, err)
	}
	header := regexp.MustCompile(`^Rule: (.+)\nTest: (\w+)\nPackage: (\S+)\n(?:Flags: \S+\n)?\ndiff --git`)
	for _, p := range patches {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		h := header.FindStringSubmatch(string(text))
		if h == nil {
			t.Errorf("%s does not begin with Rule, Test and Package", p)
			continue
		}
		name := strings.TrimSuffix(filepath.Base(p), ".patch")
		if !regexp.MustCompile("(?m)^\\| " + regexp.QuoteMeta(h[1]) + " \\| .* \\| `" + name + "` \\| `" + h[2]).Match(list) {
			t.Errorf("MUTANTS.md lacks %s: %s", name, h[1])
		}
		files, err := filepath.Glob("../../" + h[3] + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range files {
			source, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(source), "\nfunc "+h[2]+"(")
		}
		if !found {
			t.Errorf("%s: %s has no test %s", name, h[3], h[2])
		}
	}
	if rows := strings.Count(string(list), "` |\n"); rows != len(patches) {
		t.Errorf("MUTANTS.md has %d rows for %d patches", rows, len(patches))
	}
}
