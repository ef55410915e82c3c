package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

func (h *History) addItem(op int64, it item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.items[op] = it
}

func (h *History) removeItem(op int64) item {
	h.mu.Lock()
	defer h.mu.Unlock()
	it := h.items[op]
	delete(h.items, op)
	return it
}

func (h *History) itemDeleted(op int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deleted[op] = true
}

func (h *History) itemOf(op int64) (item, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	it, ok := h.items[op]
	return it, ok
}

// takeJob notes who got a job, and tells who had got it before.
func (h *History) takeJob(job string, op int64) (other int64, twice bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if other, twice = h.taken[job]; !twice {
		h.taken[job] = op
	}
	return other, twice
}

// Queryer is what *sql.DB, *sql.Conn and *sql.Tx have in common: a REPEATABLE
// READ transaction is checked at one snapshot.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Check compares the database with what the clients know, after the run, and
// returns all violations joined, those seen during the run first, or nil. It
// may be called for each member by itself. Errors other than *Violation are of
// the check's own queries.
func (h *History) Check(ctx context.Context, q Queryer) error {
	var found []error
	for _, v := range h.Violations() {
		found = append(found, v)
	}
	h.mu.Lock()
	if h.dropped > 0 {
		found = append(found, fmt.Errorf("torture: %d more violations during the run", h.dropped))
	}
	h.mu.Unlock()
	for _, check := range []func(context.Context, Queryer) ([]error, error){h.checkLedger, h.checkItems, h.checkJobs} {
		violations, err := check(ctx, q)
		if err != nil {
			return errors.Join(append(found, fmt.Errorf("torture: check: %w", err))...)
		}
		found = append(found, violations...)
	}
	if err := CheckInvariants(ctx, q); err != nil {
		found = append(found, err)
	}
	if len(found) > 0 {
		found = append(found, fmt.Errorf("torture: seed %d", h.Seed))
	}
	return errors.Join(found...)
}

// checkLedger accounts for every operation.
func (h *History) checkLedger(ctx context.Context, q Queryer) ([]error, error) {
	rows, err := q.QueryContext(ctx, "SELECT op, kind FROM torture.ledger WHERE op >> 48 = $1", h.run)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []error
	there := map[int64]bool{}
	for rows.Next() {
		var op int64
		var kind string
		if err := rows.Scan(&op, &kind); err != nil {
			return nil, err
		}
		there[op] = true
		switch o, sent := h.outcomes[op]; {
		case !sent:
			found = append(found, &Violation{Kind: PhantomWrite, Op: kind, Detail: fmt.Sprintf("op %d was never sent", op)})
		case o == Failed:
			found = append(found, &Violation{Kind: PhantomWrite, Op: kind, Detail: fmt.Sprintf("op %d had failed", op)})
		}
	}
	for _, op := range h.acked {
		if !there[op] {
			found = append(found, &Violation{Kind: LostWrite, Op: "ledger", Detail: fmt.Sprintf("op %d was acknowledged (client %d)", op, op>>32&0xffff)})
		}
	}
	return found, rows.Err()
}

// checkItems compares rows with what RETURNING told.
func (h *History) checkItems(ctx context.Context, q Queryer) ([]error, error) {
	rows, err := q.QueryContext(ctx, "SELECT op, id::text, rnd::text, u::text FROM torture.items")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []error
	there := map[int64]bool{}
	for rows.Next() {
		var op int64
		var got item
		if err := rows.Scan(&op, &got.id, &got.rnd, &got.uuid); err != nil {
			return nil, err
		}
		there[op] = true
		if want, ok := h.items[op]; ok && got != want {
			found = append(found, &Violation{Kind: WrongValue, Op: "item", Detail: fmt.Sprintf("op %d returned %v and is %v", op, want, got)})
		}
		if h.deleted[op] {
			found = append(found, &Violation{Kind: LostWrite, Op: "delete item", Detail: fmt.Sprintf("item of op %d is there again", op)})
		}
	}
	for op := range h.items {
		if !there[op] {
			found = append(found, &Violation{Kind: LostWrite, Op: "item", Detail: fmt.Sprintf("the row of op %d", op)})
		}
	}
	return found, rows.Err()
}

// checkJobs asks that each job is taken by whom it was given to.
func (h *History) checkJobs(ctx context.Context, q Queryer) ([]error, error) {
	rows, err := q.QueryContext(ctx, "SELECT id::text, coalesce(taken, 0) FROM torture.jobs")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []error
	taken := map[string]int64{}
	for rows.Next() {
		var job string
		var op int64
		if err := rows.Scan(&job, &op); err != nil {
			return nil, err
		}
		taken[job] = op
	}
	for job, op := range h.taken {
		if taken[job] != op {
			found = append(found, &Violation{Kind: WrongValue, Op: "take", Detail: fmt.Sprintf("job %s was given to op %d and is op %d's", job, op, taken[job])})
		}
	}
	return found, rows.Err()
}
