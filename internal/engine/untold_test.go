package engine

import (
	"testing"

	"github.com/pgdist/pgdist/classify"
)

// What a write's functions may do untold makes its flush look for it, and no more: were the
// catalog forgotten for it, writes that overlap would never let it be known again, once it has
// been read anew after DDL.
func TestUntold(t *testing.T) {
	s := &Session{e: &Engine{catalog: &catalog{}}}
	update := classify.Parse("UPDATE t SET a = 1")
	l := &Lease{s: s, sit: situation{class: classify.Write}, call: Call{SQL: "UPDATE t SET a = 1", Verdict: update}}
	var tx transaction
	tx.note(update, classify.Write)
	if tx.change.Schema || tx.redefines {
		t.Errorf("an UPDATE: %+v, redefines %t", tx.change, tx.redefines)
	}
	l.noteExplained(&tx) // the catalog is not known
	if !tx.change.Schema || tx.redefines {
		t.Errorf("an UPDATE whose triggers are not known: %+v, redefines %t", tx.change, tx.redefines)
	}
	tx.note(classify.Parse("CREATE INDEX ON t (a)"), classify.DDL)
	if !tx.change.Schema || !tx.redefines {
		t.Errorf("DDL: %+v, redefines %t", tx.change, tx.redefines)
	}
}
