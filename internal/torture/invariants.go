package torture

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Invariant is a query that returns no row on any database that holds whole
// transactions of the workload and nothing else: on every member, at every
// snapshot, during the run and after it. A row it does return, as one text,
// tells what is wrong.
type Invariant struct {
	Name string
	SQL  string
}

// lastOf builds the query for a table that holds, per key, the last operation
// which the ledger has for it.
func lastOf(kind, key, from string) string {
	return `SELECT concat_ws(' ', 'key', l.key, 'last op', l.op, 'has', x.op)
FROM (SELECT DISTINCT ON (key) key, op FROM torture.ledger WHERE kind = '` + kind + `' ORDER BY key, op DESC) AS l
LEFT JOIN (SELECT ` + key + ` AS key, op FROM ` + from + `) AS x USING (key) WHERE x.op IS DISTINCT FROM l.op`
}

// Invariants returns all of them.
func Invariants() []Invariant {
	return []Invariant{
		{"bank sum", fmt.Sprintf(`SELECT 'sum ' || sum(balance) FROM torture.accounts HAVING sum(balance) <> %d`, bankTotal)},
		{"bank balance", `SELECT 'account ' || id || ' has ' || balance FROM torture.accounts WHERE balance < 0`},
		{"audit has each op once", `SELECT concat_ws(' ', 'op', coalesce(l.op, a.op), 'audited', coalesce(a.n, 0), 'times')
FROM torture.ledger l FULL JOIN (SELECT op, count(*) AS n FROM torture.audit GROUP BY op) a USING (op) WHERE l.op IS NULL OR a.n IS DISTINCT FROM 1`},
		{"items in the ledger", `SELECT concat_ws(' ', 'op', i.op) FROM torture.items i LEFT JOIN torture.ledger l ON l.op = i.op AND l.key = i.id::text WHERE l.op IS NULL`},
		{"counters", `SELECT concat_ws(' ', 'sum', (SELECT sum(n) FROM torture.counters), 'ledger', coalesce(sum(amount), 0)) FROM torture.ledger WHERE kind = 'counter'
HAVING coalesce(sum(amount), 0) <> (SELECT sum(n) FROM torture.counters)`},
		{"grid", `SELECT concat_ws(' ', 'sum', (SELECT sum(n) FROM torture.grid), 'ledger', coalesce(sum(amount), 0)) FROM torture.ledger WHERE kind = 'grid'
HAVING coalesce(sum(amount), 0) <> (SELECT sum(n) FROM torture.grid)`},
		{"nested triggers", `SELECT concat_ws(' ', 'lane', lane, 'id', id, 'touches', touches, 'v', v, 'echo', echo) FROM torture.nested WHERE touches <> v OR v <> echo`},
		{"nested touches", `SELECT concat_ws(' ', 'sum', (SELECT sum(touches) FROM torture.nested), 'ledger', coalesce(sum(amount), 0)) FROM torture.ledger WHERE kind = 'nested'
HAVING coalesce(sum(amount), 0) <> coalesce((SELECT sum(touches) FROM torture.nested), 0)`},
		{"latest", lastOf("latest", "lane || '/' || key", "torture.latest")},
		{"key moves", lastOf("moving", "lane::text", "torture.moving")},
		{"partition moves", lastOf("region", "id::text", "torture.regions")},
		{"one region each", `SELECT concat_ws(' ', 'id', id, 'is in', count(*), 'partitions') FROM torture.regions GROUP BY id HAVING count(*) <> 1`},
		{"equal keys", lastOf("alike", "lane::text", "torture.alike")},
		{"equal keys' bytes", `SELECT concat_ws(' ', 'lane', a.lane, 'ledger', l.note, 'has', concat_ws('|', a.n, a.b, a.f, a.i, a.j, a.ns))
FROM torture.alike a JOIN torture.ledger l ON l.op = a.op WHERE l.note <> concat_ws('|', a.n, a.b, a.f, a.i, a.j, a.ns)`},
		{"slots", `SELECT concat_ws(' ', 'lane', lane, string_agg(pos::text, ',')) FROM torture.slots GROUP BY lane HAVING array_agg(pos ORDER BY pos) <> '{1,2,3,4}'`},
		{"ranks", `SELECT concat_ws(' ', 'lane', lane, string_agg(rank::text, ',')) FROM torture.ranks GROUP BY lane HAVING array_agg(rank ORDER BY rank) <> '{1,2,3,4}'`},
		{"tally", `SELECT concat_ws(' ', 'sum', sum(n)) FROM torture.tally HAVING coalesce(sum(n), 0) <> (SELECT count(*) FROM torture.ledger WHERE kind = 'tally')`},
		{"stock", `SELECT concat_ws(' ', 'lane', coalesce(s.lane, g.lane), 'key', coalesce(s.key, g.key), 'qty', s.qty, 'log', g.sum)
FROM torture.stock s FULL JOIN (SELECT lane, key, sum(delta) FROM torture.stock_log GROUP BY lane, key) g USING (lane, key) WHERE coalesce(s.qty, 0) <> coalesce(g.sum, 0)`},
		{"families", `SELECT concat_ws(' ', 'child', c.id, 'parent', c.parent) FROM torture.children c LEFT JOIN torture.parents p ON p.id = c.parent WHERE p.id IS NULL
UNION ALL SELECT concat_ws(' ', 'adopted', a.id, 'parent', a.parent) FROM torture.adopted a LEFT JOIN torture.parents p ON p.id = a.parent WHERE a.parent IS NOT NULL AND p.id IS NULL
UNION ALL SELECT concat_ws(' ', 'child', coalesce(c.id, g.child), 'grandchildren', count(g.n)) FROM torture.children c FULL JOIN torture.grandchildren g ON g.child = c.id
  GROUP BY c.id, g.child HAVING c.id IS NULL OR count(g.n) <> 2
UNION ALL SELECT concat_ws(' ', 'parent', p.id, 'children', count(c.id)) FROM torture.parents p LEFT JOIN torture.children c ON c.parent = p.id GROUP BY p.id HAVING count(c.id) <> 2`},
		{"jobs in the ledger", `SELECT concat_ws(' ', 'job', j.id, 'op', j.op, 'taken', j.taken) FROM torture.jobs j
LEFT JOIN torture.ledger q ON q.op = j.op AND q.key = j.id::text LEFT JOIN torture.ledger t ON t.op = j.taken AND t.key = j.id::text
WHERE q.op IS NULL OR (j.taken IS NOT NULL AND t.op IS NULL)`},
		{"jobs taken once", `SELECT concat_ws(' ', 'job', key, 'taken', count(*), 'times') FROM torture.ledger WHERE kind = 'take' GROUP BY key HAVING count(*) > 1`},
		{"events", `SELECT concat_ws(' ', 'op', coalesce(l.op, e.op), 'ledger', l.amount, 'rows', coalesce(e.n, 0))
FROM (SELECT * FROM torture.ledger WHERE kind = 'events') l FULL JOIN (SELECT op, count(*) AS n FROM torture.events GROUP BY op) e USING (op) WHERE l.amount IS DISTINCT FROM coalesce(e.n, 0)`},
		{"copied", `SELECT concat_ws(' ', 'op', coalesce(l.op, c.op), 'ledger', l.amount, 'rows', coalesce(c.n, 0))
FROM (SELECT * FROM torture.ledger WHERE kind = 'copy') l FULL JOIN (SELECT op, count(*) AS n FROM torture.copied GROUP BY op) c USING (op) WHERE l.amount IS DISTINCT FROM coalesce(c.n, 0)`},
		{"bookings overlap", `SELECT concat_ws(' ', a.id, b.id, a.during) FROM torture.bookings a JOIN torture.bookings b ON a.during && b.during AND a.id < b.id`},
		// TRUNCATE is not MVCC-safe: an older snapshot sees no rows at all.
		{"scratch", `SELECT concat_ws(' ', 'rows', count(*), 'ops', count(DISTINCT op)) FROM torture.scratch HAVING count(*) <> 0 AND (count(*) <> 5 OR count(DISTINCT op) <> 1)`},
		{"left and right", `SELECT concat_ws(' ', 'left', a.op, 'right', b.op) FROM torture.lefts a FULL JOIN torture.rights b USING (op) WHERE a.op IS NULL OR b.op IS NULL`},
		{"zoo in the ledger", `SELECT concat_ws(' ', 'op', z."Op.Id") FROM ` + zoo + ` z LEFT JOIN torture.ledger l ON l.op = z."Op.Id" AND l.key = z."select"::text WHERE l.op IS NULL`},
	}
}

// CheckInvariants runs all of them, each at its own snapshot unless q is a
// transaction with one, and joins what they found. An error of the database
// itself ends the check.
func CheckInvariants(ctx context.Context, q Queryer) error {
	var found []error
	for _, inv := range Invariants() {
		wrong, err := inv.broken(ctx, q)
		if err != nil {
			return fmt.Errorf("torture: invariant %q: %w", inv.Name, err)
		}
		if wrong != "" {
			found = append(found, &Violation{Kind: BrokenInvariant, Op: inv.Name, Detail: wrong})
		}
	}
	return errors.Join(found...)
}

// broken runs the query and returns its first rows, or "".
func (inv Invariant) broken(ctx context.Context, q Queryer) (string, error) {
	rows, err := q.QueryContext(ctx, "SELECT * FROM (\n"+inv.SQL+"\n) AS wrong LIMIT 5")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var wrong []string
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			return "", err
		}
		wrong = append(wrong, row)
	}
	return strings.Join(wrong, "; "), rows.Err()
}
