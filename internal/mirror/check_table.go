package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgdist/pgdist/health"
)

const (
	// checkChunk is how many rows are compared at once.
	checkChunk = 500
	// checkHold is for how long the snapshot of a table may be kept that can only be read
	// whole: it holds back vacuum, and the journal must still have what came since (JournalKeep).
	// A table that takes longer is left to pgdist verify.
	checkHold = 4 * time.Minute
	// checkTries is how often what cannot be told for the moment is looked at again.
	checkTries = 8
	// checkPieces is of how many pieces of a table rows are shipped anew; if more differ,
	// all of it is.
	checkPieces = 3
	// checkBack is how long a member that was put right is waited for.
	checkBack = 2 * time.Minute
)

// checkTable is a table as pgdist.checkable() tells of it.
type checkTable struct {
	id, gen                  int
	name, source             string
	keyed                    bool
	rows                     float64
	image                    string
	columns                  []string
	exact                    bool
	key                      string
	seek, from, upto, sorted string // "": it can only be read whole
}

// errUnsure: what was seen says nothing; it is to be looked at again.
var errUnsure = errors.New("it changed meanwhile")

func (p *patroller) list(ctx context.Context) ([]*checkTable, error) {
	rows, err := p.hold.call(ctx, `SELECT id, gen, name, source, keyed, rows, image, columns, exact, key, seek, "from", upto, sorted FROM pgdist.checkable()`)
	if err != nil {
		return nil, err
	}
	var out []*checkTable
	for _, r := range rows {
		t := &checkTable{id: number(r[0]), gen: number(r[1]), name: string(r[2]), source: string(r[3]), keyed: r[4][0] == 't', image: string(r[6]), exact: r[8][0] == 't',
			key: string(r[9]), seek: string(r[10]), from: string(r[11]), upto: string(r[12]), sorted: string(r[13])}
		if t.rows, err = strconv.ParseFloat(string(r[5]), 64); err != nil {
			return nil, err
		}
		if err := decode(r[7], &t.columns); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// table compares one table from the row behind a key on. What it may not read, or what
// changes all the time, is left out, and said so once.
func (p *patroller) table(ctx context.Context, t *checkTable, from []byte) error {
	if t.sorted == "" {
		if t.rows > p.s.cfg.CheckRate*checkHold.Seconds() {
			p.once("a table without a sorted key is too large to be compared in the background: pgdist verify compares it", t, nil)
			return nil
		}
		_, err := p.piece(ctx, t, func() (sight, []byte, error) { s, err := p.lookWhole(ctx, t); return s, nil, err })
		return err
	}
	for {
		next, err := p.piece(ctx, t, func() (sight, []byte, error) { return p.look(ctx, t, from) })
		if err != nil || next == nil {
			return err
		}
		from = next
		if time.Since(p.noted) > noteEvery {
			if err := p.note(ctx, t.id, from); err != nil {
				return err
			}
		}
	}
}

// once tells the log of something once.
func (p *patroller) once(what string, t *checkTable, err error) {
	if key := what + t.name; !p.told[key] {
		p.told[key] = true
		p.s.log.Warn(what, "table", t.name, "err", err)
	}
}

// sight is what differs on each follower: the digests that these have, "" for rows that
// they lack, by the key. A table that is read whole has one entry, of the key "".
type sight map[health.MemberID]map[string]string

// piece compares one piece until nothing of it differs, or nothing can be done, and
// returns the key of its last row; nil: the table is through.
func (p *patroller) piece(ctx context.Context, t *checkTable, look func() (sight, []byte, error)) ([]byte, error) {
	var before sight
	for unsure := 0; ; {
		if err := p.refresh(); err != nil {
			return nil, err
		}
		seen, next, err := look()
		if err != nil {
			switch state := sqlState(err); {
			case state == "42501":
				p.once("a table cannot be compared in the background: the mirror's role may not read it: GRANT pg_read_all_data, or give a superuser as mirror_user", t, err)
				return nil, nil
			case (state == "42P01" || state == "3F000") && p.gone(ctx, t): // the next round has it by its new name, if any
				return nil, nil
			case !errors.Is(err, errUnsure) && !isMoved(ctx, err) && state != "55P03":
				return nil, err
			case unsure == checkTries:
				p.once("a table changes too often to be compared in the background", t, err)
				return next, nil
			}
			unsure, before = unsure+1, nil
			if !sleep(ctx, p.times.still) {
				return nil, context.Cause(ctx)
			}
			continue
		}
		if len(seen) == 0 {
			return next, nil
		}
		if both := seen.and(before); len(both) > 0 {
			if done, err := p.act(ctx, t, both); err != nil || done {
				return next, err
			}
			before = nil
			continue
		}
		before = seen
		if !sleep(ctx, p.times.still) {
			return nil, context.Cause(ctx)
		}
	}
}

// gone tells whether the leader has no table of that name and number any more.
func (p *patroller) gone(ctx context.Context, t *checkTable) bool {
	called, err := p.hold.one(ctx, `SELECT `+isCalled, t.identity()...)
	return err == nil && called != "t"
}

// isCalled asks whether identity is still what a table is called by.
const isCalled = `pgdist.is_called($1::int, $2::int, $3)`

func (t *checkTable) identity() [][]byte {
	return [][]byte{strconv.AppendInt(nil, int64(t.id), 10), strconv.AppendInt(nil, int64(t.gen), 10), text(t.name)}
}

// and keeps what differed the last time, too.
func (s sight) and(before sight) sight {
	out := sight{}
	for id, rows := range s {
		for k, sum := range rows {
			if _, ok := before[id][k]; ok {
				if out[id] == nil {
					out[id] = map[string]string{}
				}
				out[id][k] = sum
			}
		}
	}
	return out
}

// refresh goes by the present view, unless another member leads.
func (p *patroller) refresh() error {
	v := p.s.View()
	switch {
	case v.Term != p.view.Term:
		return ErrTermOver
	case len(v.Followers()) == 0:
		return errors.New("no follower is in sync")
	case p.hold.IsClosed():
		return errors.New("the connection that holds the claim was lost")
	}
	p.view = v
	return nil
}

// act deals with what differs for certain; done tells that nothing more can be done now.
func (p *patroller) act(ctx context.Context, t *checkTable, seen sight) (done bool, err error) {
	p.bad++
	ids := slices.Sorted(maps.Keys(seen))
	if all := p.view.Followers(); len(all) > 1 && len(ids) == len(all) && !slices.ContainsFunc(ids, func(id health.MemberID) bool { return !maps.Equal(seen[id], seen[ids[0]]) }) {
		for _, id := range ids {
			p.s.checks.found(id)
		}
		what := "all followers hold the same, and the leader something else: " + t.saying(seen[ids[0]])
		if !p.told[what] {
			p.told[what] = true
			p.s.log.Error("all followers agree with each other and differ from the leader; nothing is done about it", "leader", p.s.hostOf(p.view.Leader), "table", t.name, "rows", saidKeys(seen[ids[0]]),
				"hint", "look at both; pgdist switchover has a follower lead, pgdist verify --repair --force takes what the leader has")
			p.s.notice("", what)
		}
		return true, nil
	}
	id, rows := ids[0], seen[ids[0]]
	what := t.saying(rows)
	p.s.checks.found(id)
	p.s.log.Error("a member differs from the leader: excluding it until that is put right; it has been read until now", "member", p.s.hostOf(id), "table", t.name, "rows", saidKeys(rows))
	p.s.notice(p.s.hostOf(id), "differs from the leader, and was read until now: "+what)
	err = p.s.expel(ctx, p.view, id, []wound{p.wound(t, id, rows)}, what)
	if errors.Is(err, errSuperseded) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, checkBack, health.ErrTimeout)
	defer cancel()
	return false, p.s.awaitBack(ctx, id)
}

// wound tells what is to be shipped anew: these rows, the table if many pieces of it
// differ, and everything if that did not help.
func (p *patroller) wound(t *checkTable, id health.MemberID, rows map[string]string) wound {
	w := wound{tab: t.id, gen: t.gen, table: t.name}
	pieces := repaired{id: id, tab: t.id}
	p.count[pieces]++
	for k := range rows {
		at := repaired{id, t.id, k}
		if p.twice[at] {
			return wound{} // shipped, and differs all the same
		}
		p.twice[at] = true
		if k != "" {
			w.keys = append(w.keys, text(k))
		}
	}
	if p.count[pieces] > checkPieces {
		w.keys = nil
	}
	return w
}

// saying is what differs, in one line.
func (t *checkTable) saying(rows map[string]string) string {
	if t.sorted == "" {
		return "table " + t.name + " has other contents"
	}
	return fmt.Sprintf("table %s: %s: %s", t.name, countOf(len(rows), false), strings.Join(saidKeys(rows), ", "))
}

// saidKeys are the first keys of what differs.
func saidKeys(rows map[string]string) (out []string) {
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		if k == "" {
			continue // the table was read whole
		}
		if len(out) == firstRows {
			return append(out, "…")
		}
		out = append(out, *cut(&k, 0))
	}
	return out
}

