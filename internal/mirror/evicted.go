package mirror

import (
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// evictions remembers whom the mirror made give way, for those who must explain
// it to a client. The zero value is ready.
type evictions struct {
	mu   sync.Mutex
	list map[backend]time.Time
}

type backend struct {
	member health.MemberID
	pid    uint32
}

// rememberEviction is how long: a session that was idle in a transaction learns
// of its end with its next statement, and the server may give its number to
// another meanwhile.
const rememberEviction = 10 * time.Minute

func (e *evictions) add(id health.MemberID, pid uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.list == nil {
		e.list = map[backend]time.Time{}
	}
	for b, at := range e.list {
		if time.Since(at) > rememberEviction {
			delete(e.list, b)
		}
	}
	e.list[backend{id, pid}] = time.Now()
}

func (e *evictions) has(id health.MemberID, pid uint32) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.list[backend{id, pid}]
	return ok && time.Since(at) <= rememberEviction
}
