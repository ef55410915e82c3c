package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgdist/pgdist/internal/crl"
)

// defaultConnectTimeout bounds connecting where the DSN names no connect_timeout:
// a stopped server still accepts TCP and would be waited for without end.
const defaultConnectTimeout = 5 * time.Second

// Parse reads a DSN: a URL (pgdist://user:password@h1:5432,h2:5432/db?…, also
// with the scheme postgres or postgresql) or keywords and values (host=h1,h2
// port=5432 …). libpq's parameters, PG* variables, the password file and the
// service file mean what they mean to pgx; pgdist's own parameters are those of
// Params; config=FILE names a YAML file that gives further ones, which the DSN
// overrides. Whatever else is named goes to the servers as a setting.
func Parse(dsn string) (Config, error) {
	text := normalizeScheme(dsn)
	if strings.TrimSpace(dsn) == "" {
		return Config{}, fmt.Errorf("pgdist: the DSN is empty: give pgdist://user:password@host1,host2,host3/database or host=host1,host2,host3 dbname=database")
	}
	whole, err := pgx.ParseConfig(with(text, "target_session_attrs", "any"))
	if err != nil {
		return Config{}, fmt.Errorf("pgdist: %w", err)
	}
	if err := checkTarget(text); err != nil {
		return Config{}, err
	}
	own, err := takeOwn(whole.RuntimeParams)
	if err != nil {
		return Config{}, err
	}
	var file *fileConfig
	if name := own["config"]; name != "" {
		if file, err = readFile(name); err != nil {
			return Config{}, err
		}
	}
	return assemble(text, own, file)
}

// normalizeScheme turns pgdist:// into the scheme that pgx knows.
func normalizeScheme(dsn string) string {
	if rest, ok := strings.CutPrefix(dsn, "pgdist://"); ok {
		return "postgres://" + rest
	}
	return dsn
}

func isURL(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// with adds a parameter to a DSN; the last one of a name counts.
func with(text, key, value string) string {
	if !isURL(text) {
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value)
		return text + " " + key + "='" + quoted + "'"
	}
	sep := "?"
	if strings.Contains(text, "?") {
		sep = "&"
	}
	return text + sep + key + "=" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
}

// checkTarget refuses a target_session_attrs that would exclude members.
func checkTarget(text string) error {
	c, err := pgx.ParseConfig(text)
	if err == nil && c.ValidateConnect != nil {
		return fmt.Errorf("pgdist: target_session_attrs must be any: pgdist itself sends writes to the leader and reads to all")
	}
	if err != nil {
		return fmt.Errorf("pgdist: %w", err)
	}
	return nil
}

// assemble makes the Config of what was read; the DSN wins over the file.
func assemble(text string, own map[string]string, file *fileConfig) (Config, error) {
	var c Config
	if file != nil {
		for _, key := range file.order {
			text = withFileParam(text, key, file.conn)
		}
		merged := maps.Clone(file.own)
		maps.Copy(merged, own)
		own = merged
	}
	if err := applyParams(&c, own); err != nil {
		return Config{}, err
	}
	if file != nil && len(file.members) > 0 {
		err := file.addMembers(&c, text)
		return c, err
	}
	list, err := hosts(text)
	if err != nil {
		return Config{}, err
	}
	for _, h := range list {
		m, err := memberConfig(text, h.name, h.port)
		if err != nil {
			return Config{}, err
		}
		c.Members = append(c.Members, m)
	}
	if err := applyWeights(&c, own["weights"]); err != nil {
		return Config{}, err
	}
	return c, c.Validate()
}

type host struct {
	name string
	port uint16
}

// hosts lists the hosts of a DSN in order. TLS is off for that, because pgx
// lists a host once more for every alternative of TLS.
func hosts(text string) ([]host, error) {
	text = with(with(text, "sslmode", "disable"), "sslnegotiation", "postgres")
	c, err := pgx.ParseConfig(with(text, "target_session_attrs", "any"))
	if err != nil {
		return nil, fmt.Errorf("pgdist: %w", err)
	}
	list := []host{{c.Host, c.Port}}
	for _, f := range c.Fallbacks {
		list = append(list, host{f.Host, f.Port})
	}
	return list, nil
}

// memberConfig parses the DSN once more as if it named only this host, so that
// TLS names, alternatives and the password file are this host's.
func memberConfig(text, name string, port uint16) (MemberConfig, error) {
	text = with(with(text, "host", name), "port", strconv.Itoa(int(port)))
	c, err := pgx.ParseConfig(with(text, "target_session_attrs", "any"))
	if err != nil {
		return MemberConfig{}, fmt.Errorf("pgdist: %w", err)
	}
	own, err := takeOwn(c.RuntimeParams)
	if err != nil {
		return MemberConfig{}, err
	}
	if path := own["sslcrl"]; path != "" {
		if err := revocable(c, path); err != nil {
			return MemberConfig{}, fmt.Errorf("pgdist: sslcrl: %w", err)
		}
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = defaultConnectTimeout
	}
	return MemberConfig{Conn: c}, nil
}

// revocable has certificates of servers refused that the lists in a file say are revoked.
func revocable(c *pgx.ConnConfig, path string) error {
	lists, err := crl.Open(path)
	if err != nil {
		return err
	}
	configs := []*tls.Config{c.TLSConfig}
	for _, f := range c.Fallbacks {
		configs = append(configs, f.TLSConfig)
	}
	for _, t := range configs {
		if t == nil || t.InsecureSkipVerify && t.VerifyPeerCertificate == nil {
			return errors.New("servers' certificates are not looked at, or not always: say sslmode=verify-full, or verify-ca, and name their issuers in sslrootcert")
		}
		t.VerifyConnection = lists.CheckServer(t.RootCAs)
	}
	return nil
}

// applyWeights sets the members' weights from a list such as "2,1,0".
func applyWeights(c *Config, list string) error {
	if list == "" {
		return nil
	}
	parts := strings.Split(list, ",")
	if len(parts) != len(c.Members) {
		return fmt.Errorf("pgdist: weights=%s names %d weights for %d databases: give one for each, in the order of the hosts", list, len(parts), len(c.Members))
	}
	for i, p := range parts {
		w, err := strconv.Atoi(strings.TrimSpace(p))
		if err != nil || w < 0 {
			return fmt.Errorf("pgdist: weights=%s: %q is not a whole number of 0 (last resort) or more", list, p)
		}
		c.Members[i].setWeight(w)
	}
	return nil
}

func (m *MemberConfig) setWeight(w int) { m.Weight, m.LastResort = w, w == 0 }
