package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	enterOldSQL  = `SELECT pgdist.enter($1::bigint, $2::bigint, $3::pg_snapshot)` // of the version before
	enterSQL     = `SELECT pgdist.enter($1::bigint, $2::bigint, $3::pg_snapshot, $4::bigint)`
	recordSQL    = `SELECT pgdist.record($1::text[])`
	sequencesSQL = `SELECT pgdist.sequences($1::text[], $2::text[])`
	leaveSQL     = `SELECT pgdist.leave($1::bigint, $2::pg_snapshot)`
	termsSQL     = `SELECT pgdist.terms($1::jsonb)`
	replaySQL    = `SELECT pgdist.replay($1::jsonb)`
	replayedSQL  = `SELECT pgdist.replayed()`
	vacateSQL    = `SELECT pgdist.vacate($1::int)`
	emptySQL     = `SELECT pgdist.empty($1::int, $2::text)`
	sharedSQL    = `SELECT pgdist.shared_begin($1::jsonb)`
	sharedEndSQL = `SELECT pgdist.shared_end($1::jsonb)`
	relaxSQL     = `SELECT pgdist.relax()`
	tightenSQL   = `SELECT pgdist.tighten()`
	withholdSQL  = `SELECT pgdist.withhold()`
	publishSQL   = `SELECT pgdist.publish_again()`
	mendSQL      = `SELECT pgdist.mend($1::bool)`
	amendedSQL   = `SELECT pgdist.amended($1::bigint)`
	blameSQL     = `SELECT pgdist.blame($1::bigint, $2::int, $3::int, $4::text[], $5)`
	labelsSQL    = `SELECT pgdist.labels_ahead($1::jsonb)`
)

// step is one statement of an apply.
type step struct {
	sql    string
	params [][]byte
	once   bool // names a function that may not exist yet when the apply begins
}

// rowsSQL puts rows of a table in place that are for the columns and the key of $3 (layout).
func rowsSQL(tab int) string {
	return "SELECT pgdist.a_" + strconv.Itoa(tab) + "($1::text[], $2::text[], $3)"
}

// plain is a call of rowsSQL's or imagesSQL's for a member of the version before, whose functions take no layout.
func (s step) plain() step {
	return step{sql: strings.Replace(s.sql, ", $3)", ")", 1), params: s.params[:2], once: s.once}
}

// imagesSQL is rowsSQL for a table without a key: its rows are looked for first.
func imagesSQL(tab int) string {
	n := strconv.Itoa(tab)
	return "SELECT pgdist.a_" + n + "(pgdist.y_" + n + "($1::text[]), $2::text[], $3)"
}

// step turns an op into a statement. Those about tables that the same batch may
// create (ddl) are not prepared.
func (o op) step(ddl bool) (step, error) {
	switch o.kind {
	case 'j':
		return step{sql: recordSQL, params: [][]byte{o.v}}, nil
	case 'd':
		return step{sql: replaySQL, params: [][]byte{o.a}}, nil
	case 'e':
		return step{sql: emptySQL, params: [][]byte{strconv.AppendInt(nil, int64(o.tab), 10), o.a}}, nil
	case 'v':
		return step{sql: vacateSQL, params: [][]byte{strconv.AppendInt(nil, int64(o.tab), 10)}}, nil
	case 'w':
		return step{sql: "SELECT pgdist.w_" + strconv.Itoa(o.tab) + "()", once: true}, nil
	case 'r':
		return step{sql: rowsSQL(o.tab), params: [][]byte{o.k, o.v, o.a}, once: ddl}, nil
	case 'i':
		return step{sql: imagesSQL(o.tab), params: [][]byte{o.k, o.v, o.a}, once: ddl}, nil
	case 'g':
		return step{sql: sharedSQL, params: [][]byte{o.a}}, nil
	case 'p':
		return step{sql: sharedEndSQL, params: [][]byte{o.a}}, nil
	case 'n':
		return step{sql: relaxSQL}, nil
	case 'm':
		return step{sql: tightenSQL}, nil
	case 'o':
		return step{sql: withholdSQL}, nil
	case 'u':
		return step{sql: publishSQL}, nil
	case 'q':
		return step{sql: amendedSQL, params: [][]byte{o.a}}, nil
	case 'b':
		return step{sql: blameSQL, params: [][]byte{o.a, strconv.AppendInt(nil, int64(o.tab), 10), o.v, o.k, text(leftForLater)}}, nil
	case 's':
		return step{sql: sequencesSQL, params: [][]byte{o.k, o.v}}, nil
	}
	return step{}, fmt.Errorf("the leader sent a batch entry of kind %q, which this version does not know", o.kind)
}

