//go:build unix

package pgtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// template returns a data directory made once by initdb for these programs,
// this account and these arguments. Its rename into place completes it, so a
// killed initdb leaves nothing that would be used.
func template(base, bin string, acc account, args []string) (dir string, err error) {
	version, err := Version(bin)
	if err != nil {
		return "", err
	}
	key := sha256.Sum256([]byte(strings.Join(append([]string{version, bin, fmt.Sprint(acc.uid)}, args...), "\x00")))
	dir = filepath.Join(base, "template-"+hex.EncodeToString(key[:8]))
	lock, _, err := lockFile(dir+".lock", true)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	half := dir + ".half"
	if err := os.RemoveAll(half); err != nil {
		return "", err
	}
	if err := acc.mkdir(half); err != nil {
		return "", err
	}
	full := append([]string{"-D", half, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"}, args...)
	if err := acc.run(half, filepath.Join(bin, "initdb"), full...); err != nil {
		return "", err
	}
	return dir, os.Rename(half, dir)
}

// copyTemplate makes data a copy of the template with a system identifier of
// its own, as separately created servers have.
func copyTemplate(tmpl, data string, acc account) error {
	parent := filepath.Dir(data)
	err := acc.run(parent, "/bin/cp", "-a", "--reflink=auto", tmpl, data)
	if err != nil { // a cp that knows no --reflink
		if rerr := os.RemoveAll(data); rerr != nil {
			return rerr
		}
		if err = acc.run(parent, "/bin/cp", "-pR", tmpl, data); err != nil {
			return err
		}
	}
	id := newSystemID()
	return errors.Join(renameSystem(filepath.Join(data, "global", "pg_control"), id), renameLog(filepath.Join(data, "pg_wal"), id))
}

// newSystemID follows initdb: seconds, microseconds and something of the process.
func newSystemID() uint64 {
	now := time.Now()
	return uint64(now.Unix())<<32 | uint64(now.Nanosecond()/1000)<<12 | uint64(sequenceNumber.Add(1))&0xfff
}
