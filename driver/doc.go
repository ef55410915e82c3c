// Package driver is the database/sql driver "pgdist": several PostgreSQL
// databases that hold the same data, used as if they were one.
//
//	db, err := sql.Open("pgdist", "pgdist://app:secret@db1,db2,db3/shop")
//
// Reads are spread over the databases that are in sync; a write has reached all
// of them before it returns. Values, errors (*pgconn.PgError) and statements
// are those of pgx's own driver, on whose connections it runs.
//
// A *sql.DB of this driver pools sessions, not connections: the connections
// to the servers belong to the engine below, which all *sql.DB of one DSN in a
// process share. Limits for connections are the DSN's pool_size and its kin,
// not SetMaxOpenConns.
package driver
