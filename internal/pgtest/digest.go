package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/jackc/pgx/v5"
)

// Contents is what one database holds, in digests that are equal if and only if
// the bytes are. Left out are the schema pgdist, temporary tables, the rows of
// materialized views, and triggers and event triggers whose names begin with
// pgdist.
type Contents struct {
	Tables    map[string]Rows   // by schema-qualified, quoted name; partitions one by one
	Sequences map[string]string // "last_value is_called" by name
	Schema    []string          // one sorted line per object: its definition, owner and grants
}

// Rows digests the rows of one table whatever their order.
type Rows struct {
	Count  int64
	SHA256 string
}

// pinned settings make a value's text depend on the value alone.
var pinned = map[string]string{
	"datestyle":                     "ISO, YMD",
	"intervalstyle":                 "postgres",
	"extra_float_digits":            "3",
	"bytea_output":                  "hex",
	"xmloption":                     "content",
	"timezone":                      "UTC",
	"lc_monetary":                   "C",
	"client_encoding":               "UTF8",
	"search_path":                   "",
	"row_security":                  "off",
	"statement_timeout":             "0",
	"quote_all_identifiers":         "off",
	"application_name":              "pgtest digest",
	"default_transaction_read_only": "on",
}

// view is one database read at one snapshot.
type view struct {
	dsn  string
	conn *pgx.Conn
	tx   pgx.Tx
}

// openView connects and takes the snapshot.
func openView(ctx context.Context, dsn string) (*view, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	for name, value := range pinned {
		cfg.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	v := &view{dsn: dsn, conn: conn, tx: tx}
	if _, err := tx.Exec(ctx, "SELECT 1"); err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *view) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return v.conn.Close(ctx)
}

// ReadContents digests the database at dsn, at one snapshot. The user must see
// every row: a superuser, or one with BYPASSRLS and every SELECT grant.
func ReadContents(ctx context.Context, dsn string) (*Contents, error) {
	v, err := openView(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("pgtest: digest %s: %w", dsn, err)
	}
	c, err := v.contents(ctx)
	if err = errors.Join(err, v.close()); err != nil {
		return nil, fmt.Errorf("pgtest: digest %s: %w", dsn, err)
	}
	return c, nil
}

func (v *view) contents(ctx context.Context) (*Contents, error) {
	c := &Contents{Tables: map[string]Rows{}, Sequences: map[string]string{}}
	tables, err := v.column(ctx, tablesSQL)
	if err != nil {
		return nil, err
	}
	// Functions of index expressions may rely on the usual path; the planner
	// inlines them when it reads the table.
	if _, err := v.tx.Exec(ctx, "SET LOCAL search_path = public"); err != nil {
		return nil, err
	}
	for _, table := range tables {
		if c.Tables[table], err = v.digest(ctx, table); err != nil {
			return nil, fmt.Errorf("table %s: %w", table, err)
		}
	}
	if _, err := v.tx.Exec(ctx, "SET LOCAL search_path = ''"); err != nil {
		return nil, err
	}
	sequences, err := v.column(ctx, sequencesSQL)
	if err != nil {
		return nil, err
	}
	for _, sequence := range sequences {
		var state string
		err := v.tx.QueryRow(ctx, "SELECT last_value || ' ' || is_called FROM "+sequence).Scan(&state)
		if err != nil {
			return nil, fmt.Errorf("sequence %s: %w", sequence, err)
		}
		c.Sequences[sequence] = state
	}
	for _, part := range schemaSQL {
		lines, err := v.column(ctx, part.sql)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.what, err)
		}
		for _, line := range lines {
			c.Schema = append(c.Schema, part.what+" "+line)
		}
	}
	return c, nil
}

// column reads a query of one text column.
func (v *view) column(ctx context.Context, sql string) ([]string, error) {
	rows, err := v.tx.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// rowsSQL reads every row as its record's text in byte order. It calls the
// output functions directly: a table's owner may have defined a cast to text.
func rowsSQL(table string) string {
	return `SELECT pg_catalog.textin(pg_catalog.record_out(the_row.*)) COLLATE "C" FROM ONLY ` + table + ` AS the_row ORDER BY 1`
}

func (v *view) digest(ctx context.Context, table string) (Rows, error) {
	rows, err := v.tx.Query(ctx, rowsSQL(table))
	if err != nil {
		return Rows{}, err
	}
	defer rows.Close()
	h := sha256.New()
	var r Rows
	for rows.Next() {
		r.Count++
		hashRow(h, rows.RawValues()[0])
	}
	r.SHA256 = hex.EncodeToString(h.Sum(nil))
	return r, rows.Err()
}

// hashRow feeds a row with its length in front, so that two rows never read as
// one.
func hashRow(h hash.Hash, row []byte) {
	fmt.Fprintf(h, "%d:", len(row))
	h.Write(row)
}
