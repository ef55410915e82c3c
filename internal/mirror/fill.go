package mirror

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/pgdist/pgdist/health"
)

// Materialized views hold data at the leader alone. Whoever takes office computes
// those anew that held data, beside everything else; readers of these wait.

// fillPause is how long the loop waits before it tries again what a lost
// connection has cut off.
const fillPause = time.Second

// filling is the transaction that fills a leader's materialized views.
type filling struct {
	s     *Set
	c     *conn
	host  string
	names []string // as they stand in statements
}

// fill begins to fill what the leader of v has yet to fill, if anything. Its locks
// are taken when it returns: it is called before clients see the view. ask is a
// connection to the leader. Failures are told in the log; an election does not
// hang on them.
func (s *Set) fill(ctx context.Context, ask *conn, v *health.View) {
	s.refill.Store(0)
	m := s.members.get(v.Leader)
	again := func(err error) {
		s.refill.Store(later(fillPause))
		s.log.Warn("cannot fill the materialized views", "member", m.host, "err", err)
	}
	rows, err := ask.call(ctx, `SELECT u.name FROM pgdist.unfilled() u WHERE u.error IS NULL`)
	if err != nil {
		again(err)
		return
	}
	if len(rows) == 0 {
		return
	}
	f := &filling{s: s, host: m.host}
	if f.c, err = dialPlain(ctx, m.cfg); err == nil {
		err = f.begin(ctx, v.Term)
	}
	if err != nil {
		f.c.close()
		again(err)
		return
	}
	s.done.Go(func() {
		defer f.c.close()
		if err := f.run(s.life); err != nil && s.life.Err() == nil {
			again(err)
		}
	})
}

func (f *filling) begin(ctx context.Context, term int64) error {
	if err := f.c.exec(ctx, "BEGIN"); err != nil {
		return err
	}
	rows, err := f.c.call(ctx, `SELECT pgdist.fill_begin($1::bigint)`, strconv.AppendInt(nil, term, 10))
	for _, r := range rows {
		f.names = append(f.names, string(r[0]))
	}
	return err
}

// run fills one after the other. One may need another that comes later, so what
// fails is tried again as long as others succeed.
func (f *filling) run(ctx context.Context) error {
	began, left := time.Now(), f.names
	failed := map[string]error{}
	for more := true; more && len(left) > 0; {
		var rest []string
		for _, name := range left {
			err := f.one(ctx, name)
			if f.c.IsClosed() {
				return err
			}
			if err != nil {
				failed[name] = err
				rest = append(rest, name)
			}
		}
		more = len(rest) < len(left)
		left = rest
	}
	for _, name := range left {
		f.s.log.Error("a materialized view could not be filled: it stays without data until it is refreshed", "member", f.host, "view", name, "err", failed[name])
		if _, err := f.c.call(ctx, `SELECT pgdist.fill_failed($1, $2)`, text(name), text(failed[name].Error())); err != nil {
			return err
		}
	}
	f.s.log.Info("filled the materialized views", "member", f.host, "views", len(f.names)-len(left), "took", time.Since(began).Round(time.Millisecond))
	return f.c.exec(ctx, "COMMIT")
}

func (f *filling) one(ctx context.Context, name string) error {
	if err := f.c.exec(ctx, "SAVEPOINT one"); err != nil {
		return err
	}
	_, err := f.c.call(ctx, `SELECT pgdist.fill($1)`, text(name))
	if err != nil && !f.c.IsClosed() {
		return errors.Join(err, f.c.exec(ctx, "ROLLBACK TO one"))
	}
	return err
}

// fillAgain looks after the leader's materialized views when that is due, and
// when the set is opened: who filled them may have gone before it was done.
func (s *Set) fillAgain(ctx context.Context) {
	at := s.refill.Load()
	if s.view.Load() != nil && (at == 0 || monotonic() < at) {
		return
	}
	c, err := s.members.get(s.cur.Leader).connect(ctx)
	if err != nil {
		s.refill.Store(later(fillPause))
		return
	}
	defer c.close()
	s.fill(ctx, c, s.cur)
}

// refillSQL fills the materialized views of a follower that is to be a database
// of its own, in rounds, for one may need another.
const refillSQL = `
			DO $$
			DECLARE name text; done boolean := true;
			BEGIN
				WHILE done AND to_regproc('pgdist.unfilled') IS NOT NULL LOOP
					done := false;
					FOR name IN SELECT u.name FROM pgdist.unfilled() u LOOP
						BEGIN
							EXECUTE 'REFRESH MATERIALIZED VIEW ' || name;
							done := true;
						EXCEPTION WHEN OTHERS THEN RAISE WARNING '% stays without data: %', name, SQLERRM;
						END;
					END LOOP;
				END LOOP;
			END $$;`
