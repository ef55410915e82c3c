package mirror

import (
	"fmt"
	"strings"
	"testing"
)

// A row that does not fit in one message is refused before it is committed: after
// that, every batch would fail on it, and everybody wait.
func TestAttackWideRows(t *testing.T) {
	many := ""
	for i := range 70 {
		many += fmt.Sprintf(", b%d bytea DEFAULT 'x'", i)
	}
	a := trial{schema: `CREATE TABLE w (k int PRIMARY KEY, b bytea, t text, n int DEFAULT 0); CREATE TABLE nk (t text); CREATE TABLE many (k int PRIMARY KEY` + many + `)`}.on(t, ground(t, 2, nil))
	a.steady("too wide", func(a *arena) {
		c := a.client()
		a.refused(c, "54000", "public.w", `INSERT INTO w (k, b) VALUES (1, repeat('x', 510000000)::bytea)`)
		a.refused(c, "54000", "public.w", `INSERT INTO w (k, t) VALUES (1, repeat('"', 260000000))`)
		a.do(c, `INSERT INTO w VALUES (1, 'x', 'y')`)
		a.do(c, `INSERT INTO many VALUES (1)`) // their lengths are added, not multiplied
	})
	if q := a.query(1, `SELECT prosrc FROM pg_proc WHERE proname = 'c_1' AND pronamespace = 'pgdist'::regnamespace`); !strings.Contains(q, "oversize") {
		t.Error("capture does not look at widths:", q)
	}
}
