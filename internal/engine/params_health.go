package engine

import (
	"strings"

	"github.com/pgdist/pgdist/health"
)

// healthParam is the name, in a DSN or a file, of one of health's parameters:
// what would be unclear beside other parameters is prefixed with breaker_.
func healthParam(name string) string {
	if strings.HasPrefix(name, "probe_") || strings.HasPrefix(name, "sync_") {
		return name
	}
	return "breaker_" + name
}

func setHealthParams() []param {
	var list []param
	for _, name := range health.Params() {
		list = append(list, param{
			name: healthParam(name),
			help: "see health.Config: " + name,
			set:  func(c *Config, v string) error { return setHealth(&c.Health, name, v) },
		})
	}
	return list
}

// setHealth sets one of health's parameters; durations may also be bare seconds.
func setHealth(c *health.Config, name, value string) error {
	err := c.Set(name, value)
	if err == nil {
		return nil
	}
	if d, derr := parseDuration(value); derr == nil && c.Set(name, d.String()) == nil {
		return nil
	}
	return err
}
