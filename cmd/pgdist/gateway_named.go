package main

import (
	"errors"
	"maps"
	"slices"
	"strconv"

	"github.com/pgdist/pgdist/gateway"
	"github.com/pgdist/pgdist/internal/engine"
)

// namedKey is a key of one database, or of one user.
type namedKey[T any] func(o *T, value string) error

// databaseKeys are the keys of one database.
var databaseKeys = map[string]namedKey[gateway.DatabaseOptions]{
	"dsn":                       func(o *gateway.DatabaseOptions, v string) error { o.DSN = v; return nil },
	"pool_mode":                 func(o *gateway.DatabaseOptions, v string) error { o.PoolMode = gateway.PoolMode(v); return nil },
	"max_db_connections":        func(o *gateway.DatabaseOptions, v string) error { return number(&o.MaxConnections, v) },
	"max_db_client_connections": func(o *gateway.DatabaseOptions, v string) error { return number(&o.MaxClients, v) },
}

// user is what the file may say of one.
type user struct {
	password *string
	gateway.UserOptions
}

// userKeys are the keys of one user.
var userKeys = map[string]namedKey[user]{
	"password":                    func(o *user, v string) error { o.password = &v; return nil },
	"pool_mode":                   func(o *user, v string) error { o.PoolMode = gateway.PoolMode(v); return nil },
	"max_user_connections":        func(o *user, v string) error { return number(&o.MaxConnections, v) },
	"max_user_client_connections": func(o *user, v string) error { return number(&o.MaxClients, v) },
}

func number(to *int, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return errors.New("not a whole number from 0 on")
	}
	*to = n
	return nil
}

// setNamed takes what the file says of one database or user.
func (o *gatewayOptions) setNamed(s *engine.Section, e engine.SectionEntry) error {
	if e.Key == databasesKey {
		if o.databaseOpts == nil {
			o.databaseOpts = map[string]gateway.DatabaseOptions{}
		}
		d := o.databaseOpts[e.Name]
		if err := setKey(s, e, "dsn", databaseKeys, &d); err != nil {
			return err
		}
		o.databaseOpts[e.Name] = d
		return nil
	}
	u := user{UserOptions: o.userOpts[e.Name]}
	if err := setKey(s, e, "password", userKeys, &u); err != nil {
		return err
	}
	if u.password != nil {
		o.users[e.Name] = *u.password
	}
	if u.UserOptions != (gateway.UserOptions{}) {
		if o.userOpts == nil {
			o.userOpts = map[string]gateway.UserOptions{}
		}
		o.userOpts[e.Name] = u.UserOptions
	}
	return nil
}

// setKey sets one key; single is the one that a value without a key is for.
func setKey[T any](s *engine.Section, e engine.SectionEntry, single string, keys map[string]namedKey[T], to *T) error {
	key := e.Sub
	if key == "" {
		key = single
	}
	if len(e.Values) == 0 {
		return nil
	}
	set, ok := keys[key]
	if !ok {
		return s.Unknown(e, slices.Sorted(maps.Keys(keys)))
	}
	if err := set(to, e.Values[0]); err != nil {
		return s.Errorf(e, "%s: %v", key, err)
	}
	return nil
}
