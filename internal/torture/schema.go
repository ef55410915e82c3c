package torture

import (
	_ "embed"
	"strings"
)

//go:embed schema.sql
var schemaSQL string

// Schema returns the statements that create what the workload needs, in the
// schemas torture and "Torture ""Zoo""", to be run one by one through the
// database under test. They need PostgreSQL 13.
func Schema() []string {
	statements := strings.Split(schemaSQL, "\n--;\n")
	for i := range statements {
		statements[i] = strings.TrimSpace(statements[i])
	}
	return statements
}

// zoo is the table whose names need quoting.
const zoo = `"Torture ""Zoo"""."Wéird ""Täble"" 'x'"`

// bankTotal is what the accounts of the schema sum up to, at every moment.
const bankTotal = 20 * 1000
