// Package register keeps what a voter that is no database has promised and accepted about
// the views of a set: in a local file, for the programs of one machine, or in etcd.
//
// Such a voter is asked the same as a database (internal/mirror/sql/07_epoch.sql and
// 07_distributors.sql) and answers by the same rules. They are written down once, in
// [State]; a store holds the state as one value, of which only the newest version can be
// replaced by a newer one. So every answer is that of one moment, whoever else asks.
package register
