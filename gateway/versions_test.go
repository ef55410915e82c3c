//go:build versions

package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/health"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// Three servers are upgraded to PostgreSQL 18 one after the other, as README.md's
// recipe says, while clients of the gateway go on. See make versions.

const upgraded = `CREATE EXTENSION hstore VERSION '1.6'; CREATE ROLE alice; CREATE ROLE bob; GRANT alice TO bob WITH ADMIN OPTION; CREATE TYPE mood AS ENUM ('sad', 'ok');
	CREATE TABLE acc (id int PRIMARY KEY, balance bigint NOT NULL, h hstore, g bigint GENERATED ALWAYS AS (balance * 2) STORED); INSERT INTO acc SELECT g, 100, 'a=>1' FROM generate_series(1, 100) g;
	CREATE TABLE done (who int, n int, at timestamptz DEFAULT now(), m mood DEFAULT 'ok', PRIMARY KEY (who, n)); CREATE TABLE bag (who int, n int);
	CREATE TABLE parted (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k); CREATE TABLE parted1 PARTITION OF parted FOR VALUES FROM (0) TO (100); CREATE TABLE parted2 PARTITION OF parted DEFAULT; INSERT INTO parted SELECT g, 'p' FROM generate_series(1, 200) g;
	CREATE VIEW rich AS SELECT id, balance FROM acc WHERE balance > 100; CREATE MATERIALIZED VIEW total AS SELECT sum(balance) AS s FROM acc; CREATE INDEX ON acc (lower(h -> 'a'));
	CREATE SEQUENCE tick; ALTER TABLE bag OWNER TO alice; ALTER ROLE bob SET work_mem = '1MB'`

func TestUpgradePostgreSQL(t *testing.T) {
	for _, x := range []struct {
		from    int
		unasked bool // the gateway copies
	}{{13, false}, {15, true}} {
		t.Run(fmt.Sprint(x.from), func(t *testing.T) { upgradeTo(t, x.from, 18, x.unasked) })
	}
}

