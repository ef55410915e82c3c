package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A register in a file serves the programs of one machine, and of those one that has
// clients, and commands beside it. It is replaced as a whole: whoever reads it sees one
// version. What it says of its own inode, time and machine finds out most copies and
// files that were put back; DESIGN.md of internal/mirror says what finds out the others.

// envelope is the content of the file.
type envelope struct {
	About    string          `json:"about"`
	Format   int             `json:"format"`
	Machine  string          `json:"machine"`  // its machine-id
	Inode    uint64          `json:"inode"`    // of this very file
	Written  time.Time       `json:"written"`  // the file's time of modification
	Revision int64           `json:"revision"` // one more with each version
	State    json.RawMessage `json:"state"`
}

const aboutFile = "The register of a set of databases that pgdist mirrors. Never copy it, change it or put it back from a backup: it would forget what it has promised."

// signOf begins the end of the names of signs of life.
const signOf = ".alive-"

type file struct {
	url, path string
	machine   func() (string, error)
	fault     func(step string) error // tests: fails a step

	mu      sync.Mutex
	sound   bool // what can be read is known to be on disk
	held    *os.File
	present map[string]*os.File // signs of life
}

func newFile(url, path string) *file {
	return &file{url: url, path: path, machine: machineID, fault: func(string) error { return nil }, present: map[string]*os.File{}}
}

func (f *file) fail(op string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: %w", ErrMissing, err)
		hint = "it is on the machine that it was made on, and not begun anew by itself; if it is lost, run: pgdist force DSN"
	case errors.Is(err, fs.ErrPermission):
		hint = "run pgdist as the user that owns the file and its directory"
	case errors.Is(err, syscall.EROFS):
		hint = "mount its file system for writing"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "make room on its file system: the set cannot change until then"
	}
	return &Error{Op: op, URL: f.url, Err: err, Hint: hint}
}

func (f *file) load(context.Context) ([]byte, mark, error) {
	e, err := f.read()
	if err != nil {
		return nil, 0, err
	}
	return e.State, mark(e.Revision), nil
}

// read is the file's present content.
func (f *file) read() (*envelope, error) {
	k, err := os.Open(f.path)
	if err != nil {
		return nil, f.fail("read", err)
	}
	defer k.Close() //nolint:errcheck // it was only read
	raw, err := io.ReadAll(k)
	if err != nil {
		return nil, f.fail("read", err)
	}
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, &Error{Op: "read", URL: f.url, Err: fmt.Errorf("%w: %w", ErrDamaged, err), Hint: "if there is no better one, run: pgdist force DSN"}
	}
	if e.Format != Format {
		return nil, &Error{Op: "read", URL: f.url, Err: fmt.Errorf("%w: format %d, this program knows %d", ErrFormat, e.Format, Format), Hint: "use the version of pgdist that has written it"}
	}
	if err := f.original(k, &e); err != nil {
		return nil, err
	}
	return &e, f.settle(k)
}

// original refuses a file that was not written where it is.
func (f *file) original(k *os.File, e *envelope) error {
	info, err := k.Stat()
	if err != nil {
		return f.fail("read", err)
	}
	machine, err := f.machine()
	if err != nil {
		return f.fail("read", err)
	}
	var why string
	switch {
	case e.Machine != machine:
		why = fmt.Sprintf("it was written on the machine %s, and this is %s", e.Machine, machine)
	case e.Inode != inode(info):
		why = fmt.Sprintf("it was written as inode %d, and is %d", e.Inode, inode(info))
	case !e.Written.Equal(info.ModTime()):
		why = fmt.Sprintf("it was written at %v, and changed at %v", e.Written, info.ModTime().UTC())
	default:
		return nil
	}
	return &Error{Op: "read", URL: f.url, Err: fmt.Errorf("%w: %s", ErrCopied, why),
		Hint: "what it has promised since is not known here; use the original, on its machine, and if that is lost run: pgdist force DSN"}
}

// settle makes sure that what was read outlives a crash of the machine: whoever wrote it may
// have been told that it does not, or was killed before.
func (f *file) settle(k *os.File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sound {
		return nil
	}
	if err := f.fault("settle"); err != nil {
		return f.fail("read", err)
	}
	if err := k.Sync(); err != nil {
		return f.fail("read", err)
	}
	if err := syncDir(filepath.Dir(f.path)); err != nil {
		return f.fail("read", err)
	}
	f.sound = true
	return nil
}

