package gateway

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/pgtest"
)

var (
	randomFor  = flag.Duration("random.for", 0, "how long TestRandom goes on; 0: a fixed number of cases")
	randomSeed = flag.Uint64("random.seed", 1, "the first case of TestRandom; the others count up from it")
)

// randomCases is how many cases a plain run of TestRandom tries.
const randomCases = 60

// randomFailures is how many differences end a run: one is seldom alone, and each is shrunk.
const randomFailures = 12

// TestRandom runs random sequences of messages, sound and broken ones, on a plain server
// and through the gateway. A case is made of its seed alone.
func TestRandom(t *testing.T) {
	r := newRandomRun(t)
	began, failures, cases := time.Now(), 0, uint64(0)
	for ; *randomFor == 0 && cases < randomCases || time.Since(began) < *randomFor; cases++ {
		seed := *randomSeed + cases
		lines := randomCase(seed)
		if r.differ(lines) == "" || r.differ(lines) == "" { // the second: not by chance
			continue
		}
		small := shrink(lines, func(lines []string) bool { return r.differ(lines) != "" })
		t.Errorf("seed %d: the gateway (+) answers differently than PostgreSQL (-):\n%s\nafter\n\t%s", seed, r.differ(small), strings.Join(small, "\n\t"))
		if failures++; failures == randomFailures {
			break
		}
	}
	t.Logf("%d cases from seed %d on, %d messages", cases, *randomSeed, r.messages)
}

// randomRun has the two sides.
type randomRun struct {
	t        *testing.T
	addrs    [2]string
	setup    [2]*pgx.Conn
	messages int
	// implicit: since PostgreSQL 18 an Execute begins a transaction block that lasts to the
	// Sync, and what follows it there is not warned of; the gateway's warnings are as before.
	implicit bool
}

