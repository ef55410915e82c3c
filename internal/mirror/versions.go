package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgdist/pgdist/health"
)

// Members may run different major versions of PostgreSQL, so that a set can be
// upgraded one member at a time. What keeps that exact:
//
//   - Rows travel as the types' own text, which every later version reads. Should a
//     server not read what a newer leader writes, its apply fails, and it leaves the
//     set by name; where it would read something else (misread, in generate), too.
//   - A full copy goes to the same major version or a newer one: pg_dump promises no
//     more. So a set is made with the oldest version in the lead, and only a change
//     of leader lets a newer one lead older ones.
//   - Clients read from members of the leader's major version alone (Alike): what a
//     statement means, and how results are written, differs between versions.
//   - DDL that an older follower does not know costs the set that follower.
//   - Definitions are compared as far as the versions describe them alike (samples). Here
//     minor versions count, too: 15.20 mends how 15.18 writes rules and expressions.

// major is the major version of the server at the other end, 0 if it does not say.
func (c *conn) major() int {
	v, err := strconv.Atoi(serverVersion(c))
	if err != nil {
		return 0
	}
	return v
}

// release is the version of the server at the other end with its minor one: 15.20.
func (c *conn) release() string {
	release, _, _ := strings.Cut(c.ParameterStatus("server_version"), " ")
	return release
}

// floorOf is the lowest of several major versions, or 0 if all are the same, and
// nothing has to be left out of what is compared.
func floorOf(majors []int) int {
	if len(majors) == 0 || slices.Min(majors) == slices.Max(majors) {
		return 0
	}
	return slices.Min(majors)
}

// tooOld explains why a follower's apply under a view failed, if the likely reason is that its
// server is older than the leader's.
func (s *Set) tooOld(v *health.View, m *member, err error) error {
	lead := s.members.get(v.Leader)
	state := sqlState(err)
	if err == nil || lead == nil || state == "" || slices.Contains(passing, state[:min(2, len(state))]) {
		return err
	}
	mine, theirs := m.major.Load(), lead.major.Load()
	if mine == 0 || mine >= theirs {
		return err
	}
	var inner *Error
	if errors.As(err, &inner) && inner.Host == m.host {
		err = inner.Err
	}
	return &Error{Op: "apply", Member: m.id, Host: m.host, Err: err, Hint: fmt.Sprintf(
		"its PostgreSQL %d is older than the leader's %d and may not know what was done there: put a server of version %d in its place, then %s", mine, theirs, theirs, resyncHint(m.host))}
}

// passing are classes of errors that have nothing to do with what a server knows
// (PostgreSQL docs, appendix A): connections, conflicts, resources, an operator; PD is ours.
var passing = []string{"08", "40", "53", "55", "57", "58", "XX", "PD"}

// warnOlder says once per view which followers run an older version than the leader.
func (s *Set) warnOlder(v *health.View) {
	lead := s.members.get(v.Leader)
	if lead == nil {
		return
	}
	for _, id := range v.Followers() {
		if m := s.members.get(id); m != nil && m.major.Load() != 0 && m.major.Load() < lead.major.Load() {
			s.log.Warn("a follower's PostgreSQL is older than the leader's: what only the newer one knows will cost the set this member; upgrade it soon",
				"member", m.host, "version", m.major.Load(), "leader", lead.host, "leader_version", lead.major.Load())
		}
	}
}

// samples are attributes of definitions that a server deparses, in its version's way.
var samples = []string{"query", "default", "partition key", "partition bound", "index", "constraint", "trigger", "rule", "using", "with check", "statistics", "definition", "where"}

