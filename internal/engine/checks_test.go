package engine

import (
	"strings"
	"testing"
)

func TestCheckSettings(t *testing.T) {
	const dsn = "pgdist://u@h1,h2/db"
	for _, x := range []struct {
		params string
		rate   float64 // as the mirror is told
		copies bool
	}{
		{"", 1000, true},
		{"?check_rate=50&auto_resync=on", 50, true},
		{"?check_rate=off&auto_resync=off", 0, false},
		{"?check_rate=0&auto_resync=FALSE", 0, false},
	} {
		c, err := Parse(dsn + x.params)
		if err != nil {
			t.Fatal(err)
		}
		if m := c.mirror(); m.CheckRate != x.rate || m.AutoResync != x.copies {
			t.Errorf("%s: %v rows a second, copies %v", x.params, m.CheckRate, m.AutoResync)
		}
	}
	for params, want := range map[string]string{"?check_rate=-1": "neither a number of rows above 0 nor off", "?check_rate=much": "check_rate=much", "?check_rate=NaN": "above 0", "?auto_resync=perhaps": "neither on nor off"} {
		if _, err := Parse(dsn + params); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", params, err)
		}
	}
}
