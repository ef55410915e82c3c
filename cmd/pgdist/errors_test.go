package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pgdist/pgdist/internal/mirror"
)

// What a command says around a member's error, what to do next, say, is not lost.
func TestErrorsKeepWhatIsSaidAround(t *testing.T) {
	err := fmt.Errorf("add: %w; run pgdist add again", &mirror.Error{Op: "resync", Host: "db2:5432", Err: errors.New("it\ndoes not answer"), Hint: "start it"})
	if got, want := oneLine(err), "add: resync on db2:5432: it does not answer (start it); run pgdist add again"; got != want {
		t.Errorf("%q instead of %q", got, want)
	}
}
