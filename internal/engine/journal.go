package engine

import (
	"context"

	"github.com/pgdist/pgdist/classify"
)

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
