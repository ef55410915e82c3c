//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/pgtest"
)

// stepLimit is how long a step may take: none has more than a second's work.
const stepLimit = 10 * time.Second

// step is a line of a script. A capital letter names a session:
//
//	A: SQL             run it and note the answer; <- a, b at the end binds parameters
//	A? SQL             the same, with an answer that nobody can foretell
//	A& SQL             only start it
//	A.                 wait for what was started, and note its answer
//	A cancel: SQL      the client gives up after 300 ms
//	A prepare: SQL     prepare it
//	A run: a, b        run what was prepared
//	A batch: SQL | SQL pipelined
//	A copy: SQL | rows COPY FROM STDIN; a ; ends a row
//	A out: SQL         COPY TO STDOUT
//	A hear:            how many notifications arrive within 700 ms
//	on 1: SQL          on one server itself, as an operator or autovacuum might; not on plain PostgreSQL
//	hold 1: SQL        the same, in a transaction that stays open
//	kill 1, start 1    the server
//	terminate 1        all clients' connections to it
//	pause              200 ms
type step struct{ who, verb, text string }

var stepForm = regexp.MustCompile(`^([A-Z]|on|hold|kill|start|terminate|pause)(?: (\d))?(?: (cancel|prepare|run|batch|copy|out|hear))?([:?&.]?) ?(.*)$`)

func parse(script string) (steps []step) {
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		m := stepForm.FindStringSubmatch(line)
		if m == nil {
			panic("no step: " + line)
		}
		s := step{who: m[1], verb: m[3] + m[4], text: m[5]}
		if m[2] != "" {
			s.verb = m[2]
		}
		steps = append(steps, s)
	}
	return steps
}

// answer is what a client got; foretold if PostgreSQL's rules leave it no choice.
type answer struct {
	step     step
	text     string
	foretold bool
}

// player runs a script.
type player struct {
	db       *sql.DB
	servers  []*pgtest.Server
	sessions map[string]*session
	held     []*pgx.Conn
	answers  []answer
}

type session struct {
	conn     *sql.Conn
	stmt     *sql.Stmt
	started  step
	finished chan string
}

func (p *player) session(ctx context.Context, name string) (*session, error) {
	if s := p.sessions[name]; s != nil {
		return s, nil
	}
	c, err := p.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{conn: c}
	p.sessions[name] = s
	return s, nil
}

// close ends the sessions; what they left open is rolled back.
func (p *player) close() {
	for _, s := range p.sessions {
		if s.finished != nil {
			<-s.finished
		}
		_ = s.conn.Raw(func(any) error { return errors.New("closed for good") })
		_ = s.conn.Close() // what is wrong with it has been noted
	}
	for _, c := range p.held {
		_ = c.Close(context.Background())
	}
}

func (p *player) play(ctx context.Context, steps []step) error {
	p.sessions = map[string]*session{}
	for _, s := range steps {
		if err := p.step(ctx, s); err != nil {
			return fmt.Errorf("%s %s %s: %w", s.who, s.verb, s.text, err)
		}
	}
	return nil
}

func (p *player) step(ctx context.Context, s step) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	if s.who == "pause" {
		time.Sleep(200 * time.Millisecond)
		return nil
	}
	if len(s.who) > 1 {
		return p.server(ctx, s)
	}
	x, err := p.session(ctx, s.who)
	if err != nil {
		p.note(s, told(err))
		return nil
	}
	switch s.verb {
	case "&":
		x.started, x.finished = s, make(chan string, 1)
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepLimit)
		go func() { defer cancel(); x.finished <- run(limited, x.conn, s.text) }()
	case ".":
		p.note(x.started, <-x.finished)
		x.finished = nil
	default:
		p.note(s, x.do(ctx, s))
	}
	return nil
}

func (p *player) note(s step, text string) {
	p.answers = append(p.answers, answer{s, text, s.verb != "?"})
}

