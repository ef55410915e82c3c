package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/pgdist/pgdist/internal/mirror"
)

// How often progress is shown: one line that is written over on a terminal, and
// elsewhere a line now and then, for a log.
const (
	liveProgress   = 200 * time.Millisecond
	loggedProgress = 10 * time.Second
)

// verifyProgress shows how far verify has come.
type verifyProgress struct {
	w     io.Writer
	live  bool
	every time.Duration
	now   func() time.Time

	mu    sync.Mutex
	began time.Time
	shown time.Time
	wide  int // of the line on the terminal
}

func newVerifyProgress(w io.Writer) *verifyProgress {
	p := &verifyProgress{w: w, live: isTerminal(w), every: loggedProgress, now: time.Now, began: time.Now()}
	if p.live {
		p.every = liveProgress
	}
	p.shown = p.began
	return p
}

func (p *verifyProgress) set(g mirror.Progress) {
	p.show(func(took time.Duration) string { return progressLine(g, took) }, false)
}

// show shows a line, if it is time or the last.
func (p *verifyProgress) show(text func(took time.Duration) string, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if now.Sub(p.shown) < p.every && !last {
		return
	}
	p.shown = now
	line := text(now.Sub(p.began))
	if !p.live {
		fmt.Fprintln(p.w, line)
		return
	}
	fmt.Fprintf(p.w, "\r%-*s", p.wide, line)
	p.wide = len(line)
}

// close wipes the line off the terminal.
func (p *verifyProgress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live && p.wide > 0 {
		fmt.Fprintf(p.w, "\r%*s\r", p.wide, "")
	}
}

func progressLine(g mirror.Progress, took time.Duration) string {
	s := fmt.Sprintf("%d of %d tables, %d rows", g.TablesDone, g.Tables, g.Rows)
	if g.Estimated > g.Rows {
		s += fmt.Sprintf(" of about %d (%d%%)", g.Estimated, 100*g.Rows/g.Estimated)
	}
	if sec := took.Seconds(); sec > 0 {
		s += fmt.Sprintf(", %.0f rows per second", float64(g.Rows)/sec)
	}
	return s
}
