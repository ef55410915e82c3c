//go:build unix

package agreement

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// The workload "mixed" is SQL with one possible outcome, against one plain PostgreSQL:
// each client has rows, and a table, of its own and does one thing after the other, so
// that what a step does depends on the client's steps before it alone. A step is run
// through pgdist and then on the plain server, with the same results.
//
// Each step that writes leaves a token in the same transaction. Where nobody knows what
// became of a step, a token of another kind is put in its place: either it is refused,
// for the step has been done, or the step can never be done any more.

// mixedSchema is that of the workload, here and there.
var mixedSchema = []string{
	`CREATE TABLE mixed_steps (who bigint, n bigint, how text NOT NULL, PRIMARY KEY (who, n))`,
	`CREATE TABLE mixed_heads (who bigint, k int, label text NOT NULL, total numeric(20,4) NOT NULL DEFAULT 0 CHECK (total > -1000), tags text[] NOT NULL DEFAULT '{}', doc jsonb, place int,
		size int GENERATED ALWAYS AS (length(label)) STORED, PRIMARY KEY (who, k), UNIQUE (who, place) DEFERRABLE INITIALLY DEFERRED)`,
	`CREATE TABLE mixed_lines (who bigint, head int, line int, amount numeric(12,4) NOT NULL, note text, PRIMARY KEY (who, head, line),
		FOREIGN KEY (who, head) REFERENCES mixed_heads ON UPDATE CASCADE ON DELETE CASCADE)`,
	`CREATE TABLE mixed_trail (who bigint, what text, k int, was text, becomes text)`, // without a key
	`CREATE TABLE mixed_sums (k int PRIMARY KEY, n bigint NOT NULL)`,
	`INSERT INTO mixed_sums SELECT g, 0 FROM generate_series(0, 3) g`,
	`CREATE FUNCTION mixed_follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF TG_OP <> 'INSERT' THEN UPDATE mixed_heads SET total = total - OLD.amount WHERE who = OLD.who AND k = OLD.head; END IF;
		IF TG_OP <> 'DELETE' THEN UPDATE mixed_heads SET total = total + NEW.amount WHERE who = NEW.who AND k = NEW.head; END IF;
		IF TG_OP = 'UPDATE' THEN INSERT INTO mixed_trail VALUES (NEW.who, 'line', NEW.head, OLD.amount::text, NEW.amount::text); END IF;
		RETURN NULL; END $$`,
	`CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON mixed_lines FOR EACH ROW EXECUTE FUNCTION mixed_follow()`,
}

// statement is one of a step.
type statement struct {
	SQL   string
	Args  []string // $1 is the client, if there are any
	Rows  bool     // it returns some
	Guard bool     // within a savepoint, so that the step goes on if it fails
	own   bool     // it can be a step by itself: it begins with INSERT, UPDATE or DELETE
	calm  bool     // not under a snapshot that is older than the statement: others write the same row
}

// step is what a client does at once.
type step struct {
	Who, N     int64
	Level      int  // an sql.IsolationLevel
	Single     bool // without a transaction of its own
	Read       bool // it changes nothing, and leaves no token
	Statements []statement
}

// mixed is a client of the workload, through all rounds.
type mixed struct {
	who     int64
	n       int64 // the step it made last
	pending *step // what became of it nobody knows
	merges  bool  // the servers know MERGE
}

// next makes up a step, with DDL or without.
func (m *mixed) next(rng *rand.Rand, ddl bool) step {
	s := step{Who: m.who, Read: rng.IntN(3) == 0}
	if s.Read {
		s.Single, s.Statements = true, []statement{m.read(rng)}
		return s
	}
	m.n++
	s.N = m.n
	if rng.IntN(3) == 0 {
		if one := m.write(rng); one.own {
			s.Single, s.Statements = true, []statement{one}
			return s
		}
	}
	s.Level = int([]sql.IsolationLevel{0, 0, 0, sql.LevelRepeatableRead, sql.LevelSerializable}[rng.IntN(5)])
	for range 1 + rng.IntN(4) {
		one := m.write(rng)
		switch n := rng.IntN(16); {
		case n < 4:
			one = m.read(rng)
		case n < 5 && ddl:
			one = m.define(rng)
		}
		if one.calm && s.Level != 0 {
			continue
		}
		one.Guard = rng.IntN(4) == 0
		s.Statements = append(s.Statements, one)
	}
	return s
}

