package main

import (
	"os/exec"
	"strings"
)

// program is a client. quick ones need nothing but PostgreSQL's own package.
type program struct {
	name    string
	command []string
	needs   []string // a command that succeeds if what the program needs is there
	quick   bool
	keep    func(lines []string) []string
}

var programs = []program{
	{name: "psql", command: []string{"sh", "psql.sh"}, needs: []string{"psql", "--version"}, quick: true},
	{name: "pgbench", command: []string{"sh", "pgbench.sh"}, needs: []string{"pgbench", "--version"}, quick: true},
	{name: "pg_dump", command: []string{"sh", "pg_dump.sh"}, needs: []string{"pg_dump", "--version"}},
	python("psycopg2", "psycopg2.py", "psycopg2"),
	python("psycopg3", "psycopg3.py", "psycopg"),
	python("asyncpg", "asyncpg.py", "asyncpg"),
	python("sqlalchemy", "sqlalchemy.py", "sqlalchemy"),
	python("django", "django_.py", "django"),
	{name: "perl", command: []string{"perl", "dbi.pl"}, needs: []string{"perl", "-MDBD::Pg", "-e", "1"}},
	{name: "php", command: []string{"php", "pdo.php"}, needs: []string{"php", "-r", "exit(extension_loaded('pdo_pgsql') ? 0 : 1);"}},
	{name: "ruby", command: []string{"ruby", "pg.rb"}, needs: []string{"ruby", "-rpg", "-e", "1"}},
	{name: "jdbc", command: []string{"sh", "jdbc.sh"}, needs: []string{"sh", "-c", "command -v javac && ls /usr/share/java/postgresql.jar"}},
	{name: "node", command: []string{"sh", "node.sh"}, needs: []string{"npm", "--version"}},
	{name: "pgx", command: []string{"sh", "pgx.sh"}, needs: []string{"go", "version"}, keep: verdicts},
}

// python is a program for Debian's interpreter: that has Debian's libraries. -I keeps the
// programs' own names from being taken for the libraries'.
func python(name, file, module string) program {
	return program{name: name, command: []string{"/usr/bin/python3", "-I", file}, needs: []string{"/usr/bin/python3", "-I", "-c", "import " + module}}
}

// missing says what the program needs and is not there.
func (p program) missing() string {
	if err := exec.Command(p.needs[0], p.needs[1:]...).Run(); err != nil {
		return strings.Join(p.needs, " ") + ": " + err.Error()
	}
	return ""
}

// byDesign are tests of pgx's that pgdist does not pass; gateway/DESIGN.md says why. The last one
// asks whether the server is older than 18, and then for keys as that has them.
var byDesign = []string{
	"TestSendBatchHandlesTimeoutBetweenParseAndDescribe", "TestPrepareHandlesTimeoutBetweenParseAndDescribe",
	"TestPrepareWithDigestedNameHandlesTimeoutBetweenParseAndDescribe", "TestConnSimpleProtocolRefusesNonStandardConformingStrings",
	"TestLargeObjects", "TestConnectProtocolVersion32",
}

// verdicts keeps what go test says of each test.
func verdicts(lines []string) []string {
	var kept []string
	for _, line := range lines {
		line = strings.TrimSpace(line)
		rest, ok := strings.CutPrefix(line, "--- FAIL: ")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, " ")
		known := false
		for _, d := range byDesign {
			known = known || strings.HasPrefix(name, d)
		}
		if !known {
			kept = append(kept, "fails: "+name)
		}
	}
	return kept
}
