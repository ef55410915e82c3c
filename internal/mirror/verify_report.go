package mirror

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgdist/pgdist/health"
)

// Report is what Verify found.
type Report struct {
	// View is the view at the moment compared; its in-sync members were.
	View *health.View `json:"view"`
	// Left are members that left the view before all of theirs had been compared: what is
	// said of them is not all.
	Left []health.MemberID `json:"left_meanwhile,omitempty"`
	// Tables and Rows are what the leader holds, Rows only of the tables compared.
	Tables int   `json:"tables"`
	Rows   int64 `json:"rows"`
	// Read is the number of rows read from all members together, and how fast.
	Read          int64   `json:"rows_read"`
	Seconds       float64 `json:"seconds"`
	RowsPerSecond float64 `json:"rows_per_second"`
	// Earlier tells of tables found equal by a run before, not read again.
	Earlier *Earlier `json:"earlier,omitempty"`
	// Unread are tables that were rewritten each time they were to be read.
	Unread []Unread `json:"tables_not_compared"`
	// Unclear are definitions that servers of different major versions describe
	// differently, so that whether they are the same is left to people to judge.
	Unclear []Difference `json:"definitions_not_compared"`
	// Against are tables of which all followers, two or more, hold the same, and the
	// leader something else.
	Against     []string     `json:"followers_agree_against_leader,omitempty"`
	Differences []Difference `json:"differences"`
}

// Unread is a table that could not be compared.
type Unread struct {
	Table string `json:"table"`
	Why   string `json:"why"`
}

// Earlier sums up what was compared at other moments than the rest.
type Earlier struct {
	Tables int       `json:"tables"`
	Rows   int64     `json:"rows"`
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
}

// Proven is a table that was found equal.
type Proven struct {
	Table string `json:"table"`
	// Definition is a digest of the table's definition, indexes, constraints and
	// triggers included: with another one the proof is void.
	Definition string            `json:"definition"`
	Members    []health.MemberID `json:"members"`
	Rows       int64             `json:"rows"`
	At         time.Time         `json:"at"` // of the snapshot
}

// Progress is how far Verify has come, counted over all members.
type Progress struct {
	Tables, TablesDone int
	Rows, Estimated    int64
}

// Difference is one thing in which a member differs from the leader.
type Difference struct {
	Member health.MemberID `json:"member"`
	Host   string          `json:"host"`
	// Object is its kind and name, "table public.t"; What says all in one line.
	Object string `json:"object"`
	What   string `json:"what"`
	// Attributes of a definition that differ.
	Attributes []Attribute `json:"attributes,omitempty"`
	// Rows are the first rows that differ, if it is a table's contents; Differing
	// is how many do, or at least do.
	Rows      []RowDifference `json:"rows,omitempty"`
	Differing int             `json:"rows_differing,omitempty"`
	AtLeast   bool            `json:"rows_differing_at_least,omitempty"`
	// Repaired: it was put right, and compared again since.
	Repaired bool `json:"repaired,omitempty"`

	number bool     // it is where a sequence stands
	table  string   // whose contents differ; "" if that is not what differs
	sum    TableSum // of the member's contents
	peers  int      // how many followers have the table
	wound  *wound   // what it takes to put that right; nil: it cannot be
}

// RowDifference is a row, or rows of one image, that differ.
type RowDifference struct {
	// Leader and Member count the rows of this key or image: 1 and 1 is a row
	// that was changed, 1 and 0 one that is missing.
	Leader int `json:"on_leader"`
	Member int `json:"on_member"`
	// Key is "(columns) = (values)"; "" if the table has none.
	Key string `json:"key,omitempty"`
	// Columns are those that differ, if both sides have the row.
	Columns []Attribute `json:"columns,omitempty"`
	// Row is the whole row, shortened, if only one side has it.
	Row string `json:"row,omitempty"`
}

func (d RowDifference) String() string {
	head := "row"
	if d.Key != "" {
		head += " " + d.Key
	}
	switch {
	case d.Leader == 1 && d.Member == 1:
		s := head + ":"
		for i, c := range d.Columns {
			if i > 0 {
				s += ";"
			}
			s += " " + c.String()
		}
		return s
	case d.Member == 0 && d.Leader == 1:
		return head + ": only on the leader: " + d.Row
	case d.Leader == 0 && d.Member == 1:
		return head + ": only there: " + d.Row
	}
	return fmt.Sprintf("%s: %d there, %d on the leader: %s", head, d.Member, d.Leader, d.Row)
}

// leave notes who was in sync in the view compared and is not in a later one.
func (r *Report) leave(now *health.View) {
	for _, id := range r.View.InSync {
		if !now.Has(id) && !slices.Contains(r.Left, id) {
			r.Left = append(r.Left, id)
		}
	}
}

// Whole tells whether all of a member's was compared.
func (r *Report) Whole(id health.MemberID) bool {
	return r.View.Has(id) && !slices.Contains(r.Left, id)
}

// rates fills in what the comparison cost.
func (r *Report) rates(read int64, took time.Duration) {
	r.Read, r.Seconds = read, took.Seconds()
	if took > 0 {
		r.RowsPerSecond = float64(read) / took.Seconds()
	}
}