// with is a statement about the client's own rows.
func (m *mixed) with(text string, args ...any) statement {
	st := statement{SQL: text, Args: []string{strconv.FormatInt(m.who, 10)}, own: true, Rows: strings.Contains(text, "RETURNING") || strings.HasPrefix(text, "SELECT")}
	for _, a := range args {
		st.Args = append(st.Args, fmt.Sprint(a))
	}
	return st
}

func (m *mixed) write(rng *rand.Rand) statement {
	k, word := rng.IntN(8), strings.Repeat(string(rune('a'+rng.IntN(26))), 1+rng.IntN(5))
	amount := fmt.Sprintf("%d.%04d", rng.IntN(200)-100, rng.IntN(10000))
	switch rng.IntN(17) {
	case 0:
		return m.with(`INSERT INTO mixed_heads (who, k, label, place) VALUES ($1, $2, $3, $4) RETURNING k, size, total`, k, word, rng.IntN(8))
	case 1, 2:
		return m.with(`INSERT INTO mixed_heads AS h (who, k, label, place) VALUES ($1, $2, $3, $4) ON CONFLICT (who, k) DO UPDATE SET label = right(h.label || excluded.label, 20), tags = (h.tags || excluded.label)[1:5] RETURNING k, label, size`, k, word, 10+k)
	case 3:
		return m.with(`UPDATE mixed_heads SET place = place + 1 WHERE who = $1 AND k >= $2 RETURNING k, place`, k)
	case 4:
		return m.with(`UPDATE mixed_heads SET k = k + $2 WHERE who = $1 AND k = $3 RETURNING k, total`, 1+rng.IntN(3), k)
	case 5:
		return m.with(`DELETE FROM mixed_heads WHERE who = $1 AND (k = $2 OR k > 8) RETURNING k, label, total, tags::text, doc::text, size`, k)
	case 6, 7:
		return m.with(`INSERT INTO mixed_lines SELECT $1, h.k, g, $3::numeric + g, h.label FROM mixed_heads h, generate_series(1, 3) g WHERE h.who = $1 AND h.k >= $2 ON CONFLICT DO NOTHING RETURNING head, line, amount`, k, amount)
	case 8:
		return m.with(`INSERT INTO mixed_lines VALUES ($1, $2, $3, $4, NULL)`, k, rng.IntN(5), amount)
	case 9:
		return m.with(`UPDATE mixed_lines SET amount = amount * 1.5 - 3, note = coalesce(note, '') || '!' WHERE who = $1 AND head = $2 AND length(coalesce(note, '')) < 9 AND abs(amount) < 10000 RETURNING head, line, amount, note`, k)
	case 10:
		st := m.with(`WITH gone AS (DELETE FROM mixed_lines WHERE who = $1 AND head = $2 RETURNING *) INSERT INTO mixed_trail SELECT who, 'gone', head, amount::text, note FROM gone RETURNING k, was, becomes`, k)
		st.own = false
		return st
	case 11:
		return m.with(`UPDATE mixed_heads SET doc = jsonb_set(coalesce(doc, '{"b": [1, 2.50]}'), '{a}', to_jsonb($3::text)), total = total / (k - $2) WHERE who = $1 RETURNING k, doc::text, total`, k, word)
	case 12:
		return m.with(`DELETE FROM mixed_trail WHERE who = $1 AND k = $2`, k)
	case 13:
		return m.with(`INSERT INTO mixed_trail SELECT $1, 'same', $2, $3, NULL FROM generate_series(1, 3)`, k, word)
	case 14:
		return statement{SQL: fmt.Sprintf(`UPDATE mixed_sums SET n = n + %d WHERE k = %d`, rng.IntN(100), rng.IntN(4)), own: true, calm: true}
	case 15:
		return statement{SQL: fmt.Sprintf(`DO $$ DECLARE h record; BEGIN FOR h IN SELECT k FROM mixed_heads WHERE who = %d ORDER BY k LOOP
			INSERT INTO mixed_lines VALUES (%[1]d, h.k, %d, h.k) ON CONFLICT (who, head, line) DO UPDATE SET amount = mixed_lines.amount + 1; END LOOP; END $$`, m.who, rng.IntN(5))}
	}
	if !m.merges {
		return m.with(`UPDATE mixed_lines SET line = line + 1 WHERE who = $1 AND line = $2`, rng.IntN(5))
	}
	st := m.with(`MERGE INTO mixed_lines l USING (SELECT k, total FROM mixed_heads WHERE who = $1) h ON l.who = $1 AND l.head = h.k AND l.line = $2
		WHEN MATCHED AND l.amount < 0 THEN DELETE WHEN MATCHED THEN UPDATE SET amount = l.amount - 7 WHEN NOT MATCHED THEN INSERT VALUES ($1, h.k, $2, $3, 'merged')`, rng.IntN(5), amount)
	st.own = false
	return st
}