// weigh splits what differs between servers of different versions into what
// does and what is only written differently, as far as that can be told, or may be.
func weigh(diffs []objectDiff) (differ, unclear []objectDiff) {
	for _, d := range diffs {
		if !d.here || !d.there {
			differ = append(differ, d)
			continue
		}
		hard, soft := d, d
		hard.attrs, soft.attrs = nil, nil
		for _, a := range d.attrs {
			switch {
			case !slices.Contains(samples, a.Name) || d.whole[a.Name][0] == "" || d.whole[a.Name][1] == "":
				hard.attrs = append(hard.attrs, a)
			case plainForm(d.whole[a.Name][0]) != plainForm(d.whole[a.Name][1]):
				soft.attrs = append(soft.attrs, a)
			}
		}
		if len(hard.attrs) > 0 {
			differ = append(differ, hard)
		}
		if len(soft.attrs) > 0 {
			unclear = append(unclear, soft)
		}
	}
	return differ, unclear
}

// settleObjects describes what differs between two members. If they are of different
// versions it is told from what these only write differently.
func settleObjects(ctx context.Context, lead, other *conn, floor int, diffs []objectDiff) (differ, unclear []objectDiff, err error) {
	if lead.release() == other.release() {
		return diffs, nil, describeObjects(ctx, lead, other, floor, diffs)
	}
	if diffs, err = withoutNews(ctx, lead, other, diffs); err != nil {
		return nil, nil, err
	}
	for part := range slices.Chunk(diffs, maxDefinitions) {
		if err := describeObjects(ctx, lead, other, floor, part); err != nil {
			return nil, nil, err
		}
		a, b := weigh(part)
		differ, unclear = append(differ, a...), append(unclear, b...)
	}
	return differ, unclear, nil
}

// ownObject is a function or relation of PostgreSQL's own, which objectsSQL lists if its
// privileges are not as initdb leaves them.
var ownObject = regexp.MustCompile(`^(\S+(?: \S+)?) ((?:pg_catalog|information_schema)\..*)$`)

// withoutNews leaves out what only one of two servers brings along.
func withoutNews(ctx context.Context, lead, other *conn, diffs []objectDiff) ([]objectDiff, error) {
	var out []objectDiff
	for _, d := range diffs {
		m := ownObject.FindStringSubmatch(d.name)
		if d.here && d.there || m == nil {
			out = append(out, d)
			continue
		}
		c, find := lead, "to_regclass($1)"
		if d.here {
			c = other
		}
		if strings.HasSuffix(m[2], ")") {
			find = "to_regprocedure($1)"
		}
		has, err := c.one(ctx, "SELECT "+find+" IS NOT NULL", text(m[2]))
		if err != nil {
			return nil, err
		}
		if has == "t" {
			out = append(out, d)
		}
	}
	return out, nil
}

const identifier = `(?:"(?:[^"]|"")+"|[\pL\d_$]+)`

var (
	// A top-level FROM with one relation, whose columns versions before 16 write with its name.
	fromOne = regexp.MustCompile(`(?m)^   FROM (?:ONLY )?(?:` + identifier + `\.)?(` + identifier + `)(?: (` + identifier + `))?(;|$|\n  (?:[^ ]| [^ ]))`)
	spaces  = regexp.MustCompile(`\s+`)
	// An alias of what a rule writes to, which releases since November 2026 write with AS.
	targetAs = regexp.MustCompile(`((?:UPDATE|DELETE FROM|MERGE INTO) (?:ONLY )?(?:` + identifier + `\.)?` + identifier + `) AS (` + identifier + `)`)
	literal  = regexp.MustCompile(`'((?:[^']|'')*)'::(?:text|character varying|"char")`)
)

// plainForm makes of a deparsed text what two versions that mean the same are most
// likely to have in common.
func plainForm(s string) string {
	if m := fromOne.FindStringSubmatch(s); m != nil {
		s = strings.ReplaceAll(s, cmp.Or(m[2], m[1])+".", "")
	}
	return strings.TrimSpace(spaces.ReplaceAllString(literal.ReplaceAllString(targetAs.ReplaceAllString(s, "$1 $2"), "'$1'"), " "))
}