func (f *file) swap(ctx context.Context, at mark, value []byte) (bool, error) {
	over, err := f.exclusive(ctx)
	if err != nil {
		return false, err
	}
	defer over()
	e, err := f.read()
	if err != nil {
		return false, err
	}
	if e.Revision != int64(at) {
		return false, nil
	}
	return true, f.write(int64(at)+1, value)
}

func (f *file) create(ctx context.Context, value []byte) error {
	if info, err := os.Stat(filepath.Dir(f.path)); err != nil || !info.IsDir() {
		return &Error{Op: "create", URL: f.url, Err: fmt.Errorf("%s is no directory", filepath.Dir(f.path)), Hint: "make it, for the user that runs pgdist alone"}
	}
	over, err := f.exclusive(ctx)
	if err != nil {
		return err
	}
	defer over()
	if _, err := os.Lstat(f.path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = ErrExists
		}
		return f.fail("create", err)
	}
	return f.write(1, value)
}

// write replaces the file; under the lock.
func (f *file) write(revision int64, value []byte) error {
	fail := func(err error) error { return f.fail("write", err) }
	machine, err := f.machine()
	if err != nil {
		return fail(err)
	}
	k, err := os.OpenFile(f.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fail(err)
	}
	defer k.Close() //nolint:errcheck // it has been synchronised, or is of no use
	info, err := k.Stat()
	if err != nil {
		return fail(err)
	}
	now, err := f.stamp(k)
	if err != nil {
		return fail(err)
	}
	raw, err := json.Marshal(envelope{About: aboutFile, Format: Format, Machine: machine, Inode: inode(info), Written: now, Revision: revision, State: value})
	if err != nil {
		return fail(err)
	}
	if err := f.fault("write"); err != nil {
		return fail(err)
	}
	if _, err := k.Write(append(raw, '\n')); err != nil {
		return fail(err)
	}
	if err := os.Chtimes(k.Name(), now, now); err != nil {
		return fail(err)
	}
	if err := k.Sync(); err != nil {
		return fail(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sound = false
	if err := os.Rename(k.Name(), f.path); err != nil {
		return fail(err)
	}
	if err := f.fault("sync"); err != nil {
		return fail(err)
	}
	if err := syncDir(filepath.Dir(f.path)); err != nil {
		return fail(err)
	}
	f.sound = true
	return nil
}

// stamp is the present time, as finely as the file system keeps it.
func (f *file) stamp(k *os.File) (time.Time, error) {
	now := time.Now()
	if err := os.Chtimes(k.Name(), now, now); err != nil {
		return time.Time{}, err
	}
	info, err := k.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime().UTC(), nil
}

func (f *file) remove(ctx context.Context) error {
	over, err := f.exclusive(ctx)
	if err != nil {
		return err
	}
	defer over()
	err = os.Remove(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.fail("remove", err)
	}
	var errs []error
	for _, end := range []string{".new", ".lock", ".swap"} {
		if err := os.Remove(f.path + end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, f.fail("remove", err))
		}
	}
	signs, err := filepath.Glob(quoteGlob(f.path) + signOf + "*")
	if err != nil {
		errs = append(errs, err)
	}
	for _, name := range signs {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, f.fail("remove", err))
		}
	}
	return errors.Join(append(errs, syncDir(filepath.Dir(f.path)))...)
}

func (f *file) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for id, k := range f.present {
		errs = append(errs, os.Remove(f.path+signOf+id), k.Close())
		delete(f.present, id)
	}
	if f.held != nil {
		errs = append(errs, f.held.Close())
		f.held = nil
	}
	for i, err := range errs {
		if errors.Is(err, fs.ErrNotExist) { // the register was removed
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// machineID tells this machine from others (machine-id(5)); "" where there is none.
func machineID() (string, error) {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		raw, err := os.ReadFile(path)
		if err == nil {
			return strings.TrimSpace(string(raw)), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// quoteGlob has a path mean itself to filepath.Glob.
func quoteGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