func (m *mixed) read(rng *rand.Rand) statement {
	st := m.with([]string{
		`SELECT k, label, total, tags::text, doc::text, place, size FROM mixed_heads WHERE who = $1 ORDER BY k`,
		`SELECT head, line, amount, note, sum(amount) OVER (PARTITION BY head ORDER BY line) FROM mixed_lines WHERE who = $1 ORDER BY head, line`,
		`SELECT h.k, count(l.line), coalesce(sum(l.amount), 0), string_agg(l.note, ',' ORDER BY l.line) FROM mixed_heads h LEFT JOIN mixed_lines l ON l.who = h.who AND l.head = h.k WHERE h.who = $1 GROUP BY h.k HAVING count(*) > 0 ORDER BY 1`,
		`SELECT what, k, was, becomes, count(*) FROM mixed_trail WHERE who = $1 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4`,
		`SELECT count(*), max(n) FROM mixed_steps WHERE who = $1 AND how = 'done'`,
		`SELECT k, label FROM mixed_heads WHERE who = $1 ORDER BY k FOR UPDATE`,
		`SELECT 100 / (k - 3) FROM mixed_heads WHERE who = $1 ORDER BY k`,
	}[rng.IntN(7)])
	st.own = false
	return st
}

// define is about a table of the client's own.
func (m *mixed) define(rng *rand.Rand) statement {
	name := fmt.Sprintf("mixed_own_%d", m.who)
	return statement{SQL: fmt.Sprintf([]string{
		`CREATE TABLE %s (k int PRIMARY KEY, t text DEFAULT 'made', n numeric)`,
		`CREATE TABLE IF NOT EXISTS %s (k int PRIMARY KEY, t text DEFAULT 'made', n numeric)`,
		`INSERT INTO %s (k) SELECT generate_series(1, 20) ON CONFLICT (k) DO UPDATE SET t = excluded.t || '.'`,
		`INSERT INTO %s (k) SELECT generate_series(30, 40)`,
		`ALTER TABLE %s ADD COLUMN IF NOT EXISTS more int DEFAULT 7`,
		`ALTER TABLE %s ALTER COLUMN n TYPE numeric(10,2) USING k * 1.5`,
		`ALTER TABLE %s DROP COLUMN IF EXISTS more`,
		`CREATE TABLE %s AS SELECT g AS k, 'asked' AS t, g * 0.5 AS n FROM generate_series(1, 7) g`,
		`UPDATE %s SET n = coalesce(n, 0) + k`,
		`TRUNCATE %s`,
		`DROP TABLE %s`,
	}[rng.IntN(11)], name)}
}
