package mirror

import (
	"errors"
	"os"
	"path/filepath"
)

// scratch is a directory of this program's alone, for as long as it is used. What a program
// that was killed left behind (definitions of a database, a socket) is removed by the next one.
type scratch struct {
	dir string
	key *os.File // keeps others from taking it for one that was left behind
}

// scratchNames are what such directories are called.
const scratchNames = "pgdist-copy-"

// newScratch makes one among temporary files.
func newScratch() (*scratch, error) {
	sweep()
	for {
		dir, err := os.MkdirTemp("", scratchNames)
		if err != nil {
			return nil, err
		}
		// Where the file system has no locks nobody else can sweep either.
		if key, free, err := claimDir(dir); free || err != nil {
			return &scratch{dir: dir, key: key}, nil
		}
		// Who swept came between the two, and removes it.
	}
}

func (s *scratch) close() error {
	err := os.RemoveAll(s.dir)
	if s.key != nil {
		err = errors.Join(err, s.key.Close())
	}
	return err
}

// sweep removes directories that nobody uses any more, as far as it may: those of other users,
// say, are theirs.
func sweep() {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), scratchNames+"*"))
	if err != nil {
		return // the name of the directory for temporary files is a bad pattern
	}
	for _, dir := range left {
		if key, free, err := claimDir(dir); err == nil && free && key != nil {
			_ = os.RemoveAll(dir)
			_ = key.Close()
		}
	}
}