// conn is the connection that a member is read over.
func (p *patroller) conn(ctx context.Context, id health.MemberID) (*conn, error) {
	if c := p.conns[id]; c != nil && !c.IsClosed() && c.TxStatus() == 'I' {
		return c, nil
	}
	p.conns[id].close()
	m, err := p.member(id)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, m.cfg, m.named(map[string]string{"search_path": "", "default_transaction_read_only": "on", "max_parallel_workers_per_gather": "0"}))
	if err != nil {
		return nil, m.fail("connect", err)
	}
	p.conns[id] = c
	return c, nil
}

// chunk is some rows of a member as one snapshot sees them.
type chunk struct {
	at   Place
	rows map[string]string // digests by key
	cut  bool              // there may be more
}

// look compares the rows behind a key, as many as make a chunk.
func (p *patroller) look(ctx context.Context, t *checkTable, from []byte) (sight, []byte, error) {
	lead, err := p.conn(ctx, p.view.Leader)
	if err != nil {
		return nil, nil, err
	}
	q := `SELECT ` + t.key + ` FROM ` + t.source
	var args [][]byte
	if from != nil {
		q, args = q+` WHERE `+t.seek+` OPERATOR(pg_catalog.>) `+t.from, append(args, from)
	}
	end, err := lead.call(ctx, q+` ORDER BY `+t.sorted+` OFFSET `+strconv.Itoa(checkChunk-1)+` LIMIT 1`, args...)
	if err != nil {
		return nil, nil, err
	}
	var upto []byte
	if len(end) == 1 {
		upto = end[0][0]
	}
	members := p.view.Followers()
	have := map[health.MemberID]*chunk{}
	for _, id := range members {
		c, err := p.conn(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if have[id], err = p.chunk(ctx, c, id, t, from, upto); err == nil {
			err = c.exec(ctx, "COMMIT")
		}
		if err != nil {
			return nil, upto, p.over(c, err)
		}
	}
	want, err := p.chunk(ctx, lead, p.view.Leader, t, from, upto)
	if err == nil && want.cut {
		err = errUnsure // much was written since its end was looked for
	}
	seen := sight{}
	for _, id := range members {
		if err == nil {
			var d map[string]string
			if d, err = p.differ(ctx, lead, t, have[id], want); len(d) > 0 {
				seen[id] = d
			}
		}
	}
	if err == nil {
		err = lead.exec(ctx, "COMMIT")
	}
	if err != nil {
		return nil, upto, p.over(lead, err)
	}
	p.rows += int64(len(want.rows))
	for _, id := range append(members, p.view.Leader) {
		n := want
		if id != p.view.Leader {
			n = have[id]
		}
		p.s.checks.read(int64(len(n.rows)))
		if err := p.pace[id].spend(ctx, int64(len(n.rows))); err != nil {
			return nil, nil, err
		}
	}
	return seen, upto, nil
}

// over ends a transaction that failed, with its connection.
func (p *patroller) over(c *conn, err error) error {
	c.close()
	return err
}

// chunk reads rows in a transaction that it leaves open. The lock comes before the snapshot:
// what TRUNCATE and ALTER did since would not show in it.
func (p *patroller) chunk(ctx context.Context, c *conn, id health.MemberID, t *checkTable, from, upto []byte) (*chunk, error) {
	err := c.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL lock_timeout = '300ms'; LOCK TABLE "+strings.TrimSuffix(t.source, " t")+" IN ACCESS SHARE MODE")
	if err != nil {
		return nil, err
	}
	out := &chunk{rows: map[string]string{}}
	if out.at, err = p.stands(ctx, c, id, t); err != nil {
		return nil, err
	}
	var conds []string
	args := [][]byte{from, upto}
	switch {
	case from == nil && upto == nil:
		args = nil
	case from == nil:
		args = [][]byte{upto}
		conds = append(conds, t.seek+` OPERATOR(pg_catalog.<=) `+t.from)
	default:
		conds = append(conds, t.seek+` OPERATOR(pg_catalog.>) `+t.from)
		if upto == nil {
			args = args[:1]
		} else {
			conds = append(conds, t.seek+` OPERATOR(pg_catalog.<=) `+t.upto)
		}
	}
	where := ""
	if len(conds) > 0 {
		where = " WHERE " + strings.Join(conds, " AND ")
	}
	const most = 4*checkChunk + 1
	rows, err := c.call(ctx, `SELECT x.k, `+rowSum+` FROM (SELECT `+t.key+` AS k, `+t.image+` AS r FROM `+t.source+where+` ORDER BY `+t.sorted+` LIMIT `+strconv.Itoa(most)+`) x`, args...)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		out.rows[string(r[0])] = string(r[1])
	}
	out.cut = len(rows) == most
	return out, nil
}

