package pgtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Options says how to run a server. The zero value is a durable server with
// one database, "postgres".
type Options struct {
	// Bin is the directory of the server's programs; "" is BinDir's. Servers of one
	// test may be of different versions.
	Bin string
	// Databases are created once the server is up. The first is the one that
	// DSN names by default.
	Databases []string
	// Settings are written to postgresql.conf after pgtest's own and win over them.
	Settings map[string]string
	// FsyncOff trades durability for speed (fsync, synchronous_commit and
	// full_page_writes off), for tests that never crash a server.
	FsyncOff bool
	// InitArgs are further arguments of initdb, such as "--locale=C.UTF-8".
	// By default the encoding is UTF8 and the locale C.
	InitArgs []string
	// Trouble makes Server.Trouble work: clocks that are wrong, disks that are full or
	// broken. Linux only; it needs a C compiler.
	Trouble bool
	// Port is a fixed TCP port on 127.0.0.1; 0 picks a free one.
	Port int
	// StartTimeout bounds every wait for the server to accept queries; 0 is one minute.
	StartTimeout time.Duration
	// Logf gets one line for each thing done to the server; nil discards them.
	Logf func(format string, args ...any)
}

func (o Options) startTimeout() time.Duration {
	if o.StartTimeout <= 0 {
		return time.Minute
	}
	return o.StartTimeout
}

func (o Options) logf(format string, args ...any) {
	if o.Logf != nil {
		o.Logf(format, args...)
	}
}

// conf is the text appended to postgresql.conf for a server on port.
func (o Options) conf(port int) string {
	set := map[string]string{
		"listen_addresses":           "127.0.0.1",
		"port":                       fmt.Sprint(port),
		"unix_socket_directories":    "",
		"dynamic_shared_memory_type": "mmap", // inside the data directory: a crash leaves nothing behind
		"shared_buffers":             "32MB",
		"max_connections":            "200",
		"min_wal_size":               "80MB",
		"max_wal_size":               "256MB",
		"autovacuum":                 "on",
		"restart_after_crash":        "on",
		"logging_collector":          "off",
		"log_destination":            "stderr",
		"log_line_prefix":            "%m [%p] ",
		"log_timezone":               "UTC",
		"timezone":                   "UTC",
		"fsync":                      "on",
	}
	if o.FsyncOff {
		set["fsync"], set["synchronous_commit"], set["full_page_writes"] = "off", "off", "off"
	}
	maps.Copy(set, o.Settings)
	var b strings.Builder
	b.WriteString("\n# pgtest\n")
	for _, name := range slices.Sorted(maps.Keys(set)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(set[name], "'", "''"))
	}
	return b.String()
}