// rows tells that an op puts rows of one table in place, or takes them away.
func (o op) rows() bool { return o.kind == 'r' || o.kind == 'i' }

// enterStep begins an apply under the fence of epoch.
func enterStep(epoch int64, from Place, tick int64) step {
	s := step{sql: enterOldSQL, params: [][]byte{strconv.AppendInt(nil, epoch, 10), strconv.AppendInt(nil, from.Term, 10), nullable(from.Snapshot)}}
	if tick != tickless {
		s.sql, s.params = enterSQL, append(s.params, strconv.AppendInt(nil, tick, 10))
	}
	return s
}

// tickless is the tick of members whose schema does not count applies.
const tickless = -1

// mendStep comes before enterStep on a member that crashed.
func mendStep(done bool) step {
	return step{sql: mendSQL, params: [][]byte{strconv.AppendBool(nil, done)}}
}

func leaveStep(to Place) step {
	return step{sql: leaveSQL, params: [][]byte{strconv.AppendInt(nil, to.Term, 10), nullable(to.Snapshot)}}
}

// plan is a small batch as statements, as few as can be.
func (b *batch) plan(epoch, tick int64, terms []byte) ([]step, error) {
	steps, err := b.steps(epoch, tick, terms)
	if err != nil || b.head.DDL || b.shared != nil {
		return steps, err
	}
	return joined(steps), nil
}

// steps is a small batch as statements of one call each, in the order they must
// run: DDL and emptied tables first, then rows.
func (b *batch) steps(epoch, tick int64, terms []byte) ([]step, error) {
	steps := make([]step, 0, len(b.ops)+4)
	steps = append(steps, enterStep(epoch, b.from, tick))
	ops := b.ops
	if b.shared != nil {
		ops = slices.Concat([]op{{kind: 'g', a: b.shared}}, ops, []op{{kind: 'p', a: b.shared}})
	}
	for _, o := range ops {
		s, err := o.step(b.head.DDL)
		if err != nil {
			return nil, err
		}
		if tick == tickless && o.rows() {
			s = s.plain()
		}
		steps = append(steps, s)
	}
	if terms != nil {
		steps = append(steps, step{sql: termsSQL, params: [][]byte{terms}})
	}
	return append(steps, leaveStep(b.to())), nil
}

// at makes a plan that of a member which has seen tick applies.
func at(steps []step, tick int64) []step {
	if tick == tickless {
		return steps
	}
	out := slices.Clone(steps)
	out[0].params = slices.Clone(out[0].params)
	out[0].params[3] = strconv.AppendInt(nil, tick, 10)
	return out
}

// join makes one statement of several, one call after the other in one list, which
// saves the server a start and an end for each. PostgreSQL evaluates a list in order;
// were it not so, nothing would be wrong but which error comes first, for all of it
// is one transaction, and the fence and the position that are checked in it are
// locked to its end.
func join(steps []step) step {
	var b strings.Builder
	out := step{}
	for i, s := range steps {
		if i == 0 {
			b.WriteString("SELECT ")
		} else {
			b.WriteString(", ")
		}
		rest := strings.TrimPrefix(s.sql, "SELECT ")
		for {
			at := strings.IndexByte(rest, '$')
			if at < 0 {
				break
			}
			n := int(rest[at+1] - '0') // no call has more than nine
			b.WriteString(rest[:at+1])
			b.WriteString(strconv.Itoa(len(out.params) + n))
			rest = rest[at+2:]
		}
		b.WriteString(rest)
		out.params = append(out.params, s.params...)
	}
	out.sql = b.String()
	return out
}

// joined is what most batches come to: the beginning, the journal's entries, rows
// of one table, sequences, the end, as one statement. Around rows of several
// tables what stands before and behind them is joined: every set of tables would
// be a statement to keep prepared.
func joined(steps []step) []step {
	frame := func(s step) bool {
		return s.sql == enterSQL || s.sql == enterOldSQL || s.sql == recordSQL || s.sql == sequencesSQL || s.sql == leaveSQL
	}
	head, tail := 0, len(steps)
	for head < tail && frame(steps[head]) {
		head++
	}
	for tail > head && frame(steps[tail-1]) {
		tail--
	}
	if tail == head || tail == head+1 && strings.HasPrefix(steps[head].sql, "SELECT pgdist.a_") {
		return []step{join(steps)}
	}
	return slices.Concat([]step{join(steps[:head])}, steps[head:tail], []step{join(steps[tail:])})
}

