//go:build unix

package agreement

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgdist/pgdist/internal/torture/history"
)

// outcome is what a statement came to.
type outcome struct {
	Code string   `json:",omitempty"` // SQLSTATE; the step ends there, unless it has a savepoint
	N    int64    `json:",omitempty"` // rows it concerned, if it returns none
	Rows []string `json:",omitempty"` // sorted, unless it sorts itself
}

// ends is a statement's error that any PostgreSQL would have given, which ends the step.
type ends struct{ outcome }

func (e ends) Error() string { return "SQLSTATE " + e.Code }

// determined tells whether an error depends on nothing but the statement and the data.
func determined(err error) (code string, is bool) {
	var s interface{ SQLState() string }
	if !errors.As(err, &s) || len(s.SQLState()) != 5 {
		return "", false
	}
	code = s.SQLState()
	return code, slices.Contains([]string{"21", "22", "23", "42", "P0"}, code[:2])
}

// runMixed runs a step. Errors that any PostgreSQL would have given are outcomes.
func runMixed(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var s step
	if err := r.decode(&s); err != nil {
		return nil, err
	}
	var out []outcome
	token := fmt.Sprintf("INSERT INTO mixed_steps VALUES (%d, %d, 'done')", s.Who, s.N)
	err := within(ctx, db, !s.Single, sql.IsolationLevel(s.Level), func(q querier) error {
		out = nil
		if !s.Single {
			if _, err := q.ExecContext(ctx, token); err != nil {
				return err
			}
		} else if !s.Read {
			s.Statements[0].SQL = "WITH token AS (" + token + ") " + s.Statements[0].SQL
		}
		for _, st := range s.Statements {
			o, err := st.run(ctx, q)
			if err != nil {
				return err
			}
			out = append(out, o)
		}
		return nil
	})
	var end ends
	if errors.As(err, &end) {
		return append(out, end.outcome), nil
	}
	if code, is := determined(err); is {
		return append(out, outcome{Code: code}), nil // at COMMIT
	}
	return out, err
}

// run runs one statement.
func (st statement) run(ctx context.Context, q querier) (outcome, error) {
	if st.Guard {
		if _, err := q.ExecContext(ctx, "SAVEPOINT guard"); err != nil {
			return outcome{}, err
		}
	}
	o, err := st.bare(ctx, q)
	code, is := determined(err)
	switch {
	case err == nil:
		return o, nil
	case !is:
		return o, fmt.Errorf("%s: %w", st.SQL, err)
	case !st.Guard:
		return o, ends{outcome{Code: code}}
	}
	_, err = q.ExecContext(ctx, "ROLLBACK TO SAVEPOINT guard")
	return outcome{Code: code}, err
}

func (st statement) bare(ctx context.Context, q querier) (o outcome, err error) {
	args := make([]any, len(st.Args))
	for i, a := range st.Args {
		args[i] = a
	}
	if !st.Rows {
		res, err := q.ExecContext(ctx, st.SQL, args...)
		if err != nil {
			return o, err
		}
		o.N, err = res.RowsAffected()
		return o, err
	}
	rows, err := q.QueryContext(ctx, st.SQL, args...)
	if err != nil {
		return o, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return o, err
	}
	texts, into := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range texts {
		into[i] = &texts[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return o, err
		}
		var b strings.Builder
		for i, t := range texts {
			if t.Valid {
				fmt.Fprintf(&b, "%s=%q ", names[i], t.String)
			}
		}
		o.Rows = append(o.Rows, b.String())
	}
	if !strings.Contains(st.SQL, "ORDER BY") {
		slices.Sort(o.Rows)
	}
	return o, rows.Err()
}

// settleMixed finds out whether a step was done, and sees to it that it never is, if not.
func settleMixed(ctx context.Context, db *sql.DB, r Request) (any, error) {
	var s step
	if err := r.decode(&s); err != nil {
		return nil, err
	}
	var how string
	err := db.QueryRowContext(ctx, "INSERT INTO mixed_steps VALUES ($1, $2, 'never') ON CONFLICT (who, n) DO UPDATE SET n = excluded.n RETURNING how", s.Who, s.N).Scan(&how)
	return how, err
}

// mix has a client make its next step, or find out what became of the last.
func (k *client) mix(door *runner) {
	m := k.c.mixed[k.i]
	if m.pending != nil {
		if err := k.clear(door, m); err != nil {
			k.c.t.Logf("mixed: client %d does not know yet of step %d: %v", m.who, m.pending.N, err)
		}
		return
	}
	s := m.next(k.rng, k.c.copying.Load() == 0)
	f := "step"
	if s.Read {
		f = "read"
	}
	a := k.tell(door, Request{Workload: "mixed", F: f, Value: quoted(s), Timeout: opTimeout})
	switch a.Type {
	case history.OK:
		k.plain(s, a.Value)
	case history.Info:
		m.pending = &s
	}
}

// clear finds out what became of a client's last step, and does that to the plain server, too.
func (k *client) clear(door *runner, m *mixed) error {
	q := Request{Workload: "mixed", F: "settle", Value: quoted(*m.pending), Timeout: opTimeout}
	a := k.tell(door, q)
	if a.Type != history.OK {
		return errors.New(a.Error)
	}
	var how string
	if err := json.Unmarshal(a.Value, &how); err != nil {
		return err
	}
	s := *m.pending
	m.pending = nil
	if how == "done" {
		k.plain(s, nil)
		return nil
	}
	if b := do(context.Background(), k.c.plainDB, q); b.Type != history.OK || string(b.Value) != string(a.Value) {
		k.differ("settling step %d of client %d: %s, on the plain server %s %s", s.N, s.Who, a.Value, b.Value, b.Error)
	}
	return nil
}

// plain makes a step on the plain server, which must come to what is wanted, if that is known.
func (k *client) plain(s step, want json.RawMessage) {
	if s.Level == int(sql.LevelSerializable) {
		s.Level = int(sql.LevelRepeatableRead) // which does the same for him who is alone with his rows, and never fails
	}
	b := do(context.Background(), k.c.plainDB, Request{Workload: "mixed", F: "step", Value: quoted(s), Timeout: opTimeout * 10})
	if b.Type != history.OK || want != nil && string(b.Value) != string(want) {
		k.differ("step %d of client %d, %s:\n%s\non the plain server:\n%s %s", s.N, s.Who, quoted(s), want, b.Value, b.Error)
	}
	var list []outcome
	if err := json.Unmarshal(b.Value, &list); err == nil && want == nil && !left(list, s) {
		k.differ("step %d of client %d, %s, was done, and fails on the plain server: %s", s.N, s.Who, quoted(s), b.Value)
	}
}

// left tells whether a step that came to this has left its token: it has not failed as a whole.
func left(list []outcome, s step) bool {
	if len(list) == 0 || list[len(list)-1].Code == "" {
		return true
	}
	return len(list) == len(s.Statements) && s.Statements[len(list)-1].Guard
}

func (k *client) differ(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.differences = append(k.differences, fmt.Sprintf(format, args...))
}
