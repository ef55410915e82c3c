package internal

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A mutant whose patch does not apply any more says nothing about its rule: whoever
// changed the rule's code makes it anew, and sees its test fail (make mutants).
func TestMutantsApply(t *testing.T) {
	patches, err := filepath.Glob("mirror/testdata/mutants/*.patch")
	if err != nil || len(patches) < 30 {
		t.Fatalf("%d patches, %v", len(patches), err)
	}
	table, err := os.ReadFile("mirror/MUTANTS.md")
	if err != nil {
		t.Fatal(err)
	}
	changes := regexp.MustCompile(`(?m)^\+\+\+ b/(\S+)`)
	for _, p := range patches {
		// What git reads go test does not know of, and would take an old result for this one.
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range changes.FindAllSubmatch(text, -1) {
			if _, err := os.ReadFile(filepath.Join("..", string(m[1]))); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
		cmd := exec.Command("git", "apply", "--check", "--recount", filepath.Join("internal", p))
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", p, err, out)
		}
		if name := strings.TrimSuffix(filepath.Base(p), ".patch"); !strings.Contains(string(table), "`"+name+"`") {
			t.Errorf("%s is not in MUTANTS.md", name)
		}
	}
}
