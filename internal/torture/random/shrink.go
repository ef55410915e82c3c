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

// shrink makes a failing script as short as it can until ctx ends. tries counts
// the attempts.
func (l *lab) shrink(ctx context.Context, f *Failure, logf func(string, ...any)) (short *Failure, tries int, err error) {
	outside := context.WithoutCancel(ctx) // an attempt under way is finished
	try := func(s Script) (*Failure, error) { tries++; return l.fails(outside, s) }
	if short, err = try(f.Script); err != nil || short == nil {
		return f, tries, errors.Join(err, errors.New("the same steps did not fail again"))
	}
	if short.Kind != f.Kind {
		logf("run again, it fails otherwise: %s", short.Kind)
	}
	short, err = reduce(ctx, short, try)
	logf("shrunk from %d to %d steps in %d tries", len(f.Script), len(short.Script), tries)
	return short, tries, err
}

// reduce leaves out halves, quarters and so on down to single steps, from the
// end, as long as the rest fails in the same way.
func reduce(ctx context.Context, f *Failure, try func(Script) (*Failure, error)) (*Failure, error) {
	for size := max(1, len(f.Script)/2); size > 0; {
		smaller := false
		for at := len(f.Script); at > 0; at = min(at-size, len(f.Script)) {
			if ctx.Err() != nil {
				return f, nil // good enough
			}
			g, err := try(slices.Concat(f.Script[:max(0, at-size)], f.Script[at:]))
			if err != nil {
				return f, fmt.Errorf("shrink: %w", err)
			}
			if g != nil && g.Kind == f.Kind {
				f, smaller = g, true
			}
		}
		switch {
		case size > 1:
			size /= 2
		case !smaller:
			size = 0
		}
	}
	return f, nil
}
