package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// sharedState is what pgdist.shared_state() tells.
type sharedState struct {
	Roles      map[string]map[string]any `json:"roles"`
	Members    [][]any                   `json:"members"`
	Settings   [][]any                   `json:"settings"`
	Database   map[string]any            `json:"database"`
	Parameters map[string][]any          `json:"parameters"`
	Triggers   map[string]map[string]any `json:"triggers"`
}

// readShared reads roles and their kin. Of a follower only the leader's roles
// count (nil: all): the others are that server's own.
func readShared(ctx context.Context, c *conn, roles map[string]bool) (*sharedState, error) {
	raw, err := c.one(ctx, `SELECT pgdist.shared_state()::text`)
	if err != nil {
		return nil, err
	}
	st := &sharedState{}
	if err := decode(text(raw), st); err != nil || roles == nil {
		return st, err
	}
	for name := range st.Roles {
		if !roles[name] {
			delete(st.Roles, name)
		}
	}
	return st, nil
}

// objects turns the state into definitions by name, as other objects have them.
// plain: memberships without what only PostgreSQL 16 and later keep of them.
func (st *sharedState) objects(plain bool) map[string]map[string]any {
	out := map[string]map[string]any{"database": st.Database}
	for name, r := range st.Roles {
		delete(r, "oid")
		delete(r, "id")
		if p, ok := r["password"].(string); ok { // reports are no place for verifiers
			delete(r, "password")
			r["digest of its password"] = digestOf(p)[:8]
		}
		if o, ok := r["options"].(string); ok {
			flags, limit, _ := strings.Cut(o, " CONNECTION LIMIT ")
			list := []any{}
			for _, f := range strings.Fields(flags) {
				list = append(list, f)
			}
			r["options"], r["connection limit"] = list, limit
		}
		out["role "+name] = r
	}
	st.memberships(out, plain)
	st.settings(out)
	for name, p := range st.Parameters {
		out["parameter "+name] = map[string]any{"privileges": grants(p)}
	}
	for name, t := range st.Triggers {
		out["event trigger "+name] = t
	}
	out["database"]["privileges"] = grants(out["database"]["privileges"])
	return out
}

// settings adds those of each role, and of all, as an object.
func (st *sharedState) settings(out map[string]map[string]any) {
	for _, s := range st.Settings {
		if len(s) != 4 || s[0] != "" && st.Roles[fmt.Sprint(s[0])] == nil {
			continue
		}
		name := "settings of all roles"
		if s[0] != "" {
			name = fmt.Sprintf("settings of role %v", s[0])
		} else if s[1] == true {
			name = "settings"
		}
		if s[1] == true {
			name += " in this database"
		}
		if out[name] == nil {
			out[name] = map[string]any{"settings": []any{}}
		}
		out[name]["settings"] = append(out[name]["settings"].([]any), s[3]) //nolint:forcetypeassert // made above
	}
}

// memberships adds each as an object; those in and of roles that do not count are
// left out.
func (st *sharedState) memberships(out map[string]map[string]any, plain bool) {
	for _, m := range st.Members {
		if len(m) != 6 || st.Roles[fmt.Sprint(m[1])] == nil {
			continue
		}
		name := fmt.Sprintf("membership of role %v in %v", m[1], m[0])
		how := map[string]any{"granted by": m[2], "admin": m[3], "inherit": m[4], "set": m[5]}
		if plain {
			if m[4] == false && m[5] == false {
				continue // it lets its member grant, no more
			}
			had, ok := out[name]
			out[name] = map[string]any{"admin": m[3] == true || ok && had["admin"] == true}
			continue
		}
		if out[name] == nil {
			out[name] = map[string]any{"grants": []any{}}
		}
		out[name]["grants"] = append(out[name]["grants"].([]any), how) //nolint:forcetypeassert // made above
	}
}

// grants makes [grantee, privilege, grantable] readable.
func grants(list any) any {
	triples, _ := list.([]any)
	out := []any{}
	for _, t := range triples {
		x, ok := t.([]any)
		if !ok || len(x) != 3 {
			return list
		}
		s := fmt.Sprintf("%v to %v", x[1], x[0])
		if x[0] == "" {
			s = fmt.Sprintf("%v to PUBLIC", x[1])
		}
		if x[2] == true {
			s += " with grant option"
		}
		out = append(out, s)
	}
	return out
}

func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// diffShared lists what differs in roles and their kin.
// floor is the lower one of their major versions, if these differ.
func diffShared(ctx context.Context, lead, other *conn, floor int) ([]objectDiff, error) {
	a, err := readShared(ctx, lead, nil)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for name := range a.Roles {
		names[name] = true
	}
	b, err := readShared(ctx, other, names)
	if err != nil {
		return nil, err
	}
	plain := floor != 0 && floor < grantedOptions
	x, y := a.objects(plain), b.objects(plain)
	diffs := diffObjects(digested(x), digested(y))
	for i := range diffs {
		if d := &diffs[i]; d.here && d.there {
			d.attrs = diffAttributes(x[d.name], y[d.name])
		}
	}
	return diffs, nil
}

// grantedOptions is the first version that keeps INHERIT and SET of each membership.
const grantedOptions = 16

// digested is what diffObjects compares.
func digested(defs map[string]map[string]any) map[string]object {
	out := make(map[string]object, len(defs))
	for name, d := range defs {
		raw, err := json.Marshal(d)
		if err != nil {
			raw = fmt.Append(nil, d) // cannot happen: it came as JSON
		}
		out[name] = object{digest: string(raw)}
	}
	return out
}
