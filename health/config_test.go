package health

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestConfigDefaultsAreOnAndValid(t *testing.T) {
	c := Config{}.WithDefaults()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s has no default", v.Type().Field(i).Name)
		}
	}
	// What the comment above the defaults promises.
	reprobe := c.ProbeInterval / hurry
	if gone := c.ProbeInterval + reprobe; gone > 300*time.Millisecond {
		t.Errorf("a refused connection is found after %v", gone)
	}
	if stopped := c.ProbeInterval + 2*c.ProbeTimeout + reprobe; stopped >= 2*time.Second {
		t.Errorf("a stopped process is found after %v", stopped)
	}
}

func TestConfigOver(t *testing.T) {
	base := Config{Failures: 7, ProbeInterval: time.Second, FailureRatio: 0.9}
	got := Config{Failures: 3, FailureRatio: -1}.Over(base)
	if want := (Config{Failures: 3, ProbeInterval: time.Second, FailureRatio: -1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := (Config{}).Over(base); got != base {
		t.Errorf("unset fields did not come from the base: %+v", got)
	}
	// Every field takes part.
	full := Config{}.WithDefaults()
	if got := full.Over(Config{}); got != full {
		t.Errorf("got %+v, want %+v", got, full)
	}
	if got := (Config{}).Over(full); got != full {
		t.Errorf("got %+v, want %+v", got, full)
	}
}

func TestConfigValidateJoinsEveryProblem(t *testing.T) {
	err := Config{FailureRatio: 1.5, Interval: -1, OpenTimeout: 250, ProbeInterval: 1, ProbeTimeout: 1, SyncTimeout: 1}.Validate()
	if err == nil {
		t.Fatal("nothing found")
	}
	for _, name := range []string{"failure_ratio", "interval = -1ns", "open_timeout", "probe_interval", "probe_timeout", "sync_timeout", "250ms"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not name %s", err, name)
		}
	}
	if err := (Config{FailureRatio: -1}).Validate(); err != nil {
		t.Errorf("a ratio that is off: %v", err)
	}
}

func TestConfigSet(t *testing.T) {
	var c Config
	for name, value := range map[string]string{
		"failures": "3", "failure_ratio": "0.25", "min_requests": "9", "interval": "20s", "open_timeout": "2s",
		"half_open_requests": "4", "probe_interval": "100ms", "probe_timeout": "1s", "sync_timeout": "5s",
	} {
		if err := c.Set(name, value); err != nil {
			t.Error(err)
		}
	}
	want := Config{3, 0.25, 9, 20 * time.Second, 2 * time.Second, 4, 100 * time.Millisecond, time.Second, 5 * time.Second}
	if c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func TestConfigSetErrors(t *testing.T) {
	for _, tt := range []struct{ name, value, says string }{
		{"failure", "3", `unknown parameter "failure": the parameters are failures,`},
		{"failures", "-1", "must be a whole number"},
		{"failures", "4294967296", "must be a whole number"},
		{"failure_ratio", "half", "such as 0.5"},
		{"interval", "250", "with its unit"},
	} {
		c := Config{}
		err := c.Set(tt.name, tt.value)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Set(%s, %s): %v, want %q", tt.name, tt.value, err, tt.says)
		}
		if c != (Config{}) {
			t.Errorf("Set(%s, %s) failed and changed %+v", tt.name, tt.value, c)
		}
	}
}

// The names in DSN and YAML are those of the issue; nobody may lose one.
func TestParamsMatchFieldsAndTags(t *testing.T) {
	typ := reflect.TypeFor[Config]()
	if len(Params()) != typ.NumField() {
		t.Fatalf("%d parameters for %d fields", len(Params()), typ.NumField())
	}
	for i, name := range Params() {
		if tag := typ.Field(i).Tag.Get("yaml"); tag != name {
			t.Errorf("parameter %s stands where %s is", name, tag)
		}
	}
}