// labels adds the labels of enums that a DDL brings, in a transaction of their
// own: rows of the same batch may use them.
func (m *member) labels(ctx context.Context, o op) error {
	if o.kind != 'd' || !bytes.Contains(o.a, text(`"enums": [`)) {
		return nil
	}
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if _, err = c.call(ctx, labelsSQL, o.a); sqlState(err) == "55P03" {
		return nil // the apply itself has the type: the labels come with it
	}
	return err
}

// renames tells DDL after which labels can no longer be told by their names ahead
// of the apply: it may give one of them another.
func (o op) renames() bool {
	return o.kind == 'd' && bytes.Contains(o.a, text(`"tag": "ALTER TYPE"`)) && !bytes.Contains(o.a, text(`"enums": [`))
}

// run sends all steps as one message and one transaction, waits until they have
// run, then for gate, and commits.
func (c *conn) run(ctx context.Context, steps []step, gate func() error) (err error) {
	for _, s := range steps {
		if !s.once {
			if _, err := c.prepare(ctx, s.sql); err != nil {
				return err
			}
		}
	}
	p := c.StartPipeline(ctx)
	defer func() {
		if e := p.Close(); err == nil {
			err = e
		}
	}()
	for _, s := range steps {
		if s.once {
			p.SendQueryParams(s.sql, s.params, nil, nil, nil)
		} else {
			p.SendQueryPrepared(c.prepared[s.sql], s.params, nil, nil)
		}
	}
	if gate == nil {
		if err := p.Sync(); err != nil {
			return err
		}
		return drain(p, len(steps)+1)
	}
	p.SendFlushRequest()
	if err := p.Flush(); err != nil {
		return err
	}
	if err := drain(p, len(steps)); err != nil {
		var pg *pgconn.PgError
		if errors.As(err, &pg) && !c.IsClosed() {
			return errors.Join(err, p.Sync()) // the server goes on listening only after it
		}
		return err
	}
	if err := gate(); err != nil {
		// Whatever ends the pipeline without a Sync closes the connection, and
		// with it the transaction.
		return err
	}
	if err := p.Sync(); err != nil {
		return err
	}
	return drain(p, 1)
}

// drain reads n results.
func drain(p *pgconn.Pipeline, n int) error {
	for range n {
		res, err := p.GetResults()
		if err != nil {
			return err
		}
		switch r := res.(type) {
		case *pgconn.ResultReader:
			if _, err := r.Close(); err != nil {
				return err
			}
		case nil:
			return errors.New("the server answered fewer statements than were sent")
		}
	}
	return nil
}

// stepwise applies a streamed batch: one transaction, one statement at a time.
type stepwise struct {
	c    *conn
	mind func(context.Context) (context.Context, func()) // watches over one statement
	ddl  bool

	before bool // the member is of the version before
}

func (w *stepwise) exec(ctx context.Context, s step) error {
	ctx, stop := w.mind(ctx)
	defer stop()
	var res *pgconn.Result
	if s.once {
		res = w.c.ExecParams(ctx, s.sql, s.params, nil, nil, nil).Read()
	} else {
		name, err := w.c.prepare(ctx, s.sql)
		if err != nil {
			return err
		}
		res = w.c.ExecPrepared(ctx, name, s.params, nil, nil).Read()
	}
	return causeOf(ctx, res.Err)
}

// begin opens the transaction and takes the fence. mend: it brings back what a
// crash has taken.
func (w *stepwise) begin(ctx context.Context, epoch int64, from Place, tick int64, mend bool) error {
	if err := w.c.exec(ctx, "BEGIN"); err != nil {
		return err
	}
	if mend {
		if err := w.exec(ctx, mendStep(true)); err != nil {
			return err
		}
	}
	return w.exec(ctx, enterStep(epoch, from, tick))
}

func (w *stepwise) apply(ctx context.Context, o op) error {
	w.ddl = w.ddl || o.kind == 'd' || o.kind == 'w'
	s, err := o.step(w.ddl)
	if err != nil {
		return err
	}
	if w.before && o.rows() {
		s = s.plain()
	}
	return w.exec(ctx, s)
}

// end commits, or gives up.
func (w *stepwise) end(ctx context.Context, to Place, terms []byte) error {
	if terms != nil {
		if err := w.exec(ctx, step{sql: termsSQL, params: [][]byte{terms}}); err != nil {
			return err
		}
	}
	if err := w.exec(ctx, leaveStep(to)); err != nil {
		return err
	}
	return w.c.exec(ctx, "COMMIT")
}
