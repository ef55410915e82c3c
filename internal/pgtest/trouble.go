//go:build unix

package pgtest

import (
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// Trouble is what may be wrong with a server's machine while it runs. It is made by a
// library that is loaded into the server, so that no rights are needed, nor a file
// system of its own, and no other server notices anything.
type Trouble struct {
	mu   sync.Mutex // guards what follows
	path string
	now  troubles
}

// troubles are laid out as testdata/trouble.c reads them.
type troubles struct {
	Shift        int64
	Full, Broken int32
}

// ShiftClock has the server's clock be ahead by d, or behind, from now on. The clock
// that does not follow the time of day goes on as it is.
func (t *Trouble) ShiftClock(d time.Duration) error {
	return t.set(func(n *troubles) { n.Shift = int64(d) })
}

// FillDisk has no file of the server grow any more: what is there can be overwritten.
func (t *Trouble) FillDisk(full bool) error { return t.set(func(n *troubles) { n.Full = flag(full) }) }

// BreakDisk has every request fail to bring data to the disk.
func (t *Trouble) BreakDisk(broken bool) error {
	return t.set(func(n *troubles) { n.Broken = flag(broken) })
}

// End makes all well again.
func (t *Trouble) End() error { return t.set(func(n *troubles) { *n = troubles{} }) }

func flag(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

func (t *Trouble) set(change func(*troubles)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.now)
	f, err := os.OpenFile(t.path, os.O_WRONLY, 0)
	if err != nil {
		return opError("make trouble", err)
	}
	return errors.Join(binary.Write(f, binary.NativeEndian, t.now), f.Close())
}

//go:embed testdata/trouble.c
var troubleC []byte

// troubleLibrary returns the compiled library, made once.
func troubleLibrary(base string) (path string, err error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("trouble is made by LD_PRELOAD, on Linux only, not on %s", runtime.GOOS)
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "gcc"
	}
	key := sha256.Sum256(append([]byte(cc+"\x00"), troubleC...))
	path = filepath.Join(base, "trouble-"+hex.EncodeToString(key[:8])+".so")
	lock, _, err := lockFile(path+".lock", true)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	source, half := path+".c", path+".half"
	if err := os.WriteFile(source, troubleC, 0o644); err != nil {
		return "", err
	}
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-O2", "-o", half, source, "-ldl").CombinedOutput(); err != nil {
		return "", &Error{Op: cc, Err: err, Log: string(out)}
	}
	if err := os.Chmod(half, 0o755); err != nil { // whatever the umask: the server's user loads it
		return "", err
	}
	return path, os.Rename(half, path)
}

// prepareTrouble makes the file by which the server hears of its troubles.
func (s *Server) prepareTrouble(base string) error {
	lib, err := troubleLibrary(base)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, "trouble")
	if err := os.WriteFile(path, make([]byte, binary.Size(troubles{})), 0o644); err != nil {
		return err
	}
	s.env = []string{"LD_PRELOAD=" + lib, "PGTEST_TROUBLE=" + path}
	s.trouble = &Trouble{path: path}
	return os.Chmod(path, 0o644)
}

// Trouble is how to make trouble for the server, nil unless Options.Trouble asked for it.
func (s *Server) Trouble() *Trouble { return s.trouble }
