package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5/pgconn"
)

// command is one that the console knows.
type command struct {
	words   string // in upper case
	arg     string // how its argument is called in HELP; "" takes none, "[…]" may be left out
	help    string
	tag     string
	columns []column // nil gives no rows
	run     func(k *console, arg string) ([][]any, error)
}

// commands lists them.
func commands() []*command {
	list := []*command{
		{words: "PAUSE", arg: "[db]", help: "new statements wait, what is under way is finished; returns when that is done", tag: "PAUSE", run: (*console).pause},
		{words: "RESUME", arg: "[db]", help: "ends PAUSE", tag: "RESUME", run: (*console).resume},
		{words: "RELOAD", help: "reads the configuration again", tag: "RELOAD", run: (*console).reload},
		{words: "KILL", arg: "client", help: "ends one client, by its id in SHOW CLIENTS", tag: "KILL", run: (*console).kill},
		{words: "KILL_CLIENT", arg: "client", help: "the same", tag: "KILL_CLIENT", run: (*console).kill},
		{words: "SHUTDOWN", arg: "[WAIT]", help: "stops the gateway; WAIT lets transactions end first", tag: "SHUTDOWN", run: (*console).shutdown},
		{words: "SELECT 1", tag: "SELECT 1", columns: columnsOf("?column?#"), run: func(*console, string) ([][]any, error) { return [][]any{{int64(1)}}, nil }},
	}
	for _, s := range shows() {
		s.words, s.tag = "SHOW "+s.words, "SHOW"
		list = append(list, s)
	}
	return list
}

var commandList []*command

func init() { commandList = commands() } // HELP refers to the list

// harmless are settings that drivers send before anything else; they change nothing here.
var harmless = []string{"APPLICATION_NAME", "CLIENT_ENCODING", "EXTRA_FLOAT_DIGITS", "DATESTYLE", "TIMEZONE", "CLIENT_MIN_MESSAGES", "STATEMENT_TIMEOUT"}

var setNothing = &command{tag: "SET", run: func(*console, string) ([][]any, error) { return nil, nil }}

// findCommand finds what a text of one command asks for.
func findCommand(text string) (*consoleStatement, error) {
	words := fields(text)
	if len(words) > 1 && strings.EqualFold(words[0], "SET") {
		name := strings.ToUpper(strings.SplitN(words[1], "=", 2)[0])
		if slices.Contains(harmless, name) {
			return &consoleStatement{cmd: setNothing, text: text}, nil
		}
		return nil, &pgconn.PgError{Severity: "ERROR", Code: "0A000", Message: "settings are changed in the configuration: change it and RELOAD"}
	}
	for _, c := range commandList {
		n := len(strings.Fields(c.words))
		if len(words) < n || !strings.EqualFold(strings.Join(words[:n], " "), c.words) {
			continue
		}
		args := words[n:]
		switch optional := strings.HasPrefix(c.arg, "["); {
		case len(args) > 1, len(args) == 1 && c.arg == "", len(args) == 0 && c.arg != "" && !optional:
			return nil, syntaxError(fmt.Sprintf("usage: %s %s", c.words, c.arg))
		case len(args) == 1:
			arg, err := unquoted(args[0])
			return &consoleStatement{cmd: c, arg: arg, text: text}, err
		}
		return &consoleStatement{cmd: c, text: text}, nil
	}
	return nil, syntaxError(fmt.Sprintf("unknown command %q: SHOW HELP lists what there is", text))
}

func syntaxError(message string) error {
	return &pgconn.PgError{Severity: "ERROR", Code: "42601", Message: strings.TrimSpace(message)}
}

// unquoted is the name that is meant, as written.
func unquoted(name string) (string, error) {
	switch {
	case name[0] == '"':
		if n := len(name); n > 2 && name[n-1] == '"' && !strings.Contains(strings.ReplaceAll(name[1:n-1], `""`, ``), `"`) {
			return strings.ReplaceAll(name[1:n-1], `""`, `"`), nil
		}
		return "", syntaxError("a name in quotes does not end, or is empty: " + name)
	case strings.ContainsAny(name, `"'`):
		return "", syntaxError("names stand in double quotes, or in none: " + name)
	}
	return name, nil
}

