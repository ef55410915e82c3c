package driver

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/engine"
)

// fill sets every field below v to something that is not its zero value.
func fill(t *testing.T, v reflect.Value, n *int64) {
	t.Helper()
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	case reflect.String:
		v.SetString(fmt.Sprint("text", *n))
	case reflect.Int, reflect.Int64:
		v.SetInt(*n)
	case reflect.Uint32:
		v.SetUint(uint64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), n)
		fill(t, v.Index(1), n)
	case reflect.Pointer:
		switch v.Interface().(type) {
		case *pgx.ConnConfig:
			v.Set(reflect.ValueOf(&pgx.ConnConfig{}))
		case *slog.Logger:
			v.Set(reflect.ValueOf(slog.New(slog.DiscardHandler)))
		default:
			t.Fatalf("fill does not know %v", v.Type())
		}
	default:
		t.Fatalf("fill does not know %v", v.Type())
	}
}

func TestConfigLosesNothing(t *testing.T) {
	var c Config
	var n int64
	fill(t, reflect.ValueOf(&c).Elem(), &n)
	if back := fromEngine(c.engine()); !reflect.DeepEqual(c, back) {
		t.Errorf("%#v\n%#v", c.Members, back.Members)
	}
	names := map[string]bool{"Dial": true, "Wrap": true, "Notice": true} // a front door sets these, or leaves them
	for i := range reflect.TypeFor[Config]().NumField() {
		names[reflect.TypeFor[Config]().Field(i).Name] = true
	}
	for i := range reflect.TypeFor[engine.Config]().NumField() {
		if f := reflect.TypeFor[engine.Config]().Field(i); !names[f.Name] {
			t.Errorf("the engine's %s cannot be set", f.Name)
		}
	}
}

func TestNewConnectorChecks(t *testing.T) {
	_, err := NewConnector(Config{Balance: "best", Pool: Pool{Size: -1}})
	for _, want := range []string{"no database", "balance", "pool_size"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
}

func TestConnectorAfterClose(t *testing.T) {
	config, err := ParseConfig("pgdist://u@h1,h2,h3/db")
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Connect(t.Context()); !errors.Is(err, errClosed) {
		t.Error(err)
	}
}

func TestKeysOfDSNs(t *testing.T) {
	same := []string{"pgdist://u@h/db", "postgres://u@h/db", " postgresql://u@h/db\n"}
	for _, dsn := range same {
		if dsnKey(dsn) != dsnKey(same[0]) {
			t.Error(dsn)
		}
	}
	if dsnKey("pgdist://u@h/db") == dsnKey("pgdist://u@h/db2") {
		t.Error("two databases, one key")
	}
}
