package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A copy that is broken off, by its program's end, a server's or a link's, is taken up by the
// next attempt. The target keeps a record of the definitions it was made by and of the tables
// that are complete, each with the place that its rows are of. A new attempt has a new
// snapshot. Tables that nothing was written to since are right as they are; of the others with
// a key the source's journal tells which rows were touched, and these are shipped once indexes
// are there to find them by, before foreign keys are. So in the end the copy is, again, the
// source as one snapshot sees it. What cannot be brought there so is copied anew: tables
// without a key that were written to, emptied ones, those that a crash may have emptied. After
// DDL, without the journal, or if the set went on without what was copied, all of it is.

// copiedTable is a table on record.
type copiedTable struct {
	id int   // in pgdist.tables
	at Place // that its rows are of
}

// halfCopied is [ErrHalfCopied] with what is on record.
type halfCopied struct{ place Place }

func (*halfCopied) Error() string { return ErrHalfCopied.Error() }
func (*halfCopied) Unwrap() error { return ErrHalfCopied }

// copyingSQL makes the record. term and snap of copying are the oldest that a table is of.
const copyingSQL = `CREATE TABLE pgdist.copying (one boolean PRIMARY KEY DEFAULT true CHECK (one), digest text NOT NULL, term bigint NOT NULL, snap text,
		relaxed text, posted boolean NOT NULL DEFAULT false);
	CREATE TABLE pgdist.copied (name text PRIMARY KEY, id int NOT NULL, gen int NOT NULL, term bigint NOT NULL, snap text)`

// posted is added to the last definitions, to be on record with them or not at all.
const posted = "\nUPDATE pgdist.copying SET posted = true;\n"

// copiedSQL ends the record, with the copy.
const copiedSQL = `DROP TABLE pgdist.copying, pgdist.copied, pgdist.attempt`

