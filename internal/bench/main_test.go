//go:build linux

package main

import (
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	o, err := parseFlags(nil)
	if err != nil || o.reps != 5 || o.seconds != 3 || len(o.only) != len(usual) {
		t.Errorf("the defaults are %+v, %v", o, err)
	}
	for args, want := range map[string]string{
		"--only=reads,nothing": "give one or more of reads,writes,catchup,memory",
		"--seconds=0":          "give at least 0.1 and 1",
		"--reps=0":             "give at least 0.1 and 1",
		"--catchup-rows=10":    "give at least 2000 and 1",
		"--memory-rows=0":      "give at least 2000 and 1",
		"--accidents=0":        "give at least 1 of each",
		"--json=x stray":       "not understood: stray",
	} {
		if _, err := parseFlags(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
