// Package gateway makes a set of mirrored databases reachable over PostgreSQL's
// own protocol, so that psql, JDBC, psycopg, node-postgres and whatever else
// speaks it uses the set as if it were one database.
//
// It is a front door of the same engine as package driver: it speaks the
// protocol, and knows nothing of where a statement runs. Every client has a
// session of the engine; a connection to a server serves it only while a
// statement, a transaction or state that lives on one server needs it.
package gateway
