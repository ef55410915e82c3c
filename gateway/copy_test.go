package gateway

import (
	"context"
	"strings"
	"testing"
)

// A COPY that begins at a server which does not lead any more when the data ends is told that
// once, and that it can be run again.
func TestCopyWhileAnotherTakesTheLead(t *testing.T) {
	s := newSet(t, nil)
	ctx, stop := context.WithTimeout(context.Background(), ages)
	defer stop()
	execute(t, connect(t, s.url("")), "CREATE TABLE copied (id int PRIMARY KEY)")
	m := s.mirror(t)
	for _, how := range []struct{ begin, end string }{
		{"Q COPY copied FROM STDIN\nR", "d 2\\n\nc\nZ 1"},
		{"P |COPY copied FROM STDIN|\nB |\nE |0\nS\nR", "d 2\\n\nc\nS\nZ 1"},
	} {
		w := talk(t, s.addr, nil)
		w.run(how.begin + "\nd 1\\n\nR")
		if _, err := m.Switchover(ctx, s.servers[(s.gateway.leader(t, s)+1)%3].Addr(), ages); err != nil {
			t.Fatal(err)
		}
		said := strings.Join(w.run(how.end), "\n")
		if strings.Contains(said, "25006") || strings.Count(said, "40001") != 1 {
			t.Errorf("it is told\n%s", said)
		}
	}
}
