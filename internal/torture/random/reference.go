//go:build unix

package random

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// Failure is what pgdist did otherwise than one PostgreSQL.
type Failure struct {
	Script Script // up to and including the step at which it was seen
	Kind   string // failures of the same kind are taken for the same
	Detail string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s: %s\nafter these %d steps:\n\n%s\n", f.Kind, f.Detail, len(f.Script), f.Script)
}

// tally counts what a run did.
type tally struct {
	Steps, Failed, Refused, Compared int
	States                           map[string]int
	Examples                         map[string]Step // one for each of States
	Slow                             []string        // steps that took seconds
}

func (t *tally) count(state string, s Step) {
	if t.States == nil {
		t.States, t.Examples = map[string]int{}, map[string]Step{}
	}
	t.States[state]++
	t.Examples[state] = s
}

// String is a summary of several lines.
func (t *tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d statements, of which %d failed alike and %d were refused; %d comparisons of all bytes", t.Steps, t.Failed, t.Refused, t.Compared)
	for _, state := range slices.Sorted(maps.Keys(t.States)) {
		fmt.Fprintf(&b, "\n%5d × %s, such as %.150s", t.States[state], state, t.Examples[state])
	}
	for _, s := range t.Slow {
		fmt.Fprintf(&b, "\nslow: %s", s)
	}
	return b.String()
}

func (t *tally) add(u tally) {
	t.Steps, t.Failed, t.Refused, t.Compared = t.Steps+u.Steps, t.Failed+u.Failed, t.Refused+u.Refused, t.Compared+u.Compared
	t.Slow = append(t.Slow, u.Slow...)
	for k, n := range u.States {
		t.count(k, u.Examples[k])
		t.States[k] += n - 1
	}
}

// stepTimeout bounds a step of a client that is alone.
const stepTimeout = 60 * time.Second

// pair is one client's session with pgdist and with the plain server.
type pair struct {
	*rig
	ours, plain *sql.Conn
	done        Script
	tally
}

func (r *rig) pair(ctx context.Context) (*pair, error) {
	ours, err := r.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	plain, err := r.plainConn(ctx)
	return &pair{rig: r, ours: ours, plain: plain}, err
}

func (r *rig) plainConn(ctx context.Context) (*sql.Conn, error) { return r.plain.Conn(ctx) }

func (p *pair) close() error { return errors.Join(p.ours.Close(), p.plain.Close()) }

// state is the plain server's word on the transaction.
func (p *pair) state() (tx txState, err error) {
	err = p.plain.Raw(func(dc any) error {
		switch dc.(*stdlib.Conn).Conn().PgConn().TxStatus() {
		case 'T':
			tx = open
		case 'E':
			tx = failed
		}
		return nil
	})
	return tx, err
}

// step runs one on both sides. A *Failure is a difference.
func (p *pair) step(ctx context.Context, s Step) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	p.done = append(p.done, s)
	p.Steps++
	began := time.Now()
	ours := run(ctx, p.ours, s)
	took := time.Since(began)
	if message, is := refused(ours.err); is {
		return p.skip(ctx, message)
	}
	plain := run(ctx, p.plain, s)
	if plain.err != nil && strings.Contains(s.SQL, "INDEX CONCURRENTLY") {
		if err := p.dropInvalid(ctx); err != nil {
			return err
		}
	}
	if ours.err != nil {
		p.Failed++
		p.count(ours.state, s)
	}
	if took > 3*time.Second {
		p.Slow = append(p.Slow, fmt.Sprintf("%v (PostgreSQL %v, %s): %.300s", took.Round(time.Millisecond), (time.Since(began)-took).Round(time.Millisecond), ours.state, s))
	}
	if ours.same(plain) || s.Copy != nil && isViolation(ours.state) && isViolation(plain.state) {
		return nil
	}
	return &Failure{Script: p.done, Kind: fmt.Sprintf("outcome %q instead of %q", ours.state, plain.state), Detail: fmt.Sprintf("pgdist: %v\nPostgreSQL: %v", ours, plain)}
}

// isViolation tells that a row broke a constraint. Where several rows of a COPY do, it depends on
// how rows are gathered which is told of: PostgreSQL checks partitions' bounds for all that it
// gathers before any index, but puts rows in one by one where triggers have transition tables.
func isViolation(state string) bool { return strings.HasPrefix(state, "23") }

// dropInvalid removes what CREATE INDEX CONCURRENTLY leaves behind when it fails,
// on the plain server: pgdist does so, for the index would be on one database only.
func (p *pair) dropInvalid(ctx context.Context) error {
	_, err := p.plain.ExecContext(ctx, `DO $$ DECLARE r regclass; BEGIN FOR r IN SELECT indexrelid FROM pg_index WHERE NOT indisvalid LOOP EXECUTE 'DROP INDEX ' || r; END LOOP; END $$`)
	return err
}

// skip makes the plain server miss a step that pgdist refused.
func (p *pair) skip(ctx context.Context, message string) error {
	p.Refused++
	p.count("refused: "+message, p.done[len(p.done)-1])
	if !excused(message) {
		return &Failure{Script: p.done, Kind: "refusal", Detail: message}
	}
	tx, err := p.state()
	if err == nil && tx == open { // a refusal fails the transaction as an error of the server does
		run(ctx, p.plain, Step{SQL: "DO $$ BEGIN RAISE 'refused'; END $$"})
	}
	return err
}

// compare ends the transaction and compares all databases.
func (p *pair) compare(ctx context.Context) error {
	if tx, err := p.state(); err != nil {
		return err
	} else if tx != idle {
		if err := p.step(ctx, Step{SQL: "COMMIT"}); err != nil {
			return err
		}
	}
	p.Compared++
	err := p.same(ctx)
	var d *pgtest.DifferenceError
	if errors.As(err, &d) {
		return &Failure{Script: p.done, Kind: "contents", Detail: d.Error()}
	}
	return err
}

// replay runs a script and compares.
func (r *rig) replay(ctx context.Context, s Script) error {
	p, err := r.pair(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	for _, step := range s {
		if err := p.step(ctx, step); err != nil {
			return err
		}
	}
	return p.compare(ctx)
}

// generate runs n steps that the seed makes, comparing on the way.
func (r *rig) generate(ctx context.Context, seed int64, n int) (t tally, err error) {
	p, err := r.pair(ctx)
	if err != nil {
		return t, err
	}
	defer func() { t, err = p.tally, errors.Join(err, p.close()) }()
	for _, s := range prelude() {
		if err := p.step(ctx, s); err != nil {
			return t, err
		}
	}
	g := newGenerator(seed, 0, true)
	g.alone = true
	cat := new(Catalog)
	for p.Steps < n {
		tx, err := p.state()
		if err != nil {
			return t, err
		}
		if tx != failed {
			if cat, err = readCatalog(ctx, p.plain); err != nil {
				return t, err
			}
		}
		for _, s := range g.Next(cat, tx) {
			if err := p.step(ctx, s); err != nil {
				return t, err
			}
		}
		if p.Steps%40 == 0 && tx == idle {
			if err := p.compare(ctx); err != nil {
				return t, err
			}
		}
	}
	return t, p.compare(ctx)
}
