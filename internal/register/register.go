package register

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is how an etcd is reached beyond its address. No part of it is ever stored.
type Config struct {
	// CA is a file with the certificates of those who may sign the servers', or "system" for
	// the machine's own; "" is no TLS, unless Cert is given.
	CA string
	// Cert and Key are files with this program's own certificate; "" is none.
	Cert, Key string
	// User and Password are for etcd's own authentication; "" is none.
	User, Password string
}

// Validate joins what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if (c.Cert == "") != (c.Key == "") {
		errs = append(errs, errors.New("etcd_cert and etcd_key go together"))
	}
	if c.Password != "" && c.User == "" {
		errs = append(errs, errors.New("etcd_password is given without etcd_user"))
	}
	return errors.Join(errs...)
}

// mark is a version of what a store holds.
type mark int64

// store keeps one value, which several programs may replace.
type store interface {
	// load is the value, none older than the newest that was stored before the call.
	load(ctx context.Context) ([]byte, mark, error)
	// swap replaces the version that was loaded; false if it is not the newest any more. After
	// an error nobody knows whether it was done.
	swap(ctx context.Context, at mark, value []byte) (bool, error)
	// create stores the first value; ErrExists if there is one.
	create(ctx context.Context, value []byte) error
	// remove ends the register, without a trace.
	remove(ctx context.Context) error
	// hold keeps other programs from using the register until it is closed, if it is of a
	// kind that one at a time may use; see ErrLocked.
	hold(ctx context.Context, name string) error
	// appear has this program known as alive under a name until it ends or the store is closed.
	appear(ctx context.Context, id string) error
	// alive lists the names of those that are.
	alive(ctx context.Context) ([]string, error)
	close() error
}

// Register is a voter that is no database. Its methods may be called by any number of
// goroutines. Errors of the store that say what to do about them are of type *Error.
type Register struct {
	url string
	s   store
}

// Error says what went wrong with which register, and what to do about it.
type Error struct {
	Op   string
	URL  string
	Err  error
	Hint string
}

func (e *Error) Error() string {
	s := e.Op + " the register " + e.URL + ": " + e.Err.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is tells whether an address is that of a register and not of a database.
func Is(address string) bool { return strings.Contains(address, "://") }

// IsFile tells whether it is that of a register in a file.
func IsFile(address string) bool { return strings.HasPrefix(address, "file://") }

// FileURL is the address of a register in a file.
func FileURL(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(abs)}).String(), nil
}

// Open prepares a register for use: file:///path or etcd://host:port,host:port/prefix. It
// asks nobody yet.
func Open(address string, c Config) (*Register, error) {
	refuse := func(err error) (*Register, error) {
		return nil, &Error{Op: "open", URL: address, Err: err, Hint: "an address is file:///path or etcd://host:2379,host:2379/prefix"}
	}
	scheme, rest, _ := strings.Cut(address, "://")
	switch scheme {
	case "file":
		u, err := url.Parse(address)
		if err != nil {
			return refuse(err)
		}
		if u.Host != "" || !filepath.IsAbs(filepath.FromSlash(u.Path)) || u.RawQuery != "" {
			return refuse(errors.New("it names no absolute path"))
		}
		return &Register{url: address, s: newFile(address, filepath.FromSlash(u.Path))}, nil
	case "etcd":
		hosts, prefix, _ := strings.Cut(rest, "/")
		prefix = strings.Trim(prefix, "/")
		if hosts == "" || prefix == "" || strings.ContainsAny(address, "@?# ") || slices.Contains(strings.Split(hosts, ","), "") {
			return refuse(errors.New("it names no hosts and prefix (user and password are settings: etcd_user, etcd_password)"))
		}
		if err := c.Validate(); err != nil {
			return refuse(err)
		}
		return &Register{url: address, s: newEtcd(address, strings.Split(hosts, ","), prefix, c)}, nil
	}
	return refuse(fmt.Errorf("%q is no kind of register", scheme))
}

// Create begins a register that has promised nothing.
func (r *Register) Create(ctx context.Context, s State) error {
	raw, err := s.encode()
	if err != nil {
		return err
	}
	return r.s.create(ctx, raw)
}

// Look is its state now.
func (r *Register) Look(ctx context.Context) (*State, error) {
	s, _, err := r.load(ctx)
	return s, err
}

