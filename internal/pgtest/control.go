package pgtest

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"sync/atomic"
)

var (
	castagnoli     = crc32.MakeTable(crc32.Castagnoli)
	sequenceNumber atomic.Uint32

	errControl = errors.New("pg_control holds no valid checksum")
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
