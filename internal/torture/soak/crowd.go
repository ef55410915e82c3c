//go:build linux

package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/torture"
)

// Tables are what the crowd writes to; they are to be made before it comes.
var Tables = []string{
	`CREATE SCHEMA soak`,
	`CREATE TABLE soak.batches (id bigint PRIMARY KEY, lines int NOT NULL)`,
	`CREATE TABLE soak.lines (batch bigint REFERENCES soak.batches, n int, v text, PRIMARY KEY (batch, n))`,
	`CREATE TABLE soak.visits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL, luck float8 NOT NULL DEFAULT random())`,
}

// Crowd is clients of all kinds but those that package torture has: what they have in common
// is that they do what gateways forget to clean up after. Its methods may be called at the
// same time.
type Crowd struct {
	DSN  string // of the gateway
	Seed uint64

	mu      sync.Mutex // guards what follows
	next    int64
	batches map[int64]int             // what must be there, with the number of lines
	gone    map[int64]bool            // what must not
	counts  map[string]map[string]int // by kind and outcome
	wrong   []error                   // at most a hundred
}

// guest is one kind of client. It is run again and again, with a connection of its own each
// time; an error whose SQLSTATE is not among may is one that clients must not see.
type guest struct {
	kind string
	many int
	may  []string
	run  func(ctx context.Context, c *Crowd, rng *rand.Rand) error
}

// What a failover may tell who has a transaction open, or a server's connection to himself.
var (
	open   = []string{"40001", "40P01", "08007"}
	pinned = append([]string{"57P01", "08006", "57P02"}, open...)
)

func guests() []guest {
	return []guest{
		{"copies", 3, open, copies},
		{"comes and goes", 4, nil, comesAndGoes},
		{"hangs up", 3, nil, hangsUp},
		{"cancels", 3, append([]string{"57014"}, open...), cancels},
		{"has state", 3, pinned, hasState},
		{"sends ahead", 3, open, sendsAhead},
		{"reads a little", 2, nil, readsALittle},
		{"waits", 60, nil, waits},
		{"listens", 4, pinned, listens},
		{"defines", 1, open, defines},
	}
}

// Visit lets the crowd in until ctx ends and returns when all have gone.
func (c *Crowd) Visit(ctx context.Context) {
	var wg sync.WaitGroup
	for k, g := range guests() {
		for i := range g.many {
			rng := rand.New(rand.NewPCG(c.Seed, uint64(k)<<32|uint64(i)))
			wg.Go(func() {
				for ctx.Err() == nil {
					// The end of the visit is no error: whoever is under way gets time to finish.
					one, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
					c.report(g, g.run(one, c, rng))
					stop()
				}
			})
		}
	}
	wg.Wait()
}

// state is an error's SQLSTATE, "" if no server gave it one.
func state(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

func (c *Crowd) report(g guest, err error) {
	outcome := state(err)
	bad := err != nil && !slices.Contains(g.may, outcome)
	if err == nil {
		outcome = "well"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]map[string]int{}
	}
	if c.counts[g.kind] == nil {
		c.counts[g.kind] = map[string]int{}
	}
	c.counts[g.kind][outcome]++
	if bad && len(c.wrong) < 100 {
		c.wrong = append(c.wrong, fmt.Errorf("who %s: %w", g.kind, err))
	}
}

// Wrong returns what clients saw and should not have, a hundred at most.
func (c *Crowd) Wrong() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.wrong)
}

func (c *Crowd) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ""
	for _, kind := range slices.Sorted(maps.Keys(c.counts)) {
		s += fmt.Sprintf("%s %v; ", kind, c.counts[kind])
	}
	return s
}

// Check compares what a database holds with what the crowd was told.
func (c *Crowd) Check(ctx context.Context, db *pgx.Conn) error {
	rows, err := db.Query(ctx, `SELECT b.id, b.lines, count(l.n) FROM soak.batches b LEFT JOIN soak.lines l ON l.batch = b.id GROUP BY 1, 2`)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	missing := maps.Clone(c.batches)
	var errs []error
	var id int64
	var want, have int
	_, err = pgx.ForEachRow(rows, []any{&id, &want, &have}, func() error {
		if told, ok := missing[id]; ok && told != want || want != have {
			errs = append(errs, fmt.Errorf("batch %d has %d lines, should have %d, its client wrote %d", id, have, want, told))
		}
		if c.gone[id] {
			errs = append(errs, fmt.Errorf("batch %d is there, its client was told that it failed", id))
		}
		delete(missing, id)
		return nil
	})
	for id := range missing {
		errs = append(errs, fmt.Errorf("batch %d is missing, its client was told that it is there", id))
	}
	return errors.Join(append(errs, err)...)
}

func (c *Crowd) newBatch() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	return c.next
}

