package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgdist/pgdist/classify"
)

// A transaction whose server is lost can be run again unseen if every statement of it
// gives the same result as before: the client, which has decided by these results what
// to send next, would then have sent the same. So the statements are kept, each with a
// digest of what the client got for it.
//
// It is run again only once the attempt before is over for certain: its backend is gone,
// and that it left nothing is as well known as any acknowledged write.

// Replay says whether transactions that are lost with their server are run again.
type Replay string

const (
	// ReplayOff: the client hears 40001. Default.
	ReplayOff Replay = "off"
	// ReplayOn: unseen by the client, if every result is the same.
	ReplayOn Replay = "on"
)

// ReplaySetting is the parameter by which a session says so for itself.
const ReplaySetting = "pgdist.replay"

const defaultReplayLimit = 1 << 20

// Step is what a front door did for one statement, as it can be done again.
type Step interface {
	// Again does it over conn and hands what the server answers to d. A server's own
	// error is part of its answer, and returned as well. context.Canceled tells that the
	// client asked to cancel it, in whatever way.
	Again(ctx context.Context, conn ServerConn, d *Digest) error
}

// ReplayStats count what became of transactions that were lost with their server while
// they were kept.
type ReplayStats struct {
	// Tried were begun anew. Of these, Done went on with the client none the wiser,
	// Differed gave another result, Failed found no leader, or were lost again and again.
	// One that is lost twice counts twice; one whose statement under way differs, after
	// those before it were the same, is in Done and in Differed.
	Tried, Done, Differed, Failed uint64
	// Unfit could not be run again: too large, or bound to their connection.
	Unfit uint64
}

type replayCounts struct{ tried, done, differed, failed, unfit atomic.Uint64 }

// Replays counts transactions that were run again, since the engine was made.
func (e *Engine) Replays() ReplayStats {
	c := &e.replays
	return ReplayStats{Tried: c.tried.Load(), Done: c.done.Load(), Differed: c.differed.Load(), Failed: c.failed.Load(), Unfit: c.unfit.Load()}
}

// journal is what is kept of a transaction. The digest is the session's.
type journal struct {
	digest *Digest
	limit  int
	size   int // bytes kept, about
	steps  []step
	// unfit says why the transaction cannot be run again, "" if it can.
	unfit string
	// begin is the statement that it was begun with on its server, at is where.
	begin string
	at    place
	pins  classify.Pin // of the session when it began
}

type step struct {
	Step
	sum  [32]byte
	text string
}

// stepSize is what a step takes besides the bytes that it refers to, about.
const stepSize = 256

// replayable are the pins that statements make anew which are run again.
const replayable = classify.PinListen | classify.PinPrepared | classify.PinSeed

// newJournal begins to keep a transaction; nil if the session does not want that.
func (s *Session) newJournal() *journal {
	if !s.replays() {
		return nil
	}
	if s.digest == nil {
		s.digest = &Digest{}
	}
	return &journal{digest: s.digest, limit: s.e.config.ReplayLimit, pins: s.pins}
}

// replays tells whether the session's transactions are to be kept.
func (s *Session) replays() bool {
	if s.settings != nil {
		if e, ok := s.settings.entry(ReplaySetting); ok {
			return classify.IsOn(e.value)
		}
	}
	return s.e.config.Replay == ReplayOn
}

// giveUp ends keeping a transaction.
func (j *journal) giveUp(why string) {
	if j == nil || j.unfit != "" {
		return
	}
	j.unfit, j.steps, j.size = why, nil, 0
}

// keeps tells whether statements are to be kept.
func (j *journal) keeps() bool { return j != nil && j.unfit == "" }

// add keeps a statement whose result the digest has seen.
func (j *journal) add(what Step, text string, size int) {
	j.size += stepSize + size
	if j.size > j.limit {
		j.giveUp("it is larger than replay_limit")
		return
	}
	j.steps = append(j.steps, step{what, j.digest.Sum(), text})
}

// Digest is what is to be told what the server answers on the lease; nil if the
// transaction is not kept. Each repetition of the statement begins it anew.
func (l *Lease) Digest() *Digest {
	if l.digest != nil {
		l.digest.Reset()
		l.digest.Expect(l.s.expected)
	}
	return l.digest
}

// Keep says how what was done on the lease can be done again: everything, up to the
// server's last ReadyForQuery. It is called before Done; a transaction of which a statement
// is not kept cannot be run again. size is in bytes.
func (l *Lease) Keep(what Step, size int) { l.kept, l.keptSize = what, size }

// Resumable tells that although the client has the beginning of the result, only what
// follows will be told when the statement is run again. It is called before Done.
func (l *Lease) Resumable() {
	if l.digest != nil {
		l.resumable = true
	}
}

