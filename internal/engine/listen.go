package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/classify"
	"github.com/pgdist/pgdist/health"
)

// A session that listens needs no connection for it if its front door hears notifications
// for many of them at once. What is the session's then is PostgreSQL's rule of when LISTEN
// and UNLISTEN hold: from COMMIT on, and never if that does not come, or if a savepoint
// before them is rolled back to (PostgreSQL docs, "LISTEN").

// Listener hears notifications for one session. Its methods are called by whoever uses the
// session; those that wait end with ctx.
type Listener interface {
	// Takes tells whether it can hear a channel for the session. If not, the session
	// listens on a connection of its own.
	Takes(channel string) bool
	// Listen has the leader notify, in addition to what holds, of channels. When it returns
	// nil the leader has confirmed that, and what is committed from then on is kept for the
	// session. It is called before COMMIT is sent.
	Listen(ctx context.Context, channels []string) error
	// Hold says that exactly these channels hold from here on: what is kept of others is
	// not for the session. It does not wait.
	Hold(channels []string)
	// Tell has the client told what is kept for it, before anything else. It does not wait.
	Tell()
	// Mark returns what is closed once all is heard that was committed before the call.
	Mark() <-chan struct{}
	// Own says that what a server process notifies from here on is the session's own doing,
	// until Disown. Neither waits.
	Own(pid uint32)
	Disown(pid uint32)
}

// hearing is what a transaction will listen to if it is committed. It is immutable.
type hearing struct{ channels []string }

// Listens tells LISTEN and UNLISTEN, which a session with a Listener carries out itself.
func Listens(st *classify.Statement) bool {
	return st.Class == classify.LeaderRead && (st.Tag == "LISTEN" || st.Tag == "UNLISTEN")
}

// Special is the function of that name for this session.
func (s *Session) Special(st *classify.Statement) bool {
	return Special(st) || s.listener != nil && !s.whole && Listens(st)
}

// Runs is the function of that name for this session.
func (s *Session) Runs(v *classify.Verdict) bool { return runs(v, s.Special) }

// Channels are those that the session listens to by its Listener, in the order in which it
// began to. The list must not be changed.
func (s *Session) Channels() []string { return s.channels }

// hearingNow is what the session listens to if its transaction is committed now.
func (s *Session) hearingNow() []string {
	if s.tx.hearing != nil {
		return s.tx.hearing.channels
	}
	return s.channels
}

// hears tells whether the Listener has something to do for the session.
func (s *Session) hears() bool { return len(s.channels) > 0 || s.tx.hearing != nil }

// execListen carries out LISTEN or UNLISTEN.
func (s *Session) execListen(ctx context.Context, st *classify.Statement, text string) (string, error) {
	switch {
	case s.listener == nil, s.whole, s.pins&classify.PinListen != 0:
		return s.execHere(ctx, st, text)
	case s.Status() == 'E':
		return "", s.failedTx()
	case st.Tag == "LISTEN" && !s.listener.Takes(st.Channel):
		if len(s.channels) > 0 || len(s.hearingNow()) > 0 {
			return "", s.refused(ctx, errRefused("this channel cannot be listened to besides others: its name, or what is notified, may have another form in the session's encoding",
				"SET client_encoding = 'UTF8', or UNLISTEN * first."))
		}
		return s.execHere(ctx, st, text)
	}
	next := &hearing{after(s.hearingNow(), st)}
	if s.tx.state != txNone {
		s.tx.hearing = next
		return st.Tag, nil
	}
	if len(s.channels) > 0 { // a PostgreSQL client has been told that while it was idle
		if err := s.hearAll(ctx); err != nil {
			return "", err
		}
		s.listener.Tell()
	}
	t := transaction{hearing: next}
	if err := s.listenFirst(ctx, &t); err != nil {
		return "", err
	}
	s.heard(&t, nil)
	return st.Tag, nil
}

// after returns channels as they are after st.
func after(channels []string, st *classify.Statement) []string {
	switch {
	case st.Tag == "LISTEN" && slices.Contains(channels, st.Channel):
		return channels
	case st.Tag == "LISTEN":
		return append(slices.Clip(channels), st.Channel)
	case st.Channel == "":
		return nil
	}
	return slices.DeleteFunc(slices.Clone(channels), func(c string) bool { return c == st.Channel })
}

