package mirror

import (
	"fmt"

	"github.com/pgdist/pgdist/health"
)

// A member is known by what the view says of it, not by its address: a server that was
// restored from a dump, or set up anew, may answer there, with data of another day and all
// that this schema needs.

// recognise refuses what answers under the address of a member of v and is not that member.
func recognise(v *health.View, id health.MemberID, host string, h *here) error {
	want, _ := v.Member(id)
	if h.Set == v.Set && h.Member == int(id) && (h.Cluster == want.System || want.System == "") {
		return nil
	}
	return &Error{Op: "recognise the member", Member: id, Host: host,
		Err:  fmt.Errorf("%w: it is member %d of set %s on cluster %s", errStranger, h.Member, h.Set, h.Cluster),
		Hint: fmt.Sprintf("expected member %d of set %s on cluster %s; a replaced database is copied by: pgdist resync DSN --member %s", id, v.Set, want.System, host)}
}
