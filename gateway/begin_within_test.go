package gateway

import (
	"strings"
	"testing"
)

// A BEGIN within a transaction is warned of and sets its modes all the same; what it says READ
// ONLY of writes no more. A call of a function by its number ends what a pipeline before it, without
// a Sync, has begun.
func TestBeginWithin(t *testing.T) {
	t.Parallel()
	r := newRandomRun(t)
	for _, lines := range []string{
		"P |BEGIN|\nB |\nE |1\nP |BEGIN READ ONLY|\nB |\nE |0\nP |INSERT INTO f VALUES (977)|\nB |\nE |0",
		"Q BEGIN\nQ BEGIN READ ONLY\nQ INSERT INTO f VALUES (978)\nQ SHOW transaction_read_only",
		"Q BEGIN\nQ SELECT count(*) FROM f\nQ START TRANSACTION READ ONLY\nQ INSERT INTO f VALUES (978)",
		"Q BEGIN\nQ INSERT INTO f VALUES (978)\nQ BEGIN READ ONLY\nQ INSERT INTO f VALUES (979)\nQ ROLLBACK",
		"Q BEGIN READ ONLY\nQ BEGIN READ WRITE\nQ INSERT INTO f VALUES (978)\nQ ROLLBACK",
		"Q BEGIN READ ONLY\nQ SELECT count(*) FROM f\nQ BEGIN READ WRITE\nQ SHOW transaction_read_only\nQ ROLLBACK",
		"Q BEGIN\nQ BEGIN ISOLATION LEVEL SERIALIZABLE\nQ SHOW transaction_isolation\nQ ROLLBACK",
		"Q BEGIN\nQ SELECT count(*) FROM f\nQ BEGIN ISOLATION LEVEL SERIALIZABLE",
		"Q BEGIN; SELECT 1/0\nQ BEGIN READ ONLY",
		"P x|SELECT count(*), sum(n) FROM f|\nB c|x\n= F\\x00\\x00\\x00\\x04\nQ SELECT count(*) FROM f",
		"P |INSERT INTO f VALUES (980)|\nB |\nE |0\n= F\\x00\\x00\\x00\\x04\nQ SELECT count(*) FROM f",
	} {
		if diff := r.differ(strings.Split(lines, "\n")); diff != "" {
			t.Errorf("%s:\n%s", lines, diff)
		}
	}
}