func programsOf(t *testing.T, major int) string {
	t.Helper()
	bin, err := pgtest.BinDirOf(major)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func upgradeTo(t *testing.T, from, to int, unasked bool) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := &set{servers: pgtest.Set(t, 3, pgtest.Options{Bin: programsOf(t, from)})}
	var config mirror.Config
	var hosts []string
	for _, server := range s.servers {
		server.Exec(t, upgraded)
		c, err := pgconn.ParseConfig(server.DSN())
		if err != nil {
			t.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, server.Addr())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if _, err := mirror.Init(ctx, config, mirror.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s.dsn = "pgdist://postgres@" + strings.Join(hosts, ",") + "/postgres?sslmode=disable"
	s.serve(t, func(c *Config) {
		if !unasked {
			c.DSN += "&auto_resync=off"
		}
	})
	load := s.load(t, seed)
	for _, i := range []int{2, 1, 0} {
		if i == 0 {
			s.lead(ctx, t, config, hosts[2])
		}
		before := load.count.Load()
		if err := s.servers[i].Close(); err != nil { // a fast shutdown
			t.Fatal(err)
		}
		server, err := pgtest.Launch(pgtest.Options{Bin: programsOf(t, to), Port: s.servers[i].Port()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
		s.servers[i] = server
		began := time.Now()
		if unasked {
			s.awaitSync(ctx, t, hosts[i])
		} else if res, err := mirror.Resync(ctx, config, mirror.ResyncOptions{Member: hosts[i], Wait: 2 * time.Minute, Report: t.Logf, Confirm: func(q string) error { return errors.New(q) }}); err != nil || !res.InSync {
			t.Fatalf("%s: %+v, %v", hosts[i], res, err)
		}
		t.Logf("%s is PostgreSQL %d after %v, %d statements of clients meanwhile", hosts[i], to, time.Since(began).Round(time.Millisecond), load.count.Load()-before)
	}
	load.end(t)
	rep, err := s.verify(ctx, config)
	if err != nil || len(rep.Differences) > 0 || len(rep.Unread) > 0 || len(rep.Unclear) > 0 || len(rep.View.InSync) != 3 {
		t.Errorf("%+v, %v", rep, err)
	}
	pgtest.SameBytes(t, s.servers...)
	load.check(t, s.servers)
}

// awaitSync waits until the gateway has copied a member and taken it back.
func (s *set) awaitSync(ctx context.Context, t *testing.T, host string) {
	t.Helper()
	out := false
	for {
		v := s.gateway.engine.View()
		i := slices.IndexFunc(v.Members, func(m health.Member) bool { return m.Host == host })
		in := i >= 0 && v.Has(v.Members[i].ID)
		out = out || !in
		if out && in {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s is not copied: %v", host, v)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lead makes another member the leader, as the command does.
func (s *set) lead(ctx context.Context, t *testing.T, config mirror.Config, host string) {
	t.Helper()
	m, err := mirror.Open(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Switchover(ctx, host, 30*time.Second); err != nil {
		t.Fatal(err)
	}
}

func (s *set) verify(ctx context.Context, config mirror.Config) (*mirror.Report, error) {
	m, err := mirror.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return m.Verify(ctx, mirror.VerifyOptions{})
}

// upgradeLoad are clients that write and read until they are told to end.
type upgradeLoad struct {
	stop  context.CancelFunc
	wg    sync.WaitGroup
	count atomic.Int64 // statements and transactions that succeeded
	again atomic.Int64 // transactions that heard 40001
	mu    sync.Mutex
	acked map[[2]int]bool
}

func (s *set) load(t *testing.T, seed uint64) *upgradeLoad {
	ctx, stop := context.WithCancel(context.Background())
	l := &upgradeLoad{stop: stop, acked: map[[2]int]bool{}}
	t.Cleanup(stop)
	for who := range 6 {
		c, err := pgx.Connect(ctx, s.url(""))
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, uint64(who)))
		l.wg.Go(func() {
			defer c.Close(context.Background())
			for n := 0; ctx.Err() == nil; n++ {
				if err := l.one(c, r, who, n); err != nil {
					t.Errorf("client %d, %d: %v", who, n, err)
					return
				}
				l.count.Add(1)
				time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
			}
		})
	}
	return l
}

// one is a statement outside of transactions, which hears of nothing, or a
// transaction, which may be told to begin again.
func (l *upgradeLoad) one(c *pgx.Conn, r *rand.Rand, who, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch r.IntN(4) {
	case 0:
		var sum int64
		if err := c.QueryRow(ctx, `SELECT sum(balance)::bigint FROM acc`).Scan(&sum); err != nil {
			return err
		}
		if sum != 10000 {
			return fmt.Errorf("the balances add up to %d", sum)
		}
		return nil
	case 1:
		_, err := c.Exec(ctx, `WITH x AS (INSERT INTO done (who, n) VALUES ($1, $2) RETURNING who, n), y AS (SELECT nextval('tick')) INSERT INTO bag SELECT who, n FROM x, y`, who, n)
		if err == nil {
			l.ack(who, n)
		}
		return err
	}
	for {
		err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			a, b := r.IntN(100)+1, r.IntN(100)+1
			if a > b {
				a, b = b, a
			}
			for _, x := range [][2]int{{a, 1}, {b, -1}} {
				if _, err := tx.Exec(ctx, `UPDATE acc SET balance = balance + $2, h = h || hstore('n', $3::text) WHERE id = $1`, x[0], x[1], fmt.Sprint(n)); err != nil {
					return err
				}
			}
			_, err := tx.Exec(ctx, `INSERT INTO done (who, n) VALUES ($1, $2)`, who, n)
			return err
		})
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "40001" {
			l.again.Add(1)
			continue
		}
		if err == nil {
			l.ack(who, n)
		}
		return err
	}
}

func (l *upgradeLoad) ack(who, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[[2]int{who, n}] = true
}

func (l *upgradeLoad) end(t *testing.T) {
	l.stop()
	l.wg.Wait()
	t.Logf("%d statements and transactions, %d transactions were run again", l.count.Load(), l.again.Load())
}

// check looks for what was acknowledged, on every server.
func (l *upgradeLoad) check(t *testing.T, servers []*pgtest.Server) {
	for _, s := range servers {
		c := pgtest.Connect(t, s.DSN())
		rows, err := c.Query(context.Background(), `SELECT who, n FROM done`)
		if err != nil {
			t.Fatal(err)
		}
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k [2]int, err error) { return k, row.Scan(&k[0], &k[1]) })
		if err != nil {
			t.Fatal(err)
		}
		if len(found) < len(l.acked) || slices.ContainsFunc(found, func(k [2]int) bool { return !l.acked[k] }) {
			t.Errorf("%s has %d rows of %d acknowledged, or others", s.Addr(), len(found), len(l.acked))
		}
	}
}
