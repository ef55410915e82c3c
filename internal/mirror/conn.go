package mirror

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// pinned are the settings every connection of ours runs under: text forms must
// be the same on all members, and nothing of a role's own settings may get in
// the way.
var pinned = map[string]string{
	"application_name":                    "pgdist",
	"client_encoding":                     "UTF8",
	"DateStyle":                           "ISO, YMD",
	"IntervalStyle":                       "postgres",
	"TimeZone":                            "UTC",
	"extra_float_digits":                  "1",
	"xmlbinary":                           "base64",
	"bytea_output":                        "hex",
	"lc_monetary":                         "C",
	"xmloption":                           "content",
	"array_nulls":                         "on",
	"gin_fuzzy_search_limit":              "0",
	"standard_conforming_strings":         "on",
	"synchronous_commit":                  "on",
	"default_transaction_isolation":       "read committed",
	"default_transaction_deferrable":      "off",
	"default_transaction_read_only":       "off",
	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0",
	"row_security":                        "off",
	"jit":                                 "off",
	// Journal and rows are looked up by key, whatever the statistics say of
	// tables that are emptied and filled all the time.
	"plan_cache_mode":  "force_generic_plan",
	"enable_seqscan":   "off",
	"enable_mergejoin": "off",
}

// conn is one connection of the mirror's own, used by one goroutine at a time.
type conn struct {
	*pgconn.PgConn
	prepared map[string]string // SQL text to statement name
	// holds tells of a transaction that locks the fence and journals nothing: that its
	// number counts as seen in the snapshots that it takes does no harm.
	holds bool
}

// dial connects under the pinned settings, changed by extra.
func dial(ctx context.Context, cfg *pgconn.Config, extra map[string]string) (*conn, error) {
	c := cfg.Copy()
	params := maps.Clone(c.RuntimeParams)
	if params == nil {
		params = map[string]string{}
	}
	delete(params, "search_path") // a client's search_path is not the mirror's
	maps.Copy(params, pinned)
	maps.Copy(params, extra)
	c.RuntimeParams = params
	c.Fallbacks = cfg.Fallbacks
	return open(ctx, c)
}

// ownSettings are the pinned settings on which no user's code may depend; the others
// are as the database has them where that code is to give what it gives to users.
var ownSettings = []string{"application_name", "client_encoding", "array_nulls", "synchronous_commit", "default_transaction_isolation", "default_transaction_deferrable",
	"default_transaction_read_only", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"}

// dialPlain connects as a user might.
func dialPlain(ctx context.Context, cfg *pgconn.Config) (*conn, error) {
	c := cfg.Copy()
	c.RuntimeParams = map[string]string{}
	for _, name := range ownSettings {
		c.RuntimeParams[name] = pinned[name]
	}
	c.Fallbacks = cfg.Fallbacks
	return open(ctx, c)
}

func open(ctx context.Context, cfg *pgconn.Config) (*conn, error) {
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c := &conn{PgConn: pg, prepared: map[string]string{}}
	if sets := c.late(); sets != "" {
		if err := c.exec(ctx, sets); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// late are the pinned settings that depend on the server: its encoding, and what older ones
// would refuse a connection for.
func (c *conn) late() string {
	var sets string
	if c.foreign() {
		sets = "SET client_encoding = " + quoteLiteral(c.ParameterStatus("server_encoding")) + "; "
	}
	major := c.major()
	if major >= 14 {
		sets += "SET idle_session_timeout = 0; "
	}
	if major >= 17 {
		sets += "SET transaction_timeout = 0"
	}
	return sets
}

// close ends the connection; the server notices even if the goodbye is lost.
func (c *conn) close() {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	//nolint:errcheck // nothing can be done about a connection that fails to say goodbye
	c.PgConn.Close(ctx)
}

// idle tells whether the connection can be used for something new. One on which a transaction
// was left open cannot: what would have ended it was not even sent, for its context had ended
// before. Whatever was read there would be as of long ago.
func (c *conn) idle() bool { return c != nil && !c.IsClosed() && c.TxStatus() == 'I' }

// conclude ends the transaction that is open, or, if that fails, the connection and with it the
// transaction.
func (c *conn) conclude(ctx context.Context, how string) error {
	err := c.exec(ctx, how)
	if !c.idle() {
		c.close()
	}
	return err
}

// text makes a parameter; null makes a NULL one.
func text(s string) []byte { return []byte(s) }

// call runs one statement and returns its rows' values, copied.
func (c *conn) call(ctx context.Context, sql string, params ...[]byte) ([][][]byte, error) {
	name, err := c.prepare(ctx, sql)
	if err != nil {
		return nil, err
	}
	res := c.ExecPrepared(ctx, name, params, nil, nil).Read()
	return res.Rows, res.Err
}

// prepare prepares sql, once per connection, and returns the statement's name.
func (c *conn) prepare(ctx context.Context, sql string) (string, error) {
	if name, ok := c.prepared[sql]; ok {
		return name, nil
	}
	name := "m" + strconv.Itoa(len(c.prepared))
	if _, err := c.Prepare(ctx, name, sql, nil); err != nil {
		return "", err
	}
	c.prepared[sql] = name
	return name, nil
}

// one runs a statement that yields one value.
func (c *conn) one(ctx context.Context, sql string, params ...[]byte) (string, error) {
	rows, err := c.call(ctx, sql, params...)
	if err != nil {
		return "", err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return "", fmt.Errorf("%q yielded %d rows", sql, len(rows))
	}
	return string(rows[0][0]), nil
}

// exec runs statements without results of interest.
func (c *conn) exec(ctx context.Context, sql string) error {
	_, err := c.Exec(ctx, sql).ReadAll()
	return err
}

func nullable(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}
