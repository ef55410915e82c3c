package main

import (
	"errors"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgdist/pgdist/internal/engine"
	"github.com/pgdist/pgdist/internal/mirror"
)

// dsnVariable holds the DSN where neither an argument nor --config gives it.
const dsnVariable = "PGDIST_DSN"

var errNoDSN = errors.New("no set is named: give a DSN such as pgdist://user@host1,host2,host3/database as the argument, by --dsn or in " + dsnVariable + ", or a file with --config")

var errTwoDSNs = errors.New("the set is named twice: give its DSN as the argument or by --dsn, not both")

// set reads the description of the set from the argument, the file and the
// environment. What its errors say is free of passwords.
func (o *options) set(args []string) (engine.Config, error) {
	_, config, err := o.parse(args)
	return config, err
}

// dsn returns the set's DSN, which names the YAML file if there is one.
func (o *options) dsn(args []string) (string, error) {
	text, _, err := o.parse(args)
	return text, err
}

func (o *options) parse(args []string) (string, engine.Config, error) {
	text := ""
	switch {
	case len(args) > 0 && o.named != "":
		return "", engine.Config{}, errTwoDSNs
	case len(args) > 0:
		text = args[0]
	case o.named != "":
		text = o.named
	case o.config == "":
		text = os.Getenv(dsnVariable)
	}
	if text == "" && o.config == "" {
		return "", engine.Config{}, errNoDSN
	}
	if o.config != "" {
		text = withConfig(text, o.config)
	}
	config, err := engine.Parse(text)
	if err != nil {
		return "", engine.Config{}, &redactedError{text: redact(oneLine(err), text), err: err}
	}
	return text, config, nil
}

// withConfig adds the parameter config=file to a DSN.
func withConfig(dsn, file string) string {
	if !strings.Contains(dsn, "://") {
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(file)
		return strings.TrimSpace(dsn + " config='" + quoted + "'")
	}
	sep := "?"
	if strings.Contains(dsn, "?") {
		sep = "&"
	}
	return dsn + sep + "config=" + escapeQuery(file)
}

// role says as whom a command connects.
type role int

const (
	asMirror role = iota // as mirror_user, if there is one
	asUser               // as the DSN's own user: who installs and uninstalls
)

// mirrorConfig is the part of a set's description that concerns mirroring.
func mirrorConfig(c engine.Config, as role) mirror.Config {
	mc := mirror.Config{Health: c.Health, Logger: c.Logger, BlockedTimeout: c.DDLConflictTimeout, JournalMax: c.JournalMaxSize, JournalMaxAge: c.JournalMaxAge, Register: c.Register.Mirror()}
	for _, m := range c.Members {
		conn := m.Conn.Config.Copy()
		// Settings meant for the clients' sessions are none of the mirror's.
		conn.RuntimeParams = nil
		if as == asMirror && c.MirrorUser != "" {
			conn.User, conn.Password = c.MirrorUser, c.MirrorPassword
		}
		mc.Members = append(mc.Members, mirror.MemberConfig{Conn: withoutDeadEnds(conn), Health: m.Health})
	}
	return mc
}

// withoutDeadEnds drops fallbacks that repeat the main attempt, whose errors
// would be told twice.
func withoutDeadEnds(c *pgconn.Config) *pgconn.Config {
	var kept []*pgconn.FallbackConfig
	for _, f := range c.Fallbacks {
		if f.Host != c.Host || f.Port != c.Port || (f.TLSConfig == nil) != (c.TLSConfig == nil) {
			kept = append(kept, f)
		}
	}
	c.Fallbacks = kept
	return c
}
