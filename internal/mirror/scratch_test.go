//go:build unix

package mirror

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What a copy that was killed left among temporary files is removed by the next one; what another
// one uses is not, nor what a link leads to.
func TestScratchIsSwept(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	killed, err := newScratch()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed.dir, "archive"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := killed.key.Close(); err != nil { // as the kernel does
		t.Fatal(err)
	}
	used, err := newScratch()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(killed.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	precious := filepath.Join(tmp, "precious")
	if err := os.Mkdir(precious, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(tmp, scratchNames+"link")
	if err := os.Symlink(precious, link); err != nil {
		t.Fatal(err)
	}
	last, err := newScratch()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{used.dir, last.dir, precious, link} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []*scratch{used, last} {
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	}
}
