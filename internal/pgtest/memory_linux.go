package pgtest

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// memory is a file system that Linux keeps in memory.
const memory = "/dev/shm"

// roomy is how much must be free for one server more: what all those may need that
// test as much at a time.
const roomy = 4 << 30

// roomInMemory tells whether there is room for a server's directory, and memory for it.
func roomInMemory() bool {
	var fs syscall.Statfs_t
	const tmpfs = 0x01021994
	if err := syscall.Statfs(memory, &fs); err != nil || int64(fs.Type) != tmpfs || int64(fs.Bavail)*int64(fs.Bsize) < roomy {
		return false
	}
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(info), "MemAvailable:")
	line, _, _ := strings.Cut(rest, "kB")
	kilobytes, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return err == nil && kilobytes<<10 >= roomy
}