// listenFirst has the leader notify of what t begins to listen to: before t is committed, so
// that nothing is missed that is committed after it.
func (s *Session) listenFirst(ctx context.Context, t *transaction) error {
	if t.hearing == nil {
		return nil
	}
	var more []string
	for _, c := range t.hearing.channels {
		if !slices.Contains(s.channels, c) {
			more = append(more, c)
		}
	}
	if len(more) == 0 {
		return nil
	}
	if err := s.listener.Listen(ctx, more); err != nil {
		s.listener.Hold(s.channels)
		return err
	}
	return nil
}

// heard follows the end of t, whose COMMIT met err.
func (s *Session) heard(t *transaction, err error) {
	if t.hearing == nil {
		return
	}
	var pe *pgconn.PgError
	switch {
	case err == nil:
		s.channels = t.hearing.channels
	case errors.As(err, &pe) && pe.Code == codeUnknownOutcome: // it may be committed: rather too much than a gap
		for _, c := range t.hearing.channels {
			if !slices.Contains(s.channels, c) {
				s.channels = append(slices.Clip(s.channels), c)
			}
		}
	}
	s.listener.Hold(s.channels)
}

// unlistenAll ends all listening at once.
func (s *Session) unlistenAll() {
	if len(s.channels) > 0 {
		s.channels = nil
		s.listener.Hold(nil)
	}
}

// hearAll waits until all is heard that was committed before.
func (s *Session) hearAll(ctx context.Context) error {
	s.heardAll++
	select {
	case <-s.listener.Mark():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended is called after a COMMIT or ROLLBACK of the client's: what was committed before it is
// told with its answer. heardAll is the session's as it was before.
func (s *Session) ended(ctx context.Context, heardAll uint64) {
	if len(s.channels) > 0 && s.tx.state == txNone && s.heardAll == heardAll {
		_ = s.hearAll(ctx) // the outcome is known; what is not heard yet follows
	}
}

// mark notes that t, whose connection is leased, may notify the session itself: what others
// have notified over that connection came before.
func (s *Session) mark(t *transaction) {
	if s.hears() {
		t.before = s.listener.Mark()
	}
}

// own has what the connection is about to commit for t recognized as the session's own.
func (s *Session) own(ctx context.Context, t *transaction, c *conn) {
	if t.before == nil {
		t.before = s.listener.Mark()
	}
	select {
	case <-t.before:
	case <-ctx.Done():
		return
	}
	s.owned = c.PID()
	s.listener.Own(s.owned)
}

// disown ends that before the connection is anybody else's: the session has then heard all
// that it has notified itself, as a PostgreSQL client has when its COMMIT is answered.
func (s *Session) disown(ctx context.Context) {
	if s.owned == 0 {
		return
	}
	_ = s.hearAll(ctx) // if not, others take what is heard later for the process's own
	s.listener.Disown(s.owned)
	s.owned = 0
}

// DialLeader connects to the leader as the Config's own user, past the pools, for something
// that lasts; it waits for a leader to be chosen if need be, up to Config.FailoverTimeout. The
// view is the one by which the leader was found. params are added to the start-up message.
func (e *Engine) DialLeader(ctx context.Context, params map[string]string) (ServerConn, *health.View, error) {
	pat := e.newPatience()
	for {
		r := e.route()
		var cause error
		if r.leader != nil {
			c, err := e.dialOnce(ctx, r.leader, params)
			if err == nil {
				return c, r.view, nil
			}
			if ctx.Err() != nil || !e.worthRetrying(err) {
				return nil, nil, err
			}
			e.report(r.leader, 0, err)
			cause = err
		}
		if err := pat.wait(ctx, e.mirror, r.view.Epoch, cause); err != nil {
			return nil, nil, err
		}
	}
}

func (e *Engine) dialOnce(ctx context.Context, m *member, params map[string]string) (ServerConn, error) {
	dial := func(ctx context.Context, config *pgx.ConnConfig) (ServerConn, error) {
		for name, value := range params {
			config.RuntimeParams[name] = value
		}
		return e.config.Dial(ctx, config)
	}
	c, err := dialFor(ctx, dial, m, m.config, readWrite)
	if err != nil {
		return nil, fmt.Errorf("pgdist: connecting to listen: %w", err)
	}
	return c.ServerConn, nil
}
