package pgtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync/atomic"
)

var (
	castagnoli     = crc32.MakeTable(crc32.Castagnoli)
	sequenceNumber atomic.Uint32

	errControl = errors.New("pg_control holds no valid checksum")
	errLog     = errors.New("it does not begin with a long page header")
)

// renameSystem gives the data directory of a control file another system
// identifier. The identifier is the file's first field in every version, and
// the checksum's place, which is not, is where it fits.
func renameSystem(path string, id uint64) error {
	buf, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	at, err := checksumAt(buf)
	if err != nil {
		return err
	}
	binary.NativeEndian.PutUint64(buf, id)
	binary.NativeEndian.PutUint32(buf[at:], crc32.Checksum(buf[:at], castagnoli))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(buf)
	return errors.Join(err, f.Close())
}

func checksumAt(buf []byte) (int, error) {
	for at := 64; at+4 <= len(buf) && at < 1024; at += 4 {
		if crc32.Checksum(buf[:at], castagnoli) == binary.NativeEndian.Uint32(buf[at:]) {
			return at, nil
		}
	}
	return 0, errControl
}

// The first page of each file of the log has a long header (XLogLongPageHeaderData):
// flags at 2, the system identifier at 24, in all versions.
const (
	logFlags, logSystem = 2, 24
	longHeader          = 0x0002
)

// renameLog gives the files of a log the identifier: it is in the header of each, under
// no checksum.
func renameLog(dir string, id uint64) error {
	files, err := filepath.Glob(filepath.Join(dir, "[0-9A-F]*[0-9A-F]"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s holds no log", dir)
	}
	for _, path := range files {
		if err := renameLogFile(path, id); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func renameLogFile(path string, id uint64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var head [logSystem + 8]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if binary.NativeEndian.Uint16(head[logFlags:])&longHeader == 0 {
		return errors.Join(errLog, f.Close())
	}
	binary.NativeEndian.PutUint64(head[logSystem:], id)
	_, err = f.WriteAt(head[:], 0)
	return errors.Join(err, f.Close())
}
