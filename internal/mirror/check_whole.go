package mirror

import (
	"context"
	"errors"
	"math/big"
	"strconv"
	"strings"

	"github.com/pgdist/pgdist/health"
)

// Tables without a key, or with one that rows are not sorted by, are read whole, part by
// part under one snapshot. Digests add up: what was journaled since the follower's position
// can be taken off the leader's.

// lookWhole compares a table that can only be read whole.
func (p *patroller) lookWhole(ctx context.Context, t *checkTable) (sight, error) {
	sums, places := map[health.MemberID]TableSum{}, map[health.MemberID]Place{}
	for _, id := range p.view.Followers() {
		err := p.frozen(ctx, id, t, func(s *side, at Place) (err error) {
			places[id] = at
			sums[id], err = p.sum(ctx, s, t)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	seen := sight{}
	err := p.frozen(ctx, p.view.Leader, t, func(s *side, _ Place) error {
		lead, err := p.sum(ctx, s, t)
		if err != nil {
			return err
		}
		p.rows += lead.Rows
		return s.with(ctx, func(c *conn) error {
			for id, have := range sums {
				if have == lead {
					continue
				}
				want, err := p.asOf(ctx, c, t, lead, places[id])
				if err == nil && have != want {
					err = p.covered(ctx, places[id])
				}
				if err != nil {
					return err
				}
				if have != want {
					seen[id] = map[string]string{"": have.Sum}
				}
			}
			return nil
		})
	})
	return seen, err
}

// frozen runs f with a member, for a table, as one snapshot sees it, and what that snapshot is.
func (p *patroller) frozen(ctx context.Context, id health.MemberID, t *checkTable, f func(s *side, at Place) error) error {
	c, err := p.conn(ctx, id)
	if err != nil {
		return err
	}
	if err := c.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"); err != nil {
		return p.over(c, err)
	}
	at, err := p.stands(ctx, c, id, t)
	var snap string
	if err == nil {
		snap, err = c.one(ctx, exportSQL)
	}
	if err != nil {
		return p.over(c, err)
	}
	// Handed over to a transaction without locks: this one has looked at the fence.
	h := &side{m: p.who[id], snapshot: snap, pace: p.pace[id], conns: make(chan *conn, 1)}
	h.conns <- nil
	keeper, err := dial(ctx, h.m.cfg, readerSettings)
	if err != nil {
		return p.over(c, h.m.fail("connect", err))
	}
	defer keeper.close()
	if err = keeper.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT "+quoteLiteral(snap)); err == nil {
		h.snapshot, err = keeper.one(ctx, exportSQL)
	}
	if err != nil {
		return p.over(c, err)
	}
	if err := c.exec(ctx, "COMMIT"); err != nil {
		return p.over(c, err)
	}
	defer h.close()
	return f(h, at)
}

const leavesSQL = `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_partition_tree(to_regclass($1::text)) x JOIN pg_class c ON c.oid = x.relid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE x.isleaf
	UNION SELECT $1::text WHERE (SELECT relkind FROM pg_class WHERE oid = to_regclass($1::text)) = 'r'`

// sum digests the table, at the rate that is allowed.
func (p *patroller) sum(ctx context.Context, s *side, t *checkTable) (total TableSum, err error) {
	var leaves []string
	err = s.with(ctx, func(c *conn) error {
		rows, err := c.call(ctx, leavesSQL, text(t.name))
		for _, r := range rows {
			leaves = append(leaves, string(r[0]))
		}
		if err == nil {
			s.tables, err = readRelations(ctx, c)
		}
		return err
	})
	if err != nil {
		return total, err
	}
	v := &verification{set: p.s, o: VerifyOptions{Jobs: 1, Rate: p.s.cfg.CheckRate}, view: p.view}
	for _, name := range leaves {
		if s.tables[name] == nil {
			return total, errUnsure
		}
		u := &subject{name: name, columns: t.columns, sides: []*side{s}, sums: make([]TableSum, 1)}
		parts := v.partsOf(u, 0)
		u.left = len(parts)
		for _, part := range parts {
			if err := v.readPart(ctx, part); err != nil {
				return total, err
			}
		}
		if u.moved != nil {
			return total, errors.Join(errUnsure, u.moved)
		}
		sums := strings.Split(u.sums[0].Sum, "/")
		total = total.plus(u.sums[0].Rows, text(sums[0]), text(sums[1]))
	}
	if len(leaves) == 0 {
		return total, errUnsure
	}
	p.s.checks.read(total.Rows)
	return total, nil
}

// asOf is what the leader's digest was at a place, by what was journaled since.
func (p *patroller) asOf(ctx context.Context, c *conn, t *checkTable, lead TableSum, at Place) (TableSum, error) {
	if t.keyed || !t.exact {
		touched, err := c.one(ctx, `SELECT EXISTS (SELECT 1 FROM pgdist.fresh($2::bigint, $3::pg_snapshot) j WHERE j.tab = $1::int OR j.op = 'd')`,
			strconv.AppendInt(nil, int64(t.id), 10), strconv.AppendInt(nil, at.Term, 10), nullable(at.Snapshot))
		if err == nil && touched != "f" {
			err = errUnsure
		}
		return lead, err
	}
	rows, err := c.call(ctx, `SELECT m[1], -m[2], -m[3] FROM pgdist.moved_by($1::int, $2::int, $3::bigint, $4::pg_snapshot) m`,
		strconv.AppendInt(nil, int64(t.id), 10), strconv.AppendInt(nil, int64(t.gen), 10), strconv.AppendInt(nil, at.Term, 10), nullable(at.Snapshot))
	if err != nil {
		return lead, err
	}
	if rows[0][0] == nil {
		return lead, errUnsure
	}
	n, ok := new(big.Int).SetString(string(rows[0][0]), 10)
	if !ok {
		return lead, errUnsure
	}
	return lead.plus(-n.Int64(), rows[0][1], rows[0][2]), nil
}