// digest is of all that two attempts must have in common.
func (r *resync) digest(defs *dumped, create string) (string, error) {
	own, err := scripts("01", "99")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, part := range append([]string{own, r.view.Set, strconv.Itoa(int(r.target.id)), r.system, create, defs.schemas, defs.pre, defs.indexes, defs.attached, defs.post}, r.src.Extensions...) {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// record begins the record of a database that was made anew.
func (r *resync) record(ctx context.Context, digest string) error {
	err := r.setup.exec(ctx, copyingSQL)
	if err == nil {
		_, err = r.setup.call(ctx, `INSERT INTO pgdist.copying (digest, term, snap) VALUES ($1, $2::text::bigint, $3)`,
			text(digest), strconv.AppendInt(nil, r.snap.place.Term, 10), nullable(r.snap.place.Snapshot))
	}
	return r.target.fail("begin the record of the copy", err)
}

// recorded puts a complete table on record.
func (r *resync) recorded(ctx context.Context, t *relation) error {
	own, ok := r.own[t.Name]
	if !ok {
		return nil // it is not mirrored: nothing tells what happens to it
	}
	_, err := r.setup.call(ctx, `INSERT INTO pgdist.copied (name, id, gen, term, snap) VALUES ($1, $2::text::int, $3::text::int, $4::text::bigint, $5)`,
		text(t.Name), strconv.AppendInt(nil, int64(own.id), 10), strconv.AppendInt(nil, int64(own.gen), 10),
		strconv.AppendInt(nil, r.snap.place.Term, 10), nullable(r.snap.place.Snapshot))
	return r.target.fail("record that table "+t.Name+" is copied", err)
}

// ownTable is what the source's snapshot says of a mirrored relation.
type ownTable struct {
	id, gen       int
	keyed, logged bool
}

func (r *resync) readOwn(ctx context.Context) error {
	rows, err := r.snap.c.call(ctx, `SELECT format('%I.%I', n.nspname, c.relname), t.id, t.gen, t.keyed, c.relpersistence = 'p'
		FROM pgdist.tables t, unnest(t.files) f JOIN pg_class c ON c.oid = f JOIN pg_namespace n ON n.oid = c.relnamespace`)
	if err != nil {
		return r.source.fail("list tables", err)
	}
	r.own = make(map[string]ownTable, len(rows))
	for _, row := range rows {
		r.own[string(row[0])] = ownTable{id: number(row[1]), gen: number(row[2]), keyed: row[3][0] == 't', logged: row[4][0] == 't'}
	}
	return nil
}

// takeUp tells whether the target holds a copy that was broken off and can be gone on with;
// then it is ready for contents, and r.taken are the tables that are there.
func (r *resync) takeUp(ctx context.Context, digest string) (bool, error) {
	if !r.half {
		return false, nil
	}
	c, err := dial(ctx, r.target.cfg, copyTo)
	if noDatabase(err) {
		return false, nil
	}
	if err != nil {
		return false, r.target.fail("connect", err)
	}
	why := "it had not come to rows"
	ours, err := r.takeOver(ctx, c)
	if ours {
		why, err = r.resume(ctx, c, digest)
	} else if now, asked := r.target.here(ctx); asked == nil && now.Set == r.view.Set { // who copied it came to the end just now
		err = r.refuse(r.target.host, "", "%w", errNotNeeded)
	}
	if err != nil || why != "" {
		c.close()
	}
	if err != nil {
		return false, err
	}
	if why != "" {
		r.o.Report("the copy on %s that was broken off cannot be gone on with: %s", r.target.host, why)
		return false, nil
	}
	r.setup, r.dropped = c, true
	r.o.Report("going on with the copy on %s that was broken off: %d of %d tables are there", r.target.host, len(r.taken), len(r.snap.tables))
	return true, r.meetRoles(ctx)
}

// resume reads the record; why tells why it is of no use.
func (r *resync) resume(ctx context.Context, c *conn, digest string) (why string, err error) {
	at, on, err := readRecord(ctx, c)
	switch {
	case err != nil:
		return "", r.target.fail("read the record of the copy", err)
	case at == nil:
		return "it had not come to rows", nil
	case on.digest != digest:
		return "definitions are others by now", nil
	case !r.shares(*at):
		return fmt.Sprintf("the set went on without some of what it has, at %v", *at), nil
	}
	if err := complete("the source's", r.snap.floor, *at); err != nil {
		return err.Error(), nil //nolint:nilerr // it is the reason
	}
	n, err := r.snap.c.one(ctx, `SELECT count(*) FROM pgdist.fresh($1::bigint, $2::pg_snapshot) j WHERE j.op = 'd'`, place(*at)...)
	if err != nil {
		return "", r.source.fail("read the journal", err)
	}
	if n != "0" {
		return "there was DDL since", nil
	}
	r.relaxed, r.posted = on.relaxed, on.posted
	return "", r.reuse(ctx, c)
}

// onRecord is what pgdist.copying says.
type onRecord struct {
	digest, relaxed string
	posted          bool
}

// readRecord returns nil if there is none.
func readRecord(ctx context.Context, c *conn) (*Place, *onRecord, error) {
	rows, err := c.call(ctx, `SELECT term, snap, digest, relaxed, posted FROM pgdist.copying`)
	if sqlState(err) == "42P01" || sqlState(err) == "3F000" || err == nil && len(rows) == 0 {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	row := rows[0]
	term, err := strconv.ParseInt(string(row[0]), 10, 64)
	return &Place{Term: term, Snapshot: string(row[1])}, &onRecord{digest: string(row[2]), relaxed: string(row[3]), posted: string(row[4]) == "t"}, err
}

// shares tells whether all that a place has seen is part of the source's history as its
// snapshot sees it.
func (r *resync) shares(at Place) bool {
	base := r.snap.place
	if at.Term != base.Term {
		chain := r.chain()
		i := slices.IndexFunc(chain, func(t termRow) bool { return t.Prev == at.Term })
		if i < 0 || chain[i].Snap == "" { // its leader went on by itself, after a crash that may have cost it something
			return false
		}
		base = Place{Term: at.Term, Snapshot: chain[i].Snap}
	}
	if at.Snapshot == "" {
		return at == base
	}
	ok, err := at.within(base)
	return err == nil && ok
}

// reuse picks the tables on record that are right, or can be made so.
func (r *resync) reuse(ctx context.Context, c *conn) error {
	rows, err := c.call(ctx, `SELECT name, id, gen, term, snap FROM pgdist.copied`)
	if err != nil {
		return r.target.fail("read the record of the copy", err)
	}
	there := map[string]bool{}
	for _, t := range r.snap.tables {
		there[t.Name] = true
	}
	r.taken = map[string]copiedTable{}
	touched := map[Place]map[int]string{}
	for _, row := range rows {
		name, own := string(row[0]), r.own[string(row[0])]
		term, err := strconv.ParseInt(string(row[3]), 10, 64)
		if err != nil {
			return r.target.fail("read the record of the copy", err)
		}
		at := Place{Term: term, Snapshot: string(row[4])}
		if !there[name] || !own.logged || own.id != number(row[1]) || own.gen != number(row[2]) || !r.shares(at) {
			continue
		}
		if touched[at] == nil {
			if touched[at], err = r.touched(ctx, at); err != nil {
				return err
			}
		}
		if ops := touched[at][own.id]; ops != "" && (!own.keyed || strings.Trim(ops, "k") != "") {
			continue
		}
		r.taken[name] = copiedTable{id: own.id, at: at}
	}
	return r.oldest(ctx, c)
}

// touched tells for each table what was journaled of it after a place.
func (r *resync) touched(ctx context.Context, at Place) (map[int]string, error) {
	rows, err := r.snap.c.call(ctx, `SELECT j.tab, string_agg(DISTINCT CASE WHEN j.gen = t.gen THEN j.op::text ELSE 'c' END, '') FROM pgdist.fresh($1::bigint, $2::pg_snapshot) j
		JOIN pgdist.tables t ON t.id = j.tab GROUP BY j.tab`, place(at)...)
	if err != nil {
		return nil, r.source.fail("read the journal", err)
	}
	out := make(map[int]string, len(rows))
	for _, row := range rows {
		out[number(row[0])] = string(row[1])
	}
	return out, nil
}

// oldest puts on record from where the journal is needed if this attempt is broken off, too,
// and takes off it what is not used.
func (r *resync) oldest(ctx context.Context, c *conn) error {
	low := r.snap.place
	for _, t := range r.taken {
		if ok, err := t.at.within(low); err == nil && ok {
			low = t.at
		}
	}
	if err := c.exec(ctx, "BEGIN"); err != nil {
		return r.target.fail("record the copy", err)
	}
	if _, err := c.call(ctx, `UPDATE pgdist.copying SET term = $1::text::bigint, snap = $2`, place(low)...); err != nil {
		return r.target.fail("record the copy", err)
	}
	if _, err := c.call(ctx, `DELETE FROM pgdist.copied WHERE name <> ALL ($1::text[])`, literalOf(slices.Collect(maps.Keys(r.taken)))); err != nil {
		return r.target.fail("record the copy", err)
	}
	return r.target.fail("record the copy", c.exec(ctx, "COMMIT"))
}

// literalOf is a text[] of these.
func literalOf(list []string) []byte {
	if len(list) == 0 {
		return text("{}")
	}
	var lit []byte
	for _, s := range list {
		lit = appendElement(lit, text(s))
	}
	return finish(lit)
}

// clear empties what an attempt before has left in tables that are copied now, and what the
// catch-up is to bring. A TRUNCATE is refused where foreign keys refer to a table (0A000), which then has a key; a DELETE, where a
// publication has one that has none: so it publishes none of these. (Publications are there
// when an attempt before had come to the last definitions.)
func (r *resync) clear(ctx context.Context, names []string) error {
	return r.target.fail("empty tables that were copied in part", r.setup.exec(ctx, `DO $do$ DECLARE t text; BEGIN
		FOREACH t IN ARRAY `+quoteLiteral(string(literalOf(names)))+`::text[] LOOP
			DELETE FROM pgdist.copied c WHERE c.name = t;
			BEGIN EXECUTE 'TRUNCATE ONLY ' || t; EXCEPTION WHEN feature_not_supported THEN
				PERFORM pgdist.withhold(); EXECUTE 'DELETE FROM ONLY ' || t; PERFORM pgdist.publish_again(); END;
		END LOOP; END $do$`))
}

// forward brings tables that are of an older place to the snapshot. What the functions that
// put rows in place need is made for it in a transaction in which the database says who it is,
// and unsaid before its end.
func (r *resync) forward(ctx context.Context) error {
	groups := map[Place]tabSet{}
	from := map[int]Place{}
	for _, t := range r.taken {
		if old, ok := from[t.id]; ok { // partitions may be of several
			if within, err := t.at.within(old); err != nil || !within {
				continue
			}
		}
		from[t.id] = t.at
	}
	for id, at := range from {
		ops, err := r.touchedOnce(ctx, at)
		if err != nil {
			return err
		}
		if ops[id] == "" {
			continue
		}
		if groups[at] == nil {
			groups[at] = tabSet{}
		}
		groups[at][id] = true
	}
	if len(groups) == 0 {
		return r.told(ctx)
	}
	r.o.Report("bringing tables of before up to date")
	if err := r.setup.exec(ctx, "BEGIN; SELECT pgdist.withhold()"); err != nil {
		return r.target.fail("bring tables up to date", err)
	}
	if err := r.identity(ctx, r.view.Set); err != nil {
		return err
	}
	for at, ids := range groups {
		err := r.forwardFrom(ctx, at, ids, r.cfg.BatchKeys)
		if tooWide(err) {
			err = r.forwardFrom(ctx, at, ids, 1)
		}
		if err != nil {
			return err
		}
	}
	if err := r.told(ctx); err != nil {
		return err
	}
	return r.target.fail("bring tables up to date", r.setup.exec(ctx, "DELETE FROM pgdist.meta; SELECT pgdist.publish_again(); COMMIT"))
}

// told makes sure that the source's journal was whole when it was asked: TRUNCATE, by which it is
// pruned, takes from older snapshots, too. (That it is kept meanwhile may not have been possible.)
func (r *resync) told(ctx context.Context) error {
	if len(r.taken) == 0 {
		return nil
	}
	now, err := r.source.here(ctx)
	if err != nil {
		return r.source.fail("look after its journal", err)
	}
	for _, t := range r.taken {
		if err := complete("the source's", now.floor(), t.at); err != nil {
			return &Error{Op: "resync", Host: r.target.host, Err: err, Hint: "run it again: it begins anew"}
		}
	}
	return nil
}

// touchedOnce is touched, which is asked of each place once.
func (r *resync) touchedOnce(ctx context.Context, at Place) (map[int]string, error) {
	if ops, ok := r.ops[at]; ok {
		return ops, nil
	}
	ops, err := r.touched(ctx, at)
	if r.ops == nil {
		r.ops = map[Place]map[int]string{}
	}
	r.ops[at] = ops
	return ops, err
}

// forwardFrom ships, of some tables, the rows touched since a place as the snapshot sees them.
func (r *resync) forwardFrom(ctx context.Context, at Place, ids tabSet, chunk int) error {
	src, err := dial(ctx, r.source.cfg, readerSettings)
	if err != nil {
		return r.source.fail("connect", err)
	}
	defer src.close()
	if err := src.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT "+quoteLiteral(r.snap.name)); err != nil {
		return r.source.fail("take over the snapshot", err)
	}
	st := &streamer{c: src, from: at, chunk: chunk, read: tabSet{}, emit: func(o op) error {
		s, err := o.step(false)
		if err == nil {
			_, err = r.setup.call(ctx, s.sql, s.params...)
		}
		return r.target.fail("bring tables up to date", err)
	}}
	tables, err := st.tables(ctx)
	if err != nil {
		return r.source.fail("list tables", err)
	}
	others := map[int]bool{}
	for id := range tables {
		others[id] = !ids[id]
	}
	for _, step := range []func(context.Context, map[int]table, map[int]bool) error{st.deletes, st.rows} {
		if err := step(ctx, tables, others); err != nil {
			return fmt.Errorf("bring tables up to date: %w", err)
		}
	}
	if _, err := src.call(ctx, `SELECT pgdist.unchanged($1::int[])`, st.read.literal()); err != nil {
		return r.source.fail("bring tables up to date", errors.Join(errRewrittenMeanwhile, err))
	}
	return r.source.fail("bring tables up to date", src.exec(ctx, "COMMIT"))
}

// halfCopied is the error of a database that is nobody, with what is on record if that can be
// read.
func (c *conn) halfCopied(ctx context.Context) error {
	if there, err := c.one(ctx, `SELECT to_regclass('pgdist.copying') IS NOT NULL`); err != nil || there != "t" {
		return ErrHalfCopied
	}
	if at, _, err := readRecord(ctx, c); err == nil && at != nil {
		return &halfCopied{*at}
	}
	return ErrHalfCopied
}