// Promise promises to accept no view of an epoch before e; false if it has promised e, or a
// later one, already. The state is the one after that.
func (r *Register) Promise(ctx context.Context, e int64) (given bool, s *State, err error) {
	s, err = r.update(ctx, func(s *State) (bool, error) {
		given = s.promise(e)
		return given, nil
	})
	return given, s, err
}

// Accept accepts a view for the epoch that was promised last; false if that is another.
func (r *Register) Accept(ctx context.Context, e int64, view []byte) (took bool, err error) {
	_, err = r.update(ctx, func(s *State) (changed bool, err error) {
		before := s.Accepted
		took, err = s.accept(e, view)
		return took && s.Accepted != before, err
	})
	return took, err
}

// Enrol puts a program on the list.
func (r *Register) Enrol(ctx context.Context, p Program) error {
	if err := r.s.appear(ctx, p.life()); err != nil {
		return err
	}
	p.Since = time.Now().UTC().Truncate(time.Millisecond)
	_, err := r.update(ctx, func(s *State) (bool, error) {
		s.enrol(p)
		return true, nil
	})
	return err
}

// Dismiss takes programs off the list that go by views older than epoch e.
func (r *Register) Dismiss(ctx context.Context, ids []string, e int64) error {
	_, err := r.update(ctx, func(s *State) (bool, error) { return s.dismiss(ids, e), nil })
	return err
}

// Confirm writes down what the program goes by, if it is on the list and anything of it is
// new, and returns the state; known tells whether it is. look asks who else is alive.
func (r *Register) Confirm(ctx context.Context, p Program, look bool) (s *State, known bool, alive []string, err error) {
	s, err = r.update(ctx, func(s *State) (changed bool, err error) {
		known, changed = s.note(p)
		return changed, nil
	})
	if err != nil || !look {
		return s, known, nil, err
	}
	if known { // again, should it have been thought dead
		if err := r.s.appear(ctx, p.life()); err != nil {
			return nil, false, nil, err
		}
	}
	alive, err = r.s.alive(ctx)
	return s, known, alive, err
}

// Hold takes the register for this program alone until Close, if it is of a kind that only
// one program may use: a file. name is what others are told of it.
func (r *Register) Hold(ctx context.Context, name string) error { return r.s.hold(ctx, name) }

// Remove ends the register, without a trace.
func (r *Register) Remove(ctx context.Context) error { return r.s.remove(ctx) }

// Close gives up what is held.
func (r *Register) Close() error { return r.s.close() }

func (r *Register) load(ctx context.Context) (*State, mark, error) {
	raw, at, err := r.s.load(ctx)
	if err != nil {
		return nil, 0, err
	}
	s, err := decode(raw)
	if err != nil {
		hint := "it is not begun anew by itself, for what it has promised would be forgotten; if there is no better one, run: pgdist force DSN"
		if errors.Is(err, ErrFormat) {
			hint = "use the version of pgdist that has written it"
		}
		return nil, 0, &Error{Op: "read", URL: r.url, Err: err, Hint: hint}
	}
	return s, at, nil
}

// update changes the state by f, which tells whether it did; again, if somebody else was
// faster. It returns the state after that.
func (r *Register) update(ctx context.Context, f func(*State) (changed bool, err error)) (*State, error) {
	for {
		s, at, err := r.load(ctx)
		if err != nil {
			return nil, err
		}
		changed, err := f(s)
		if err != nil || !changed {
			return s, err
		}
		raw, err := s.encode()
		if err != nil {
			return nil, err
		}
		done, err := r.s.swap(ctx, at, raw)
		if err != nil {
			return nil, err
		}
		if done {
			return s, nil
		}
		if err := pause(ctx, time.Duration(rand.Int64N(int64(contention)))); err != nil {
			return nil, err
		}
	}
}

// contention is about how long one waits who was not the first.
const contention = 5 * time.Millisecond

// pause waits; the error is ctx's.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Broken is a register that answers everything with an error: its address cannot be used.
func Broken(address string, err error) *Register {
	return &Register{url: address, s: broken{err}}
}

type broken struct{ err error }

func (b broken) load(context.Context) ([]byte, mark, error)       { return nil, 0, b.err }
func (b broken) swap(context.Context, mark, []byte) (bool, error) { return false, b.err }
func (b broken) create(context.Context, []byte) error             { return b.err }
func (b broken) remove(context.Context) error                     { return b.err }
func (b broken) hold(context.Context, string) error               { return b.err }
func (b broken) appear(context.Context, string) error             { return b.err }
func (b broken) alive(context.Context) ([]string, error)          { return nil, b.err }
func (b broken) close() error                                     { return nil }
