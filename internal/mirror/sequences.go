package mirror

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/pgdist/pgdist/health"
)

// sequenceState is what followers are known to hold of the leader's sequences:
// the text of each value by the text of each name, both as array elements. It is
// never changed in place, so that several members may point to one.
type sequenceState struct {
	k, v string // the arrays of the batch that led here
	vals map[string]string
}

// newSequences takes sequences out of a batch that the members it is for, which
// have had known (nil: not known), hold already, and returns what they hold after
// it. A set at rest is sent nothing.
func (b *batch) newSequences(known *sequenceState) *sequenceState {
	if !b.keeps() {
		known = nil
	}
	i := slices.IndexFunc(b.ops, func(o op) bool { return o.kind == 's' })
	if i < 0 {
		return known
	}
	o := &b.ops[i]
	if known != nil && string(o.k) == known.k && string(o.v) == known.v {
		b.ops = slices.Delete(b.ops, i, i+1)
		return known
	}
	names, vals := elements(o.k), elements(o.v)
	if len(names) != len(vals) {
		return nil // ships all; cannot happen
	}
	next := &sequenceState{k: string(o.k), v: string(o.v)}
	if known == nil {
		next.vals = make(map[string]string, len(names))
	} else {
		next.vals = maps.Clone(known.vals)
	}
	var k, v []byte
	for j, name := range names {
		if old, ok := next.vals[string(name)]; ok && old == string(vals[j]) {
			continue
		}
		next.vals[string(name)] = string(vals[j])
		k, v = appendRaw(k, name), appendRaw(v, vals[j])
	}
	if k == nil {
		b.ops = slices.Delete(b.ops, i, i+1)
	} else {
		o.k, o.v = finish(k), finish(v)
	}
	return next
}

// sequencesOf is what all members of a group are known to hold, nil if they differ.
func sequencesOf(group []*member) *sequenceState {
	if len(group) == 0 {
		return nil
	}
	for _, m := range group[1:] {
		if m.sequences != group[0].sequences {
			return nil
		}
	}
	return group[0].sequences
}

// keeps tells whether members still hold, once they have replayed the batch's DDL, what they
// are known to hold of sequences: it makes new ones at most, and sets none, drops none, and
// draws from none.
func (b *batch) keeps() bool {
	if !b.head.DDL {
		return true
	}
	for _, o := range b.ops {
		if o.kind != 'd' {
			continue
		}
		var d struct{ Tag string }
		if json.Unmarshal(o.a, &d) != nil || !keepers[d.Tag] {
			return false
		}
	}
	return true
}

var keepers = map[string]bool{
	"CREATE TABLE": true, "CREATE VIEW": true, "CREATE FUNCTION": true, "CREATE TRIGGER": true, "CREATE TYPE": true, "CREATE POLICY": true,
	"COMMENT": true, "GRANT": true, "REVOKE": true,
}

// newShared takes shared objects out of a batch for members that are known to
// hold them as they are.
func (b *batch) newShared(group []*member) {
	if !slices.ContainsFunc(group, func(m *member) bool { return m.shared != string(b.shared) }) {
		b.shared = nil
	}
}

// hasShared notes that all followers have the shared objects a batch told of.
func (s *Set) hasShared(b *batch, group []*member) {
	if b.marker != nil && len(group) == len(s.followers()) {
		s.marker = strings.Trim(string(b.marker), `{}"`) // one element without quotes or backslashes
	}
}

// forgetHeld makes the next flush ship all sequences and shared objects.
func (s *Set) forgetHeld(ids []health.MemberID) {
	s.marker = ""
	for _, id := range ids {
		s.members.get(id).sequences, s.members.get(id).shared = nil, ""
	}
}