// splitCommands divides a text at semicolons that stand outside of quotes; comments and empty
// commands are left out.
func splitCommands(text string) (list []string) {
	var b strings.Builder
	add := func() {
		if one := strings.TrimSpace(b.String()); one != "" {
			list = append(list, one)
		}
		b.Reset()
	}
	for quote := byte(0); len(text) > 0; {
		switch at := text[0]; {
		case quote == 0 && strings.HasPrefix(text, "--"):
			_, text, _ = strings.Cut(text, "\n")
			b.WriteByte(' ')
			continue
		case quote == 0 && strings.HasPrefix(text, "/*"):
			_, text, _ = strings.Cut(text[2:], "*/")
			b.WriteByte(' ')
			continue
		case quote == 0 && at == ';':
			add()
			text = text[1:]
			continue
		case quote == 0 && (at == '"' || at == '\''):
			quote = at
		case at == quote: // twice is one that is meant: it ends here and begins again
			quote = 0
		}
		b.WriteByte(text[0])
		text = text[1:]
	}
	add()
	return list
}

// fields divides a command at spaces that stand outside of quotes.
func fields(text string) []string {
	quote := rune(0)
	return strings.FieldsFunc(text, func(r rune) bool {
		switch {
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		case r == quote:
			quote = 0
		}
		return quote == 0 && unicode.IsSpace(r)
	})
}

func (k *console) pause(db string) ([][]any, error) {
	s := k.server
	if err := s.leadsOrNone(db); err != nil {
		return nil, err
	}
	if err := s.pause(db); err != nil {
		return nil, err
	}
	s.log.Info("paused", "database", db, "by", k.user)
	s.history.add(db, "paused by %s", k.user)
	if err := k.flush(); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	watched := make(chan struct{})
	s.spawn("PAUSE", func() { // an administrator who leaves need not be waited for
		defer close(watched)
		for {
			select {
			case <-done:
				return
			case <-time.After(watchEvery):
				if gone(k.conn) {
					k.cancel()
					return
				}
			}
		}
	})
	err := s.waitQuiet(k.ctx, db)
	close(done)
	<-watched
	if err != nil && s.paused.Load().covers(db) {
		return nil, fmt.Errorf("%w (it stays paused until RESUME)", err)
	}
	return nil, err
}

func (k *console) resume(db string) ([][]any, error) {
	s := k.server
	if err := s.leadsOrNone(db); err != nil {
		return nil, err
	}
	if err := s.resume(db); err != nil {
		return nil, err
	}
	s.log.Info("resumed", "database", db, "by", k.user)
	s.history.add(db, "resumed by %s", k.user)
	return nil, nil
}

func (k *console) reload(string) ([][]any, error) {
	reload := k.server.conf().Reload
	if reload == nil {
		return nil, errors.New("there is no configuration file to read again")
	}
	fixed, err := reload(k.ctx)
	if len(fixed) > 0 {
		k.notice("these settings differ now, but change only with a restart: " + strings.Join(fixed, ", "))
	}
	return nil, err
}

func (k *console) kill(arg string) ([][]any, error) {
	id, err := strconv.ParseUint(arg, 10, 32)
	if err != nil {
		return nil, syntaxError("KILL wants a client's id, as in SHOW CLIENTS")
	}
	s := k.server
	s.mu.Lock()
	c := s.clients[uint32(id)]
	s.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("there is no client %d", id)
	}
	s.log.Info("client killed", "client", id, "by", k.user)
	s.kill(c)
	return nil, nil
}

// kill ends a client: whatever it does is cancelled, and it hears why if it listens.
func (s *Server) kill(c *client) {
	c.killed.Store(true)
	c.closing.Store(true)
	c.wake()
	s.spawn("kill", func() {
		ctx, stop := context.WithTimeout(s.ctx, cancelTimeout)
		defer stop()
		c.cancel(ctx)
		for range 100 {
			s.mu.Lock()
			here := s.clients[c.id] == c
			s.mu.Unlock()
			if !here || !sleep(ctx, 20*time.Millisecond) {
				break
			}
			c.wake() // it may have gone on to its next message meanwhile
		}
		_ = c.conn.Close()
	})
}

func (k *console) shutdown(arg string) ([][]any, error) {
	wait := strings.EqualFold(arg, "WAIT")
	if arg != "" && !wait {
		return nil, syntaxError("usage: SHUTDOWN [WAIT]")
	}
	stop := k.server.conf().Stop
	if stop == nil {
		return nil, errors.New("this gateway is part of a program: stop that")
	}
	k.server.log.Info("shutdown", "wait", wait, "by", k.user)
	stop(wait)
	return nil, nil
}