func (c *Crowd) told(batch int64, lines int, outcome torture.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch outcome {
	case torture.Acked:
		if c.batches == nil {
			c.batches = map[int64]int{}
		}
		c.batches[batch] = lines
	case torture.Failed:
		if c.gone == nil {
			c.gone = map[int64]bool{}
		}
		c.gone[batch] = true
	}
}

// with runs f with a new connection, and closes that as clients should.
func (c *Crowd) with(ctx context.Context, more string, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, c.DSN+more)
	if err != nil {
		return err
	}
	err = f(conn)
	if e := conn.Close(ctx); err == nil && e != nil {
		err = e
	}
	return err
}

// copies writes lines by COPY, in one transaction with their number, and reads them back.
func copies(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	return c.with(ctx, "", func(conn *pgx.Conn) error {
		batch, lines := c.newBatch(), 1+rng.IntN(400)
		giveUp := rng.IntN(6) == 0
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO soak.batches VALUES ($1, $2)`, batch, lines); err != nil {
				return err
			}
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"soak", "lines"}, []string{"batch", "n", "v"}, pgx.CopyFromSlice(lines, func(i int) ([]any, error) {
				if giveUp && i == lines/2 {
					return nil, errGaveUp
				}
				return []any{batch, i, strconv.Itoa(rng.IntN(1e6))}, nil
			}))
			return err
		})
		if giveUp { // its COMMIT was never sent
			c.told(batch, lines, torture.Failed)
			if err == nil {
				return errors.New("a COPY that the client broke off was committed")
			}
			if code := state(err); code == "57014" || errors.Is(err, errGaveUp) { // the server's word for CopyFail
				return nil
			}
			return err
		}
		c.told(batch, lines, torture.OutcomeOf(err))
		if err != nil {
			return err
		}
		n := 0
		_, err = conn.PgConn().CopyTo(ctx, counter{&n}, fmt.Sprintf(`COPY (SELECT n FROM soak.lines WHERE batch = %d) TO STDOUT`, batch))
		if err == nil && n != lines {
			return fmt.Errorf("COPY TO gives %d lines, %d were just written", n, lines)
		}
		return err
	})
}

var errGaveUp = errors.New("the client gave up")

// counter counts lines.
type counter struct{ n *int }

func (w counter) Write(b []byte) (int, error) {
	for _, x := range b {
		if x == '\n' {
			*w.n++
		}
	}
	return len(b), nil
}

// comesAndGoes connects for one statement, with settings of its own.
func comesAndGoes(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	return c.with(ctx, "&application_name=guest"+strconv.Itoa(rng.IntN(1000)), func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `INSERT INTO soak.visits (kind) VALUES ('comes and goes')`)
		return err
	})
}

// hangsUp breaks its connection where it pleases: in the middle of a packet, of a result, of
// a transaction.
func hangsUp(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	if rng.IntN(3) == 0 {
		conf, err := pgx.ParseConfig(c.DSN)
		if err != nil {
			return err
		}
		raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(conf.Host, strconv.Itoa(int(conf.Port))))
		if err != nil {
			return err
		}
		_, err = raw.Write([]byte{0, 0, 0, 40, 0, 3, 0, 0, 'u', 's', 'e', 'r'}[:4+rng.IntN(9)])
		return errors.Join(err, raw.Close())
	}
	conn, err := pgx.Connect(ctx, c.DSN)
	if err != nil {
		return err
	}
	begin := [][]byte{
		query(`BEGIN`), query(`SELECT pg_sleep(0.05)`), query(`SELECT repeat('x', 1000) FROM generate_series(1, 3000)`),
		query(`BEGIN; INSERT INTO soak.visits (kind) VALUES ('never')`), query(`COPY soak.visits (kind) FROM STDIN`), query(`LISTEN soak`), {'Q', 0, 0, 1, 0, 'S'},
	}
	_, err = conn.PgConn().Conn().Write(begin[rng.IntN(len(begin))])
	time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
	return errors.Join(err, conn.PgConn().Conn().Close())
}

// query is a message of the simple protocol (PostgreSQL's documentation, "Message Formats").
func query(sql string) []byte {
	n := len(sql) + 5
	return append(append([]byte{'Q', byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, sql...), 0)
}

// cancels sends cancel requests, some of them too late.
func cancels(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	return c.with(ctx, "", func(conn *pgx.Conn) error {
		// pgx closes a connection whose context ends: the request is sent by hand.
		done := make(chan error, 1)
		go func() {
			time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
			done <- conn.PgConn().CancelRequest(ctx)
		}()
		_, err := conn.Exec(ctx, `SELECT pg_sleep(0.03)`)
		return errors.Join(<-done, err)
	})
}

// hasState does what keeps a server's connection for one client, and goes without a word or
// after DISCARD ALL.
func hasState(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	return c.with(ctx, "&default_query_exec_mode=exec", func(conn *pgx.Conn) error {
		for _, sql := range [][]string{
			{`CREATE TEMP TABLE mine (v int)`, `INSERT INTO mine VALUES (1)`, `SELECT * FROM mine`},
			{`SELECT pg_advisory_lock(` + strconv.Itoa(rng.IntN(1e6)) + `)`, `SELECT 1`},
			{`DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 1000)`, `FETCH 10 FROM held`},
			{`SET work_mem = '9MB'`, `PREPARE p AS SELECT 1`, `EXECUTE p`},
		}[rng.IntN(4)] {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		if rng.IntN(2) == 0 {
			_, err := conn.Exec(ctx, `DISCARD ALL`)
			return err
		}
		return nil
	})
}

// sendsAhead sends many statements without waiting for answers, some of them wrong.
func sendsAhead(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	return c.with(ctx, "", func(conn *pgx.Conn) error {
		batch := c.newBatch()
		lines := 1 + rng.IntN(20)
		b := &pgx.Batch{}
		b.Queue(`INSERT INTO soak.batches VALUES ($1, $2)`, batch, lines)
		for i := range lines {
			b.Queue(`INSERT INTO soak.lines VALUES ($1, $2, $3)`, batch, i, "x")
		}
		wrong := rng.IntN(4) == 0
		if wrong {
			b.Queue(`SELECT 1 / $1::int`, 0)
		}
		err := conn.SendBatch(ctx, b).Close() // one transaction, of the protocol's
		c.told(batch, lines, torture.OutcomeOf(err))
		if wrong && state(err) == "22012" {
			return nil
		}
		if wrong && err == nil {
			return errors.New("a batch with a division by zero went through")
		}
		return err
	})
}

// readsALittle asks for much and closes after a part, and goes on with the connection.
func readsALittle(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	return c.with(ctx, "", func(conn *pgx.Conn) error {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx) //nolint:errcheck // the connection is closed next
		if _, err := tx.Exec(ctx, `DECLARE part CURSOR FOR SELECT repeat('y', 200) FROM generate_series(1, 5000)`); err != nil {
			return retried(err)
		}
		for range 1 + rng.IntN(5) {
			if _, err := tx.Exec(ctx, `FETCH 100 FROM part`); err != nil {
				return retried(err)
			}
		}
		return nil
	})
}

// retried makes nothing of an error after which a reader would begin anew.
func retried(err error) error {
	if state(err) == "40001" {
		return nil
	}
	return err
}

// waits stays for a while and does nothing but its first and its last statement.
func waits(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	return c.with(ctx, "", func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `SET application_name = 'waits'`); err != nil {
			return err
		}
		time.Sleep(time.Duration(500+rng.IntN(3000)) * time.Millisecond)
		var name string
		if err := conn.QueryRow(ctx, `SELECT current_setting('application_name')`).Scan(&name); err != nil {
			return err
		}
		if name != "waits" {
			return fmt.Errorf("application_name is %q, the client had set it", name)
		}
		return nil
	})
}

// listens hears its own word, and leaves.
func listens(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	return c.with(ctx, "", func(conn *pgx.Conn) error {
		channel := "soak" + strconv.Itoa(rng.IntN(5))
		if _, err := conn.Exec(ctx, `LISTEN `+channel); err != nil {
			return err
		}
		word := strconv.FormatInt(rng.Int64(), 36)
		if _, err := conn.Exec(ctx, `SELECT pg_notify($1, $2)`, channel, word); err != nil {
			return err
		}
		for {
			n, err := conn.WaitForNotification(ctx)
			if err != nil {
				return err
			}
			if n.Payload == word {
				break
			}
		}
		if rng.IntN(2) == 0 {
			_, err := conn.Exec(ctx, `UNLISTEN *`)
			return err
		}
		return nil
	})
}

// defines makes a table, uses it and drops it.
func defines(ctx context.Context, c *Crowd, rng *rand.Rand) error {
	time.Sleep(time.Duration(100+rng.IntN(400)) * time.Millisecond)
	return c.with(ctx, "", func(conn *pgx.Conn) error {
		name := pgx.Identifier{"soak", "t" + strconv.FormatInt(c.newBatch(), 10)}.Sanitize()
		if _, err := conn.Exec(ctx, `CREATE TABLE `+name+` (id serial PRIMARY KEY, v float8 DEFAULT random())`); err != nil {
			return err
		}
		for range 3 {
			if _, err := conn.Exec(ctx, `INSERT INTO `+name+` DEFAULT VALUES`); err != nil {
				return err
			}
		}
		_, err := conn.Exec(ctx, `DROP TABLE `+name)
		return err
	})
}