// keep puts a statement that is over into the journal.
func (l *Lease) keep() {
	j := l.s.tx.journal
	switch {
	case !j.keeps():
	case l.digest == nil || l.kept == nil:
		j.giveUp("it has a statement that cannot be kept")
	default:
		j.add(l.kept, l.call.SQL, l.keptSize)
	}
}

// ownStep is a statement that the session itself carried out.
type ownStep struct {
	s    *Session
	st   *classify.Statement // nil if it is to be run as it stands
	text string
}

// Again is Step's.
func (o *ownStep) Again(ctx context.Context, _ ServerConn, d *Digest) error {
	c := o.s.held.c
	var tag string
	var err error
	if o.st == nil {
		tag, err = c.exec(ctx, o.text)
	} else {
		tag, err = o.s.execLeased(ctx, c, o.st, o.text)
	}
	d.Result(tag, err)
	return err
}

// keepOwn is Keep for what the session carried out; st is nil if text can be run as it stands.
func (l *Lease) keepOwn(st *classify.Statement, text, tag string, err error) {
	if d := l.Digest(); d != nil {
		d.Result(tag, err)
		l.Keep(&ownStep{l.s, st, text}, len(text))
	}
}

// abortStep is that the transaction was made to abort.
type abortStep struct{}

// Again is Step's.
func (abortStep) Again(ctx context.Context, conn ServerConn, _ *Digest) error {
	_, err := conn.Run(ctx, abortSQL)
	return err
}

// keepAbort keeps that.
func (s *Session) keepAbort() {
	if j := s.tx.journal; j.keeps() {
		j.digest.Reset()
		j.add(abortStep{}, abortSQL, 0)
	}
}

// expect notes what the client has got of the result, for the next run of the statement.
// It reports false if it is not known what that is.
func (l *Lease) expect() bool {
	if !l.delivered {
		return true
	}
	if !l.resumable {
		return false
	}
	if p := l.digest.Prefix(); p.Rows > l.s.expected.Rows {
		l.s.expected = p
	}
	return l.s.expected.Rows > 0
}

// differed fails the transaction whose statement under way, run again, begins otherwise.
func (l *Lease) differed(ctx context.Context) error {
	s := l.s
	n := 1
	if j := s.tx.journal; j != nil {
		n += len(j.steps)
	}
	s.e.replays.differed.Add(1)
	s.held.c.kill() // it may be in the middle of a result
	s.dropHeld()
	return s.replayFailed(ctx, l.c.purpose == readOnly, errDiffers(n, l.call.SQL))
}

// noteConfigInTx is noteConfig, whose question may be what finds the server lost.
func (l *Lease) noteConfigInTx(ctx context.Context) error {
	for {
		err := l.noteConfig(ctx)
		if err == nil || !classifyError(ctx, err).connectionGone() {
			return err
		}
		s := l.s
		if s.try.lost++; s.try.lost > maxLost {
			return s.loseTx()
		}
		if err := s.recover(ctx, lossConnection); err != nil {
			return err
		}
		l.hold = s.held
	}
}

// loss is how a transaction was lost.
type loss uint8

const (
	lossConnection loss = iota // or the leader; COMMIT was not sent
	lossFenced                 // refused by capture: rolled back on a sound connection
	lossCommit                 // COMMIT was sent, and is known to have left nothing
)

// recover goes on with a transaction that is lost with its server: it is begun anew and
// all its statements are run again. If that cannot be, or a result differs, the transaction
// is failed, and the error is the client's.
func (s *Session) recover(ctx context.Context, how loss) error {
	j := s.tx.journal
	if j == nil {
		return s.loseTx()
	}
	if why := s.unfit(); why != "" {
		s.e.replays.unfit.Add(1)
		s.e.log.Info("a transaction was lost with its server and is not run again", "because", why)
		return s.loseTx()
	}
	s.e.replays.tried.Add(1)
	began := time.Now()
	err := s.replay(ctx, how)
	switch {
	case err == nil:
		s.e.replays.done.Add(1)
	case !isDiffers(err):
		s.e.replays.failed.Add(1)
	}
	s.e.log.Info("a transaction was lost with its server and was run again", "statements", len(j.steps), "took", time.Since(began), "error", err)
	return err
}

// unfit says why the transaction cannot be run again.
func (s *Session) unfit() string {
	j := s.tx.journal
	switch {
	case j.unfit != "":
		return j.unfit
	case s.whole:
		return "the session keeps its connection"
	case j.pins != 0:
		return "the session had state on its connection: " + j.pins.String()
	case s.pins&^replayable != 0:
		return "it has made what cannot be made again: " + (s.pins &^ replayable).String()
	}
	return ""
}