func newRandomRun(t *testing.T) *randomRun {
	t.Helper()
	plain, s := pgtest.Start(t, pgtest.Options{}), newSet(t, nil)
	r := &randomRun{t: t, addrs: [2]string{plain.Addr(), s.addr}}
	if err := pgtest.Connect(t, plain.DSN()).QueryRow(context.Background(), `SELECT current_setting('server_version_num')::int >= 180000`).Scan(&r.implicit); err != nil {
		t.Fatal(err)
	}
	for i, addr := range r.addrs {
		r.setup[i] = connect(t, "postgres://postgres@"+addr+"/postgres?sslmode=disable&default_query_exec_mode=simple_protocol")
		if _, err := r.setup[i].Exec(context.Background(), randomSchema); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

const (
	randomSchema = `CREATE TYPE mood AS ENUM ('sad', 'happy');
		CREATE TABLE f (id int PRIMARY KEY, v text, m mood DEFAULT 'sad', n numeric);
		CREATE TABLE d (id int PRIMARY KEY, f int REFERENCES f DEFERRABLE INITIALLY DEFERRED);
		CREATE FUNCTION shout(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'shouting %', $1; RETURN upper($1); END $$`
	// client_min_messages: whether there was a table is nobody's business
	randomReset = `SET client_min_messages = error; DROP TABLE IF EXISTS g; DELETE FROM d; DELETE FROM f;
		INSERT INTO f SELECT g, 'v' || g, 'happy', g / 2.0 FROM generate_series(1, 9) g`
)

// differ runs a case on both sides and returns how they differ.
func (r *randomRun) differ(lines []string) string {
	var logs [2][]string
	for i := range logs {
		if _, err := r.setup[i].Exec(context.Background(), randomReset); err != nil {
			r.t.Fatal(err)
		}
		logs[i] = playRandom(r.t, r.addrs[i], lines)
		if r.implicit {
			logs[i] = slices.DeleteFunc(logs[i], func(s string) bool { return strings.HasPrefix(s, "notice WARNING 25P01") })
		}
	}
	r.messages += len(lines)
	for i := 0; i < min(len(logs[0]), len(logs[1])); i++ { // some errors come before others
		want, got := logs[0][i], logs[1][i]
		if strings.HasPrefix(want, "error ERROR") && strings.HasPrefix(got, "error ERROR 42P05") {
			logs[1][i] = want
		}
		// What has failed may have left an unnamed portal, or none.
		if (strings.HasPrefix(want, "error ERROR 25P02") || strings.HasPrefix(want, "NoData")) && strings.HasPrefix(got, `error ERROR 34000 "portal \"\"`) {
			for j := range logs { // and what comes before the next Sync is skipped, or not
				end := i
				for end < len(logs[j]) && !strings.HasPrefix(logs[j][end], "ready") {
					end++
				}
				logs[j] = slices.Delete(logs[j], i, end)
			}
		}
	}
	return cmp.Diff(logs[0], logs[1])
}

// playRandom sends a case and returns the answers.
func playRandom(t *testing.T, addr string, lines []string) []string {
	k := talk(t, addr, nil)
	defer k.conn.Close()
	k.patience = 8 * time.Second
	for _, line := range lines {
		if line == "W" {
			k.fence()
			continue
		}
		k.line(line)
	}
	k.fence()
	k.put('X', "")
	k.flush()
	for n := -1; n != len(k.log) && k.log[len(k.log)-1] != "closed"; { // to its end
		n = len(k.log)
		k.until(1)
	}
	return k.log
}

// fence waits until all that was sent is answered, whatever state it has led to: CopyDone
// ends a COPY, or is passed over; Sync ends what an error has begun; two empty queries in
// a row are told by nothing else.
func (t *talker) fence() {
	if n := len(t.log); n > 0 && (t.log[n-1] == "closed" || t.log[n-1] == silent) {
		return
	}
	for _, typ := range "cS" {
		t.put(byte(typ), "")
	}
	t.put('Q', "\x00")
	t.put('Q', "\x00")
	t.flush()
	for began := len(t.log); ; {
		t.until(1)
		n := len(t.log)
		if n == 0 || !strings.HasPrefix(t.log[n-1], "ready") {
			return
		}
		if n >= began+4 && strings.HasPrefix(t.log[n-2], "EmptyQuery") && strings.HasPrefix(t.log[n-3], "ready") && strings.HasPrefix(t.log[n-4], "EmptyQuery") {
			return
		}
	}
}

// shrink drops lines for as long as fails says so.
func shrink(lines []string, fails func([]string) bool) []string {
	for size := max(len(lines)/2, 1); ; size /= 2 {
		for i := 0; i < len(lines); {
			fewer := slices.Delete(slices.Clone(lines), i, min(i+size, len(lines)))
			if fails(fewer) {
				lines = fewer
			} else {
				i += size
			}
		}
		if size == 1 {
			return lines
		}
	}
}

// dice makes a case.
type dice struct {
	*rand.Rand
	lines []string
}

func randomCase(seed uint64) []string {
	d := &dice{Rand: rand.New(rand.NewPCG(seed, 0))}
	if d.IntN(10) == 0 {
		d.add("~ %d", 1+d.IntN(40)) // in pieces
	}
	for range 3 + d.IntN(10) {
		d.step()
		if d.IntN(3) != 0 {
			d.add("W")
		}
	}
	return d.lines
}

func (d *dice) add(format string, args ...any) {
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *dice) of(list ...string) string { return list[d.IntN(len(list))] }

// step is what a client does at once.
func (d *dice) step() {
	switch n := d.IntN(100); {
	case n < 35:
		d.add("Q %s", d.text())
		d.data()
	case n < 43:
		var parts []string
		for range 2 + d.IntN(3) {
			parts = append(parts, d.text())
		}
		d.add("Q %s", strings.Join(parts, "; "))
		d.data()
	case n < 60:
		d.whole()
	case n < 85:
		for range 1 + d.IntN(8) {
			d.message()
		}
		if d.IntN(4) != 0 {
			d.add("S")
		}
	case n < 95: // several pipelines at once
		for range 2 + d.IntN(3) {
			for range 1 + d.IntN(2) {
				d.statement()
			}
			d.add("S")
		}
	case n < 98:
		d.broken()
	default:
		d.message()
	}
}

// data follows what may be a COPY FROM STDIN, or not.
func (d *dice) data() {
	if last := d.lines[len(d.lines)-1]; !strings.Contains(last, "FROM STDIN") && d.IntN(40) != 0 {
		return
	}
	for range d.IntN(3) {
		d.add("d %s", d.of("20\ta\\n", "21\tb\\n22\tc\\n", "23\t", "nonsense\\n", "1\tdouble\\n", `24`, "x\\n"))
	}
	switch d.IntN(5) {
	case 0:
		d.add("f %s", d.of("no more", ""))
	case 1: // neither: what comes next has to end it
	default:
		d.add("c")
	}
}

// statement is one by the extended protocol, as drivers send it.
func (d *dice) statement() {
	text := d.text()
	d.add("P |%s|", text)
	d.bind("", "", params(text))
	if d.IntN(2) == 0 {
		d.add("D P|")
	}
	d.add("E |%s", d.of("0", "0", "0", "1", "2"))
	d.data()
}

// whole is that, with names, and what may follow it.
func (d *dice) whole() {
	text, name := d.text(), d.name()
	d.add("P %s|%s|", name, text)
	if d.IntN(2) == 0 {
		d.add("D S|%s", name)
	}
	if d.IntN(4) == 0 {
		d.add("%s", d.of("H", "S"))
	}
	portal := d.portal()
	d.bind(portal, name, params(text))
	for range 1 + d.IntN(2) {
		if d.IntN(3) == 0 {
			d.add("D P|%s", portal)
		}
		d.add("E %s|%s", portal, d.of("0", "0", "1", "3"))
	}
	d.data()
	if d.IntN(8) != 0 {
		d.add("S")
	}
}

// params is how many parameters a text has.
func params(text string) int {
	for n := 3; n > 0; n-- {
		if strings.Contains(text, fmt.Sprintf("$%d", n)) && !strings.Contains(text, "PREPARE") {
			return n
		}
	}
	return 0
}

func (d *dice) bind(portal, name string, n int) {
	if d.IntN(15) == 0 {
		n = d.IntN(4)
	}
	var values strings.Builder
	for i := range n {
		values.WriteString("|")
		switch {
		case i > 0:
			values.WriteString(d.of("x", "y", ""))
		default:
			values.WriteString(d.of("1", "2", "3", "30", "31", "0", `\N`, "nonsense"))
		}
	}
	if d.IntN(4) == 0 {
		d.add("b %s|%s|%s%s", portal, name, d.of("0/1", "0/1", "1/0", "0/0", "0,0/1,0", "0/2", "1/1"), values.String())
		return
	}
	d.add("B %s|%s%s", portal, name, values.String())
}

// message is any of the extended protocol.
func (d *dice) message() {
	switch n := d.IntN(100); {
	case n < 20:
		text, types := d.text(), ""
		if strings.Contains(text, "$") {
			types = d.of("", "", "", "23", "25", "23,25", "0", "4711")
		}
		d.add("P %s|%s|%s", d.name(), text, types)
	case n < 42:
		d.bind(d.portal(), d.name(), d.IntN(3))
	case n < 52:
		d.add("D S|%s", d.name())
	case n < 60:
		d.add("D P|%s", d.portal())
	case n < 80:
		d.add("E %s|%s", d.portal(), d.of("0", "0", "1", "2", "-1"))
		d.data()
	case n < 86:
		d.add("C S|%s", d.name())
	case n < 90:
		d.add("C P|%s", d.portal())
	case n < 94:
		d.add("H")
	case n < 97:
		d.add("S")
	default:
		d.add("Q %s", d.text())
	}
}

// broken is what no sound client sends.
func (d *dice) broken() {
	d.add("= %s", d.of(
		`P\x00\x00\x00\x06ab`, `P\x00\x00\x00\x05\x00`, `B\x00\x00\x00\x04`, `B\x00\x00\x00\x07a\x00b`, `B\x00\x00\x00\x0a\x00\x00\x00\x07\x00\x00`,
		`D\x00\x00\x00\x04`, `D\x00\x00\x00\x06X\x00`, `D\x00\x00\x00\x05S`, `E\x00\x00\x00\x05\x00`, `E\x00\x00\x00\x04`, `C\x00\x00\x00\x06X\x00`,
		`C\x00\x00\x00\x05P`, `Q\x00\x00\x00\x04`, `Q\x00\x00\x00\x06a\x00\x00`, `H\x00\x00\x00\x05a`, `c\x00\x00\x00\x05a`,
		`d\x00\x00\x00\x04`, `f\x00\x00\x00\x04`, `y\x00\x00\x00\x04`, `Q\x00\x00\x00\x02`, `F\x00\x00\x00\x04`, `p\x00\x00\x00\x05\x00`,
		`F\x00\x00\x00\x14\x00\x00\x00\xb1\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00`, `D\x00\x00\x00\x07S\x00a`, `E\x00\x00\x00\x0a\x00\x00\x00\x00\x00a`,
	))
}

func (d *dice) name() string   { return d.of("", "", "a", "b", "c", "x") }
func (d *dice) portal() string { return d.of("", "", "p", "q", "c") }