func (x *session) do(ctx context.Context, s step) string {
	switch strings.TrimSuffix(s.verb, ":") {
	case "cancel":
		limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if text := run(limited, x.conn, s.text); !strings.HasPrefix(text, "error") {
			return text
		}
		return "cancelled"
	case "prepare":
		st, err := x.conn.PrepareContext(ctx, s.text)
		x.stmt = st
		return told(err)
	case "run":
		r, err := x.stmt.ExecContext(ctx, arguments(s.text)...)
		return affected(r, err)
	case "batch", "copy", "out", "hear":
		text := ""
		err := x.conn.Raw(func(dc any) error {
			text = raw(ctx, dc.(interface{ Conn() *pgx.Conn }).Conn(), s)
			return nil
		})
		if err != nil {
			return told(err)
		}
		return text
	}
	return run(ctx, x.conn, s.text)
}

// raw does what database/sql has no words for.
func raw(ctx context.Context, c *pgx.Conn, s step) string {
	first, rest, _ := strings.Cut(s.text, " | ")
	switch s.verb {
	case "batch:":
		var b pgx.Batch
		for q := range strings.SplitSeq(s.text, " | ") {
			b.Queue(q)
		}
		return told(c.SendBatch(ctx, &b).Close())
	case "copy:":
		tag, err := c.PgConn().CopyFrom(ctx, strings.NewReader(strings.ReplaceAll(strings.ReplaceAll(rest, ";", "\n"), ",", "\t")), first)
		if err != nil {
			return told(err)
		}
		return tag.String()
	case "out:":
		var out strings.Builder
		_, err := c.PgConn().CopyTo(ctx, &out, first)
		return strings.ReplaceAll(out.String(), "\n", ";") + told(err)
	}
	n := 0
	limited, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	for {
		if _, err := c.WaitForNotification(limited); err != nil {
			return fmt.Sprint(n, " notifications")
		}
		n++
	}
}

func (p *player) server(ctx context.Context, s step) error {
	i := int(s.verb[0] - '0')
	if len(p.servers) == 1 { // plain PostgreSQL is the measure: nothing is done to it
		return nil
	}
	server := p.servers[i]
	switch s.who {
	case "kill":
		return server.Kill()
	case "start":
		return server.StartAgain()
	case "terminate":
		s.text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
	}
	c, err := pgx.Connect(ctx, server.DSN())
	if err != nil {
		return err
	}
	if s.who == "hold" {
		p.held = append(p.held, c)
		s.text = "BEGIN; " + s.text
	} else {
		defer c.Close(ctx)
	}
	_, err = c.PgConn().Exec(ctx, s.text).ReadAll()
	return err
}

func arguments(list string) (args []any) {
	if list == "" {
		return nil
	}
	for a := range strings.SplitSeq(list, ", ") {
		args = append(args, a)
	}
	return args
}

var returnsRows = regexp.MustCompile(`(?is)^\W*(/\*.*?\*/\s*)*\W*(SELECT|WITH|VALUES|TABLE|FETCH|SHOW|EXPLAIN)\b|\bRETURNING\b`)

// run runs a statement, with the extended protocol if it returns rows or has parameters.
func run(ctx context.Context, c *sql.Conn, text string) string {
	text, list, _ := strings.Cut(text, " <- ")
	args := arguments(list)
	if !returnsRows.MatchString(text) || strings.Contains(text, "; ") {
		r, err := c.ExecContext(ctx, text, args...)
		return affected(r, err)
	}
	rows, err := c.QueryContext(ctx, text, args...)
	if err != nil {
		return told(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return told(err)
	}
	var out []string
	for rows.Next() {
		values, dest := make([]any, len(columns)), make([]any, len(columns))
		for i := range dest {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return told(err)
		}
		out = append(out, strings.Trim(fmt.Sprintf("%s", fmt.Sprintln(values...)), "\n"))
	}
	if err := rows.Err(); err != nil {
		return told(err)
	}
	return fmt.Sprintf("%d rows: %s", len(out), strings.Join(out, "; "))
}

func affected(r sql.Result, err error) string {
	if err != nil {
		return told(err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return told(err)
	}
	return fmt.Sprint(n)
}

func told(err error) string {
	var pe *pgconn.PgError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &pe):
		return "error " + pe.Code + " " + pe.Message
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("error: no answer within %v", stepLimit)
	}
	return "error " + err.Error()
}
