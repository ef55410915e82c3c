package gateway

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgdist/pgdist/health"
)

// event is something that happened to a set, as this gateway saw it.
type event struct {
	At   time.Time `json:"at"`
	Set  string    `json:"database,omitempty"` // a name that leads to it; "": to the gateway, or to all
	Text string    `json:"text"`
}

// historySize is how many events are kept.
const historySize = 100

// history is the latest events.
type history struct {
	mu   sync.Mutex // guards what follows
	list []event
}

func (h *history) add(set, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.list) >= historySize {
		h.list = slices.Delete(h.list, 0, len(h.list)-historySize+1)
	}
	h.list = append(h.list, event{time.Now(), set, fmt.Sprintf(format, args...)})
}

// latest are the events, the newest first.
func (h *history) latest() []event {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.Clone(h.list)
	slices.Reverse(list)
	return list
}

// follow notes how the view changes.
func (s *Server) follow(src *source) {
	view := src.engine.View()
	s.history.add(src.key, "gateway started: %s leads, epoch %d", hostOf(view, view.Leader), view.Epoch)
	for s.ctx.Err() == nil {
		next, err := src.engine.WaitView(s.ctx, view.Epoch)
		if err != nil {
			if !sleep(s.ctx, time.Second) {
				return
			}
			continue
		}
		old := view
		_ = s.safely("follow", func() error { s.changed(src.key, old, next); return nil }) // it is in the log
		view = next
	}
}

// changed notes the difference between two views of a set.
func (s *Server) changed(set string, old, view *health.View) {
	s.measures.views.Add(1)
	if old.Leader != view.Leader {
		if view.Leader != 0 {
			s.measures.failovers.Add(1)
		}
		s.history.add(set, "%s leads (epoch %d); before: %s", hostOf(view, view.Leader), view.Epoch, hostOf(old, old.Leader))
	}
	for _, m := range view.Members {
		switch was, is := old.Has(m.ID), view.Has(m.ID); {
		case was && !is:
			s.history.add(set, "%s is excluded (epoch %d)", m.Host, view.Epoch)
		case is && !was:
			s.history.add(set, "%s is in sync again (epoch %d)", m.Host, view.Epoch)
		}
	}
}

func hostOf(view *health.View, id health.MemberID) string {
	if m, ok := view.Member(id); ok {
		return m.Host
	}
	return "nobody"
}