// replay runs the transaction's statements again until all have run on one server, or a
// result differs.
func (s *Session) replay(ctx context.Context, how loss) error {
	now, readOnly := s.settings, s.held.c.purpose == readOnly
	for {
		if err := s.endAttempt(ctx, how); err != nil {
			return s.replayFailed(ctx, readOnly, err)
		}
		err := s.replayOnce(ctx)
		if err == nil {
			s.settings, s.held.c.applied = now, now
			return nil
		}
		var again bool
		if how, again = s.replayLost(ctx, err); !again {
			return s.replayFailed(ctx, readOnly, err)
		}
	}
}

// endAttempt ends what is left of the attempt before, and returns once it is over for certain.
func (s *Session) endAttempt(ctx context.Context, how loss) error {
	h, a := s.held, s.tx.attempt
	s.held, s.tx.state = hold{}, txPending
	if h.c == nil {
		return nil
	}
	if how == lossFenced && rollback(h) {
		h.give()
		return s.awaitLeader(ctx, h)
	}
	writes := h.c.purpose == readWrite
	if !writes {
		s.try.mark(s.e, h)
	}
	h.c.kill() // it may hang
	h.drop()
	if how == lossCommit || !writes {
		return nil
	}
	outcome, err := s.resolve(ctx, a)
	if err == nil && outcome != RolledBack { // COMMIT was not sent
		err = fmt.Errorf("the transaction is said to be %d, though it was not ended", outcome)
	}
	return err
}

// replayOnce begins the transaction anew and runs what was kept of it.
func (s *Session) replayOnce(ctx context.Context) error {
	if err := s.e.current(ctx); err != nil {
		return err
	}
	t := &s.tx
	j := t.journal
	s.settings, t.begin = t.saved, j.begin
	if err := s.startTx(ctx, j.at, false); err != nil {
		return err
	}
	h := s.held
	h.c.own(s.owner)
	if m, ok := h.c.ServerConn.(muted); ok {
		m.Mute(true)
		defer m.Mute(false)
	}
	for i := range j.steps {
		st := &j.steps[i]
		j.digest.Reset()
		h.c.stamp++
		h.c.delivering.Store(false)
		h.c.waiting.Store(nanotime())
		err := st.Again(ctx, h.c.ServerConn, j.digest)
		h.c.waiting.Store(0)
		switch f := classifyError(ctx, err); {
		case f == failCancelled, errors.Is(err, context.Canceled): // what the server still says would be taken for another answer
			h.c.kill()
			return err
		case f == failFenced, f.connectionGone():
			return err
		}
		if h.c.IsClosed() {
			return errors.Join(ErrNotSent, err)
		}
		if j.digest.Sum() != st.sum {
			s.e.replays.differed.Add(1)
			return errDiffers(i+1, st.text)
		}
	}
	return nil
}

// muted is a ServerConn that can keep from its client what a server says besides results.
type muted interface{ Mute(on bool) }

// replayLost tells whether err, met while the transaction was run again, means that it is
// lost once more and may be begun once more.
func (s *Session) replayLost(ctx context.Context, err error) (how loss, again bool) {
	t := &s.try
	switch f := classifyError(ctx, err); {
	case ctx.Err() != nil || s.held.c == nil:
		return 0, false
	case f == failFenced:
		t.fenced++
		return lossFenced, t.fenced <= maxFenced
	case f.connectionGone():
		s.e.report(s.held.c.member, 0, err)
		t.lost++
		return lossConnection, t.lost <= maxLost
	}
	return 0, false
}

// replayFailed fails the transaction and returns what the client hears.
func (s *Session) replayFailed(ctx context.Context, readOnly bool, err error) error {
	if h := s.held; h.c != nil {
		s.held = hold{}
		if rollback(h) {
			h.c.applied = unknownSettings
			h.give()
		} else {
			h.drop()
		}
	}
	s.failTx()
	switch {
	case isDiffers(err):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.Canceled): // by a request of its client's
		return context.Canceled
	}
	lost := pgErrorOf(errLeaderChanged())
	if readOnly {
		lost = pgErrorOf(errMemberLost())
	}
	lost.Detail = "It could not be run again by itself: " + err.Error()
	return lost
}

// differsMessage begins what a client hears whose transaction gave another result.
const differsMessage = "transaction rolled back because the leader changed or its connection was lost, and another result came when it was run again"

// maxShown is how much of a statement errDiffers shows, in bytes.
const maxShown = 200

func errDiffers(n int, text string) error {
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	e := pgError(codeSerialization, differsMessage, "The connection is usable: run the transaction again.")
	e.Detail = fmt.Sprintf("Statement %d of the transaction: %s", n, text)
	return e
}

func isDiffers(err error) bool {
	return isLeaderChanged(err) && pgErrorOf(err).Message == differsMessage
}
