package main

import (
	"context"
	"strings"
	"testing"
)

// TestQuick runs the clients of PostgreSQL's own package; make clients runs them all.
func TestQuick(t *testing.T) {
	f, err := open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, p := range programs {
		if !p.quick {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			if why := p.missing(); why != "" {
				t.Fatal(why)
			}
			if diff, _ := f.compare(t.Context(), p); diff != "" {
				t.Errorf("the gateway (+) and a plain server (-):\n%s", strings.ReplaceAll(diff, "\u00a0", " "))
			}
		})
	}
}
