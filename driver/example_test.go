//go:build unix

package driver_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/driver"
	"github.com/pgdist/pgdist/internal/mirror"
	"github.com/pgdist/pgdist/internal/pgtest"
)

// throwAway starts three empty servers, makes a set of them as "pgdist init"
// does, and returns its DSN and what ends them.
func throwAway() (dsn string, end func()) {
	servers, err := pgtest.LaunchSet(3, pgtest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	var config mirror.Config
	var hosts []string
	for _, s := range servers {
		c, err := pgconn.ParseConfig(s.DSN())
		if err != nil {
			log.Fatal(err)
		}
		config.Members = append(config.Members, mirror.MemberConfig{Conn: c})
		hosts = append(hosts, s.Addr())
	}
	if _, err := mirror.Init(context.Background(), config, mirror.InitOptions{}); err != nil {
		log.Fatal(err)
	}
	return "pgdist://postgres@" + strings.Join(hosts, ",") + "/postgres?sslmode=disable", func() {
		var errs []error
		for _, s := range servers {
			errs = append(errs, s.Close())
		}
		if err := errors.Join(errs...); err != nil {
			log.Fatal(err)
		}
	}
}

// A program opens "pgdist" instead of "pgx" and is otherwise unchanged.
func Example() {
	dsn, end := throwAway() // such as pgdist://app:secret@db1,db2,db3/shop
	defer end()
	db, err := sql.Open("pgdist", dsn)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	if _, err := db.Exec("CREATE TABLE account (id int PRIMARY KEY, balance numeric)"); err != nil {
		log.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO account VALUES (1, 100), (2, random())"); err != nil {
		log.Fatal(err) // otherwise all three databases have the rows, and the same ones
	}
	var n int
	if err := db.QueryRow("SELECT count(*) FROM account").Scan(&n); err != nil { // on any of them
		log.Fatal(err)
	}
	fmt.Println(n, "accounts")
	// Output: 2 accounts
}

// A Config says what a DSN cannot: who hears of databases that come and go.
func ExampleNewConnector() {
	dsn, end := throwAway()
	defer end()
	config, err := driver.ParseConfig(dsn)
	if err != nil {
		log.Fatal(err)
	}
	config.Balance = driver.RoundRobin
	config.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	connector, err := driver.NewConnector(config)
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()

	if _, err := db.Exec("CREATE TABLE note (id int PRIMARY KEY)"); err != nil {
		log.Fatal(err)
	}
	for range 9 {
		if _, err := db.Exec("SELECT * FROM note"); err != nil {
			log.Fatal(err)
		}
	}
	for _, m := range connector.Stats() {
		fmt.Println("database", m.ID, "in sync:", m.InSync, "read:", m.Reads >= 3)
	}
	// Output:
	// database 1 in sync: true read: true
	// database 2 in sync: true read: true
	// database 3 in sync: true read: true
}

// One statement's reads can be sent elsewhere than the DSN's consistency says.
func ExampleWithRoute() {
	dsn, end := throwAway()
	defer end()
	db, err := sql.Open("pgdist", dsn)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx := driver.WithRoute(context.Background(), driver.RouteLeader)
	for range 10 {
		if _, err := db.ExecContext(ctx, "SELECT 1"); err != nil {
			log.Fatal(err)
		}
	}
	stats, err := driver.Stats(context.Background(), db)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range stats {
		if m.Leader {
			fmt.Println("all on the leader:", m.Reads >= 10)
		} else if m.Reads > 0 {
			fmt.Println("a follower was read")
		}
	}
	// Output: all on the leader: true
}

// CopyFrom is the fast way in; like any write it is over when every database
// has the rows.
func ExampleCopyFrom() {
	dsn, end := throwAway()
	defer end()
	db, err := sql.Open("pgdist", dsn)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	if _, err := db.ExecContext(ctx, "CREATE TABLE item (id int PRIMARY KEY, name text)"); err != nil {
		log.Fatal(err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	rows := [][]any{{1, "nail"}, {2, "hammer"}}
	n, err := driver.CopyFrom(ctx, conn, pgx.Identifier{"item"}, []string{"id", "name"}, pgx.CopyFromRows(rows))
	if err != nil {
		log.Fatal(err)
	}
	var name string
	if err := db.QueryRowContext(ctx, "SELECT name FROM item WHERE id = 2").Scan(&name); err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, name)
	// Output: 2 hammer
}