// stands tells what a snapshot of a member is: the position of a follower; of the leader,
// that it leads. errUnsure: it is not what the view says, or the table is not the one of this
// name any more: what is read by its name is not what the journal says of its number.
func (p *patroller) stands(ctx context.Context, c *conn, id health.MemberID, t *checkTable) (at Place, err error) {
	if id != p.view.Leader {
		if at, _, err = p.who[id].spot(ctx, c); err != nil {
			return at, err
		}
	}
	rows, err := c.call(ctx, `SELECT pgdist.office(), pgdist.sound(), `+isCalled, t.identity()...)
	if err != nil {
		return at, err
	}
	term, sound, called := string(rows[0][0]), string(rows[0][1]), string(rows[0][2])
	if id == p.view.Leader {
		sound = "t"
	} else {
		term = strconv.FormatInt(at.Term, 10)
	}
	if term != strconv.FormatInt(p.view.Term, 10) || sound != "t" || called != "t" {
		err = errUnsure
	}
	return at, err
}

// differ lists what a follower has otherwise than the leader, though nobody has touched it
// since the follower's position. lead is in the transaction in which want was read.
func (p *patroller) differ(ctx context.Context, lead *conn, t *checkTable, have, want *chunk) (map[string]string, error) {
	out := map[string]string{}
	for k, sum := range have.rows {
		if want.rows[k] != sum {
			out[k] = sum
		}
	}
	for k := range want.rows {
		if _, ok := have.rows[k]; !ok && !have.cut {
			out[k] = ""
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	var lit []byte
	for k := range out {
		lit = appendElement(lit, text(k))
	}
	touched, err := lead.call(ctx, `SELECT t.k FROM (SELECT pgdist.touched($1::int, $2::int, $3::bigint, $4::pg_snapshot, $5::text[]) AS a) x LEFT JOIN LATERAL unnest(x.a) t(k) ON true WHERE t.k IS NOT NULL OR x.a IS NULL`,
		strconv.AppendInt(nil, int64(t.id), 10), strconv.AppendInt(nil, int64(t.gen), 10), strconv.AppendInt(nil, have.at.Term, 10), nullable(have.at.Snapshot), finish(lit))
	if err != nil {
		return nil, err
	}
	for _, r := range touched {
		if r[0] == nil {
			return nil, errUnsure
		}
		delete(out, string(r[0]))
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, p.covered(ctx, have.at)
}

// covered makes sure that the leader's journal, which was read just now, still had all that
// came after a place.
func (p *patroller) covered(ctx context.Context, at Place) error {
	ok, err := p.hold.one(ctx, `SELECT pgdist.covers($1::bigint, $2::pg_snapshot)`, strconv.AppendInt(nil, at.Term, 10), nullable(at.Snapshot))
	if err == nil && ok != "t" {
		err = errUnsure
	}
	return err
}
