package mirror

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// Users' publications forbid UPDATE and DELETE of tables whose rows they could not name to a
// subscriber. They are not there to forbid what an apply does with such tables: an upsert of
// rows that the leader only inserted, the emptying of a table that is copied whole, deletes
// from before the publication was made. A member that refuses a batch for that gets it once
// more, in a mode in which the publications publish no updates and deletes while rows are put
// in place (pgdist.withhold). Not always: a consumer at that member does not hear of what
// this batch updates and deletes.

// unidentified tells that a server refused an UPDATE or DELETE for a publication. Of the
// SQLSTATEs (55000, 42P10) many others are, and texts are in the server's language.
func unidentified(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Routine == "CheckCmdReplicaIdentity"
}

// withholds tells whether publications are withheld while rows are put in place.
func (x *extras) withholds() bool { return x != nil && x.withhold }

// withholding is x in that mode.
func (x *extras) withholding() *extras {
	out := extras{}
	if x != nil {
		out = *x
	}
	out.withhold = true
	return &out
}

// withheld is these ops with the publications withheld. DDL is never among them: it finds the
// publications as their owner left them, and its changes of them stay.
func (x *extras) withheld(ops []op) []op {
	if !x.withholds() || len(ops) == 0 {
		return ops
	}
	out := append(make([]op, 0, len(ops)+2), op{kind: 'o'})
	return append(append(out, ops...), op{kind: 'u'})
}
