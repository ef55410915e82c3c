package mirror

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
)

// copyPages is how much of a table is copied at once: 64 MB of pages of 8 kB. Several
// connections share a large table, and progress has something to tell.
var copyPages int64 = 8192

// tidRanges is the first version that finds a range of pages without reading all
// (release notes of PostgreSQL 14).
const tidRanges = 140000

// copyPart is a range of a table's pages, the last without an end.
type copyPart struct {
	t        *relation
	from, to int64 // to 0: no end
	binary   bool
	columns  string
}

// copying is the contents under way.
type copying struct {
	r     *resync
	mu    sync.Mutex
	parts []copyPart
	left  map[string]int // parts of a table yet to be done
	aside []string       // tables left to the catch-up
	seen  ResyncProgress
}

// portableSQL lists the tables whose columns' types have the same numbers in every
// database (below 10000, FirstGenbkiObjectId, in every version). Only for these is the
// binary form the same: an array, say, names its elements' type by number.
const portableSQL = `SELECT format('%I.%I', n.nspname, c.relname),
		(SELECT coalesce(string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum), '') FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
		NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND (a.atttypid >= 10000 OR a.atttypid IN ('xml'::regtype, 'record'::regtype)))
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'`

// contents copies all rows, the journal's among them, and where sequences are.
func (r *resync) contents(ctx context.Context) (rows, bytes int64, err error) {
	w := &copying{r: r, left: map[string]int{}}
	if err := w.plan(ctx); err != nil {
		return 0, 0, r.source.fail("list tables", err)
	}
	if err := r.relax(ctx); err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range r.o.Jobs {
		wg.Go(func() {
			if err := w.work(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return 0, 0, context.Cause(ctx)
	}
	if err := w.referring(ctx); err != nil {
		return 0, 0, err
	}
	if err := r.clear(ctx, w.aside); err != nil {
		return 0, 0, err
	}
	if err := r.journalRows(ctx); err != nil {
		return 0, 0, err
	}
	return w.seen.Rows, w.seen.Bytes, r.sequences(ctx)
}

// relax sets aside constraints whose outcome depends on more than the row held when it was
// written.
func (r *resync) relax(ctx context.Context) (err error) {
	if r.relaxed != "" {
		return nil // an attempt before has
	}
	err = r.setup.exec(ctx, "BEGIN; SELECT pgdist.relax(); UPDATE pgdist.copying SET relaxed = current_setting('pgdist.relaxed'); COMMIT")
	if err == nil {
		r.relaxed, err = r.setup.one(ctx, `SELECT relaxed FROM pgdist.copying`)
	}
	return r.target.fail("set constraints aside", err)
}

// tighten puts them back.
func (r *resync) tighten(ctx context.Context) error {
	err := r.setup.exec(ctx, "BEGIN; SELECT set_config('pgdist.relaxed', "+quoteLiteral(r.relaxed)+", true); SELECT pgdist.tighten(); UPDATE pgdist.copying SET relaxed = NULL; COMMIT")
	return r.target.fail("put constraints back", err)
}

// plan divides the tables into parts, the largest first.
func (w *copying) plan(ctx context.Context) error {
	listed, err := w.r.snap.c.call(ctx, portableSQL)
	if err != nil {
		return err
	}
	forms := map[string][2]string{}
	for _, l := range listed {
		forms[string(l[0])] = [2]string{string(l[1]), string(l[2])}
	}
	tables := slices.SortedFunc(slices.Values(w.r.snap.tables), func(a, b *relation) int {
		return cmp.Or(cmp.Compare(b.Pages, a.Pages), cmp.Compare(a.Name, b.Name))
	})
	var again []string
	for _, t := range tables {
		if _, ok := w.r.taken[t.Name]; ok {
			w.seen.TablesDone++
			continue
		}
		again = append(again, t.Name)
		form, ok := forms[t.Name]
		if !ok {
			return fmt.Errorf("table %s is not there", t.Name)
		}
		p := copyPart{t: t, columns: form[0], binary: form[1] == "t"}
		for ; t.Heap && w.r.src.Version >= tidRanges && t.Pages-p.from > copyPages+copyPages/2; p.from = p.to {
			p.to = p.from + copyPages
			w.parts = append(w.parts, p)
			w.left[t.Name]++
		}
		p.to = 0
		w.parts = append(w.parts, p)
		w.left[t.Name]++
		w.seen.Estimated += max(t.Rows, 0)
	}
	w.seen.Tables = len(tables)
	if w.r.taken == nil {
		return nil
	}
	return w.r.clear(ctx, again)
}

// work copies parts until none is left.
func (w *copying) work(ctx context.Context) error {
	src, err := dial(ctx, w.r.source.cfg, readerSettings)
	if err != nil {
		return w.r.source.fail("connect", err)
	}
	defer src.close()
	dst, err := dial(ctx, w.r.target.cfg, copyTo)
	if err != nil {
		return w.r.target.fail("connect", err)
	}
	defer dst.close()
	if err := w.r.enlist(ctx, dst); err != nil {
		return err
	}
	for {
		w.mu.Lock()
		if len(w.parts) == 0 {
			w.mu.Unlock()
			return nil
		}
		p := w.parts[0]
		w.parts = w.parts[1:]
		w.mu.Unlock()
		if err := w.part(ctx, src, dst, p); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
}

// part copies one part, in a transaction of its own at the source: locks on tables
// that are done would keep DDL waiting.
func (w *copying) part(ctx context.Context, src, dst *conn, p copyPart) error {
	format := "text"
	if p.binary {
		format = "binary"
	}
	where := ""
	if p.from > 0 || p.to > 0 {
		where = " WHERE ctid >= '(" + strconv.FormatInt(p.from, 10) + ",0)'"
		if p.to > 0 {
			where += " AND ctid < '(" + strconv.FormatInt(p.to, 10) + ",0)'"
		}
	}
	into := p.t.Name
	if p.columns != "" {
		into += " (" + p.columns + ")"
	}
	if err := src.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT "+quoteLiteral(w.r.snap.name)); err != nil {
		return w.r.source.fail("take over the snapshot", err)
	}
	if _, err := dst.call(ctx, `SELECT set_config('search_path', pgdist.path_of(to_regclass($1::text)), false)`, text(p.t.Name)); err != nil {
		return w.r.target.fail("copy table "+p.t.Name, err)
	}
	n, bytes, err := w.r.pipe(ctx, src, dst, "COPY (SELECT "+p.columns+" FROM ONLY "+p.t.Name+where+") TO STDOUT (FORMAT "+format+")",
		"COPY "+into+" FROM STDIN (FORMAT "+format+")")
	if state := sqlState(err); state == "57014" || nameless(err) || state == "42703" {
		if err := src.exec(ctx, "ROLLBACK"); err != nil {
			return w.r.source.fail("copy table "+p.t.Name, err)
		}
		return w.leave(p.t, err)
	}
	if err != nil {
		return fmt.Errorf("copy table %s: %w", p.t.Name, err)
	}
	// What TRUNCATE or a rewriting ALTER has done since the snapshot does not show in it: the table
	// looks empty. Nor does what it, and its columns, were called then.
	same, err := src.one(ctx, `SELECT count(*) FROM pg_class c WHERE c.oid = $1::text::oid AND c.relfilenode = pg_relation_filenode(c.oid)`, text(p.t.OID))
	if own, ok := w.r.own[p.t.Name]; ok && err == nil {
		if _, err = src.call(ctx, `SELECT pgdist.unchanged($1::int[])`, tabSet{own.id: true}.literal()); sqlState(err) == codeRewritten {
			same, err = "0", nil
		}
	}
	if err != nil {
		return w.r.source.fail("look after table "+p.t.Name, err)
	}
	if err := src.exec(ctx, "ROLLBACK"); err != nil {
		return w.r.source.fail("copy table "+p.t.Name, err)
	}
	if same != "1" {
		return w.leave(p.t, errRewrittenMeanwhile)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left[p.t.Name]--
	if w.left[p.t.Name] == 0 {
		if err := w.r.recorded(ctx, p.t); err != nil {
			return err
		}
		w.seen.TablesDone++
	}
	w.seen.Rows += n
	w.seen.Bytes += bytes
	w.seen.Table = p.t.Name
	w.r.o.Progress(w.seen)
	w.r.claim.progress(ctx, w.seen)
	return nil
}

// leave leaves a table to the catch-up, which does to it what the source's DDL did and ships it
// whole.
func (w *copying) leave(t *relation, why error) error {
	own, ok := w.r.own[t.Name]
	if !ok {
		return fmt.Errorf("copy table %s: DDL came in between; run the copy again: %w", t.Name, why)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.aside, t.Name) {
		if why != nil {
			w.r.o.Report("table %s changes while it is copied: it is shipped when the copy catches up", t.Name)
		} else {
			w.r.o.Report("table %s refers to one that changes: it is shipped when the copy catches up", t.Name)
		}
		w.aside = append(w.aside, t.Name)
		w.seen.TablesDone++
	}
	w.parts = slices.DeleteFunc(w.parts, func(p copyPart) bool { return p.t == t })
	if w.r.aside == nil {
		w.r.aside = map[int]int{}
	}
	w.r.aside[own.id] = own.gen
	return nil
}

// referencesSQL lists which mirrored tables have a foreign key to which.
const referencesSQL = `SELECT DISTINCT a.id, b.id FROM pg_constraint k JOIN pgdist.tables a ON k.conrelid = a.oid OR k.conrelid = ANY (a.files) JOIN pgdist.tables b ON k.confrelid = b.oid OR k.confrelid = ANY (b.files)
	WHERE k.contype = 'f' AND k.convalidated`

// referring leaves to the catch-up what refers to what is left to it: that is empty when foreign
// keys are made, which PostgreSQL then looks at. An attempt before may have made them.
func (w *copying) referring(ctx context.Context) error {
	if len(w.aside) == 0 || w.r.posted {
		return nil
	}
	rows, err := w.r.snap.c.call(ctx, referencesSQL)
	if err != nil {
		return w.r.source.fail("list foreign keys", err)
	}
	more := tabSet{}
	for found := true; found; {
		found = false
		for _, row := range rows {
			from, to := number(row[0]), number(row[1])
			if _, aside := w.r.aside[to]; (aside || more[to]) && !more[from] {
				more[from], found = true, true
			}
		}
	}
	for _, t := range w.r.snap.tables {
		if own, ok := w.r.own[t.Name]; ok && more[own.id] {
			if !slices.Contains(w.aside, t.Name) {
				w.seen.TablesDone-- // it is not, after all
			}
			delete(w.r.taken, t.Name)
			if err := w.leave(t, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

var errRewrittenMeanwhile = errors.New("it was truncated or rewritten while it was copied; run the copy again")

// counter counts what passes.
type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n += int64(n)
	return n, err
}

// pipeSize is how much of a table goes from one server to the other at once: what
// pgconn's CopyFrom reads, a message of 64 kB less its head.
const pipeSize = 1<<16 - 5

// pipe sends what one statement yields into another.
func (r *resync) pipe(ctx context.Context, src, dst *conn, from, to string) (rows, bytes int64, err error) {
	out, in := io.Pipe()
	// A server sends each row by itself; handed on like that, each would be a packet and
	// a turn of two goroutines of its own.
	gathered := bufio.NewWriterSize(in, pipeSize)
	count := &counter{Writer: gathered}
	var read error
	var wg sync.WaitGroup
	wg.Go(func() {
		_, read = src.CopyTo(ctx, count, from)
		if read == nil {
			read = gathered.Flush()
		}
		in.CloseWithError(read) // nil is the end
	})
	tag, err := dst.CopyFrom(ctx, out, to)
	out.CloseWithError(errors.Join(errTargetFailed, err))
	wg.Wait()
	switch {
	case read != nil && !errors.Is(read, errTargetFailed):
		return 0, 0, r.source.fail("read", read)
	case err != nil:
		return 0, 0, r.target.fail("write", err)
	}
	return tag.RowsAffected(), count.n, nil
}

var errTargetFailed = errors.New("the target takes no more")

// journalRows copies the source's journal, too: what became of a lost COMMIT is asked
// of whoever leads by then, and a member that is away longer comes back by it.
func (r *resync) journalRows(ctx context.Context) error {
	if r.taken != nil {
		if err := r.setup.exec(ctx, "TRUNCATE pgdist.journal"); err != nil {
			return r.target.fail("copy the journal", err)
		}
	}
	_, _, err := r.pipe(ctx, r.snap.c, r.setup, `COPY (SELECT 0::smallint, id, term, xid, tab, gen, op, conn, keys FROM pgdist.journal) TO STDOUT (FORMAT binary)`,
		`COPY pgdist.journal (slot, id, term, xid, tab, gen, op, conn, keys) FROM STDIN (FORMAT binary)`)
	if err != nil {
		return fmt.Errorf("copy the journal: %w", err)
	}
	return nil
}

// sequences sets them; they are no part of a snapshot, and go on only forward until
// the catch-up sets them again.
func (r *resync) sequences(ctx context.Context) error {
	values, err := r.sequenceValues(ctx)
	if err != nil {
		return r.source.fail("read sequences", err)
	}
	var names, at []string
	for name, value := range values {
		names, at = append(names, name), append(at, value)
	}
	// What has other bounds since, or is new, the catch-up sets.
	return r.target.fail("set sequences", r.setup.exec(ctx, "DO "+quoteLiteral(`DECLARE s record; BEGIN
		FOR s IN SELECT to_regclass(x.name) AS seq, split_part(x.value, ',', 1)::bigint AS at, split_part(x.value, ',', 2)::boolean AS called
		           FROM unnest(`+quoteLiteral(string(literalOf(names)))+`::text[], `+quoteLiteral(string(literalOf(at)))+`::text[]) x(name, value) LOOP
			BEGIN PERFORM setval(s.seq, s.at, s.called); EXCEPTION WHEN numeric_value_out_of_range THEN NULL; END;
		END LOOP; END`)))
}

// sequenceValues reads where they are at the source, not in the transaction that has the snapshot:
// it would keep a lock on each to the copy's end, and be ended by whoever waits for one.
func (r *resync) sequenceValues(ctx context.Context) (map[string]string, error) {
	c, err := r.source.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for try := 1; ; try++ {
		values, err := sequenceValues(ctx, c)
		if err == nil || try == sequenceTries || !isMoved(ctx, err) {
			return values, err
		}
	}
}

// sequenceTries is how often sequences are read again because some were dropped meanwhile.
const sequenceTries = 50
