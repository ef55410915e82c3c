package main

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/mirror"
)

// probe is what one attempt, now and from here, to use a database brought. It
// stands in for what only a process that uses the set knows: breaker and pool.
type probe struct {
	OK      bool   `json:"ok"`
	Version string `json:"server_version,omitempty"`
	// ConnectMillis and QueryMillis are how long connecting and a trivial
	// statement took.
	ConnectMillis float64 `json:"connect_ms"`
	QueryMillis   float64 `json:"query_ms"`
	// Connections are those to the database, this one not counted; Max is what
	// the server allows over all its databases.
	Connections int `json:"connections"`
	Max         int `json:"max_connections"`
	// Error is why the database could not be used; empty if it could.
	Error string `json:"error,omitempty"`
}

// probeTimeout bounds a probe. It is far above the breakers' own: a person waits
// for the answer, and "slow" is a better one than "dead".
const probeTimeout = 3 * time.Second

const probeSQL = `SELECT count(*)::text, current_setting('max_connections') FROM pg_catalog.pg_stat_activity
	WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`

// probeAll probes the members at once; the results are by "host:port".
func probeAll(ctx context.Context, c mirror.Config) map[string]probe {
	var mu sync.Mutex // guards found
	found := map[string]probe{}
	var wg sync.WaitGroup
	for _, m := range c.Members {
		if m.Register != "" {
			continue
		}
		wg.Go(func() {
			p := probeOne(ctx, m.Conn)
			mu.Lock()
			defer mu.Unlock()
			found[m.Host()] = p
		})
	}
	wg.Wait()
	return found
}

func probeOne(ctx context.Context, config *pgconn.Config) probe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	began := time.Now()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return probe{Error: oneLine(err)}
	}
	p := probe{Version: conn.ParameterStatus("server_version"), ConnectMillis: millis(time.Since(began))}
	began = time.Now()
	r := conn.ExecParams(ctx, probeSQL, nil, nil, nil, nil).Read()
	p.QueryMillis = millis(time.Since(began))
	err = r.Err
	if err == nil {
		p.Connections, err = strconv.Atoi(string(r.Rows[0][0]))
	}
	if err == nil {
		p.Max, err = strconv.Atoi(string(r.Rows[0][1]))
	}
	if cerr := conn.Close(ctx); err == nil {
		err = cerr
	}
	p.OK = err == nil
	if err != nil {
		p.Error = oneLine(err)
	}
	return p
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
