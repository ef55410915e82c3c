package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// BinDir returns the directory of PostgreSQL's server programs: $PGDIST_PGBIN,
// else the highest version below /usr/lib/postgresql, else where PATH finds
// initdb. The error is ErrNoBinaries when there is none.
func BinDir() (string, error) {
	if dir := os.Getenv("PGDIST_PGBIN"); dir != "" {
		if !hasServer(dir) {
			return "", fmt.Errorf("$PGDIST_PGBIN is %s, which does not hold initdb and postgres: %w", dir, ErrNoBinaries)
		}
		return dir, nil
	}
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	if dir := highest(dirs); dir != "" {
		return dir, nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", ErrNoBinaries
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	if dir := filepath.Dir(path); hasServer(dir) {
		return dir, nil
	}
	return "", ErrNoBinaries
}

// BinDirOf returns the directory of the programs of a major version: in the cache that
// scripts/postgres-versions.sh fills, else where Debian puts them.
func BinDirOf(major int) (string, error) {
	cache := os.Getenv("PGDIST_VERSIONS")
	if cache == "" && os.Geteuid() == 0 {
		cache = "/var/cache/pgdist/postgres"
	} else if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(base, "pgdist", "postgres")
	}
	for _, dir := range []string{filepath.Join(cache, strconv.Itoa(major), "bin"), fmt.Sprintf("/usr/lib/postgresql/%d/bin", major)} {
		if hasServer(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("PostgreSQL %d is not here, run scripts/postgres-versions.sh %d: %w", major, major, ErrNoBinaries)
}

func highest(dirs []string) string {
	best, bestVersion := "", -1.0
	for _, dir := range dirs {
		v, err := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
		if err == nil && v > bestVersion && hasServer(dir) {
			best, bestVersion = dir, v
		}
	}
	return best
}

func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// Version returns what "postgres --version" prints for the programs in dir.
func Version(dir string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return "", opError("postgres --version", err)
	}
	return strings.TrimSpace(string(out)), nil
}
