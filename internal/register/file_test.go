package register

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inFile begins a register in a file.
func inFile(t *testing.T) (r *Register, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "register.json")
	address, err := FileURL(path)
	if err != nil {
		t.Fatal(err)
	}
	r = open(t, address)
	if err := r.Create(ctx(t), begun); err != nil {
		t.Fatal(err)
	}
	return r, path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A copy of the file, an older state put back in its place, and a file of another machine
// are found out, and nothing is promised by them.
func TestCopiedFile(t *testing.T) {
	back := func(do func(t *testing.T, path, kept string)) func(*testing.T, *Register, string) {
		return func(t *testing.T, r *Register, path string) {
			kept := path + ".kept"
			raw, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(kept, raw, 0o600))
			if given, _, err := r.Promise(ctx(t), 8); !given || err != nil {
				t.Fatal(given, err)
			}
			do(t, path, kept)
		}
	}
	for name, spoil := range map[string]func(*testing.T, *Register, string){
		"put back by a rename": back(func(t *testing.T, path, kept string) { must(t, os.Rename(kept, path)) }),
		"put back by writing":  back(func(t *testing.T, path, kept string) { must(t, exec.Command("cp", kept, path).Run()) }),
		"put back, time and all": back(func(t *testing.T, path, kept string) {
			must(t, exec.Command("cp", "-p", "--remove-destination", kept, path).Run())
		}),
		"edited": func(t *testing.T, _ *Register, path string) {
			raw, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, []byte(strings.Replace(string(raw), `"promised":0`, `"promised":1`, 1)), 0o600))
		},
		"of another machine": func(_ *testing.T, r *Register, _ string) {
			r.s.(*file).machine = func() (string, error) { return "another", nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, path := inFile(t)
			spoil(t, r, path)
			_, _, err := r.Promise(ctx(t), 9)
			if !errors.Is(err, ErrCopied) || !strings.Contains(err.Error(), "pgdist force") {
				t.Errorf("%v instead of %v", err, ErrCopied)
			}
		})
	}
	r, path := inFile(t)
	must(t, os.Remove(path))
	if _, _, err := r.Promise(ctx(t), 9); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "not begun anew") {
		t.Errorf("a file that is gone: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was begun anew: %v", err)
	}
	must(t, os.WriteFile(path, []byte(`{"format": 3}`), 0o600))
	if _, err := r.Look(ctx(t)); !errors.Is(err, ErrFormat) {
		t.Errorf("a file of another format: %v", err)
	}
	must(t, os.WriteFile(path, []byte(`{"form`), 0o600))
	if _, err := r.Look(ctx(t)); !errors.Is(err, ErrDamaged) {
		t.Errorf("half a file: %v", err)
	}
}

// One program has the file; another is told which. A command needs no such right, and who
// has ended keeps nobody out.
func TestFileServesOneProgram(t *testing.T) {
	a, _ := inFile(t)
	b, command := open(t, a.url), open(t, a.url)
	must(t, a.Hold(ctx(t), "gateway at here, process 7"))
	must(t, a.Hold(ctx(t), "gateway at here, process 7"))
	err := b.Hold(ctx(t), "another")
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "it is gateway at here, process 7") {
		t.Errorf("a second program: %v", err)
	}
	if given, _, err := command.Promise(ctx(t), 3); !given || err != nil {
		t.Errorf("a command: %v, %v", given, err)
	}
	must(t, a.Close())
	must(t, b.Hold(ctx(t), "another"))
}

// A disk that fails leaves the register as it was, or as it was to be, and nothing is said to
// be promised that a loss of power could take back.
func TestDiskFails(t *testing.T) {
	r, path := inFile(t)
	f := r.s.(*file)
	broken := ""
	f.fault = func(step string) error {
		if step == broken {
			return &fs.PathError{Op: step, Path: path, Err: syscall.ENOSPC}
		}
		return nil
	}
	broken = "write"
	if given, _, err := r.Promise(ctx(t), 3); given && err == nil || !strings.Contains(err.Error(), "make room") {
		t.Errorf("on a full disk: %v, %v", given, err)
	}
	broken = ""
	if s, err := r.Look(ctx(t)); err != nil || s.Promised != 0 {
		t.Errorf("after a write that failed: %+v, %v", s, err)
	}
	if given, _, err := r.Promise(ctx(t), 4); !given || err != nil {
		t.Fatalf("when there is room again: %v, %v", given, err)
	}
	broken = "sync"
	if _, err := r.Accept(ctx(t), 4, []byte(`{}`)); err == nil {
		t.Error("a view was accepted whose file may be lost")
	}
	// It may be seen, but only once it is known to stay.
	broken = "settle"
	if s, err := r.Look(ctx(t)); err == nil {
		t.Errorf("what may be lost was told: %+v", s)
	}
	broken = ""
	if s, err := r.Look(ctx(t)); err != nil || s.Accepted != 4 {
		t.Errorf("after that: %+v, %v", s, err)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a half written file is left: %v", err)
	}
}

// Who waits for a lock that somebody holds for good gives up in time.
func TestLockIsWaitedForInTime(t *testing.T) {
	r, path := inFile(t)
	k, err := lock(path + ".swap")
	must(t, err)
	defer k.Close() //nolint:errcheck // the test ends
	short, cancel := contextOf(t, 20*time.Millisecond)
	defer cancel()
	if given, _, err := r.Promise(short, 3); given && err == nil || err == nil {
		t.Errorf("under somebody's lock: %v, %v", given, err)
	}
}
