//go:build unix

package random

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// fails runs a script on fresh databases and returns how it fails, nil if it
// does not.
func (l *lab) fails(ctx context.Context, s Script) (f *Failure, err error) {
	r, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	err = r.replay(ctx, s)
	if errors.As(err, &f) {
		err = nil
	}
	return f, errors.Join(err, r.close())
}

// shrink makes a failing script as short as it can until ctx ends: it leaves out
// halves, quarters and so on down to single steps, as long as the rest fails in
// the same way. tries counts the attempts.
func (l *lab) shrink(ctx context.Context, f *Failure, logf func(string, ...any)) (short *Failure, tries int, err error) {
	outside := context.WithoutCancel(ctx)
	short = f
	again, err := l.fails(outside, f.Script)
	if err != nil {
		return f, 1, err
	}
	if again == nil {
		return f, 1, errors.New("the same steps did not fail again")
	}
	if again.Kind != f.Kind {
		logf("run again, it fails otherwise: %s", again.Kind)
	}
	short = again
	for size := len(short.Script) / 2; size > 0 && ctx.Err() == nil; {
		smaller := false
		for at := len(short.Script); at > 0 && ctx.Err() == nil; at -= size {
			if at > len(short.Script) {
				continue
			}
			less := slices.Concat(short.Script[:max(0, at-size)], short.Script[at:])
			tries++
			g, err := l.fails(outside, less)
			if err != nil {
				return short, tries, fmt.Errorf("shrink: %w", err)
			}
			if g != nil && g.Kind == again.Kind {
				short, smaller = g, true
			}
		}
		logf("shrunk to %d steps after %d tries, pieces of %d", len(short.Script), tries, size)
		switch {
		case size > 1:
			size = min(size/2, max(1, len(short.Script)/2))
		case !smaller:
			size = 0
		}
	}
	return short, tries, nil
}
