// Package random makes schemas and statements nobody thought of, and tells when
// pgdist does otherwise with them than one PostgreSQL.
//
// A [Generator] makes statements from a seed and from what the catalog says there
// is. They need not succeed: an error is an outcome like any other. There are two
// ways to run them:
//
//   - One client, and only statements with one possible outcome: each is run
//     through pgdist and on one plain server. SQLSTATEs, counts and rows must be
//     equal, and in the end the bytes of all databases. What pgdist refuses, if it
//     is on the list, is left out on the plain server. A failing case is shrunk to
//     a script that psql could run.
//   - Sixteen clients, everything allowed, servers killed meanwhile: the databases
//     in sync must be equal whenever all transactions have ended.
//
// A case of the first kind is replayed by its seed. Of the second, the clients'
// choices are the same again, what comes of them is not.
package random
