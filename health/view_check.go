package health

import (
	"errors"
	"fmt"
	"slices"
)

// Equal tells whether both views say the same.
func (v *View) Equal(o *View) bool {
	return v.Set == o.Set && v.Epoch == o.Epoch && v.Term == o.Term && v.Leader == o.Leader &&
		slices.Equal(v.InSync, o.InSync) && slices.Equal(v.Members, o.Members) && slices.Equal(v.Former, o.Former) &&
		v.LastID == o.LastID && slices.Equal(v.Removed, o.Removed) && v.Forced.equal(o.Forced)
}

func (f *Forced) equal(o *Forced) bool {
	if f == nil || o == nil {
		return f == o
	}
	return f.Epoch == o.Epoch && f.At.Equal(o.At) && f.Who == o.Who && f.Why == o.Why && slices.Equal(f.Lost, o.Lost)
}

// Validate joins everything that no view made by these rules can show; one
// that was read from a database and fails here was damaged or made by hand.
// It wraps ErrConflict.
func (v *View) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: epoch %d: "+format, append([]any{ErrConflict, v.Epoch}, args...)...))
	}
	if v.Term > v.Epoch || v.Term < 0 {
		bad("term %d does not lie before the epoch", v.Term)
	}
	for _, list := range [][]Member{v.Members, v.Former} {
		votes := 0
		for i, m := range list {
			if m.ID < 1 || (i > 0 && list[i-1].ID >= m.ID) {
				bad("member %d is out of order", m.ID)
			}
			if m.Weight < 0 {
				bad("member %d has %d votes", m.ID, m.Weight)
			}
			votes += m.Weight
		}
		if votes <= 0 && (list != nil || len(v.Members) == 0) {
			bad("nobody has a vote")
		}
	}
	if len(v.InSync) == 0 {
		bad("nobody is in sync")
	}
	for i, id := range v.InSync {
		if m, known := v.Member(id); !known || m.Witness || (i > 0 && v.InSync[i-1] >= id) {
			bad("in-sync member %d is unknown, a witness or out of order", id)
		}
	}
	if v.Leader != 0 && !v.Has(v.Leader) {
		bad("leader %d is not in sync", v.Leader)
	}
	return errors.Join(errs...)
}
