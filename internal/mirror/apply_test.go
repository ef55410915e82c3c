package mirror

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What goes to a follower as how many statements, and with its parameters numbered
// anew.
func TestApplyIsJoined(t *testing.T) {
	p := func(s ...string) (out [][]byte) {
		for _, x := range s {
			out = append(out, text(x))
		}
		return out
	}
	enter := enterStep(7, Place{Term: 1, Snapshot: "3:3:"}, 5)
	record := step{sql: recordSQL, params: p("j")}
	rows := func(tab int) step { return step{sql: rowsSQL(tab), params: p("k", "v", "l")} }
	images := step{sql: imagesSQL(3), params: p("k", "v", "l")}
	seqs := step{sql: sequencesSQL, params: p("n", "l")}
	leave := leaveStep(Place{Term: 1, Snapshot: "4:4:"})
	replay := step{sql: replaySQL, params: p("d")}
	for _, x := range []struct {
		name  string
		steps []step
		want  []string
		sizes []int
	}{
		{"rows of one table", []step{enter, record, rows(1), seqs, leave}, []string{
			"SELECT pgdist.enter($1::bigint, $2::bigint, $3::pg_snapshot, $4::bigint), pgdist.record($5::text[]), pgdist.a_1($6::text[], $7::text[], $8), pgdist.sequences($9::text[], $10::text[]), pgdist.leave($11::bigint, $12::pg_snapshot)"}, []int{12}},
		{"images", []step{enter, record, images, leave}, []string{
			"SELECT pgdist.enter($1::bigint, $2::bigint, $3::pg_snapshot, $4::bigint), pgdist.record($5::text[]), pgdist.a_3(pgdist.y_3($6::text[]), $7::text[], $8), pgdist.leave($9::bigint, $10::pg_snapshot)"}, []int{10}},
		{"two tables", []step{enter, record, rows(1), rows(2), seqs, leave}, []string{
			"SELECT pgdist.enter($1::bigint, $2::bigint, $3::pg_snapshot, $4::bigint), pgdist.record($5::text[])", rowsSQL(1), rowsSQL(2),
			"SELECT pgdist.sequences($1::text[], $2::text[]), pgdist.leave($3::bigint, $4::pg_snapshot)"}, []int{5, 3, 3, 4}},
		{"nothing but the end", []step{enter, leave}, []string{"SELECT pgdist.enter($1::bigint, $2::bigint, $3::pg_snapshot, $4::bigint), pgdist.leave($5::bigint, $6::pg_snapshot)"}, []int{6}},
		{"not rows", []step{enter, record, replay, leave}, []string{
			"SELECT pgdist.enter($1::bigint, $2::bigint, $3::pg_snapshot, $4::bigint), pgdist.record($5::text[])", replaySQL, leaveSQL}, []int{5, 1, 2}},
	} {
		var got []string
		var sizes []int
		var params, all [][]byte
		for _, s := range x.steps {
			all = append(all, s.params...)
		}
		for _, s := range joined(x.steps) {
			got, sizes, params = append(got, s.sql), append(sizes, len(s.params)), append(params, s.params...)
		}
		if diff := cmp.Diff(x.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", x.name, diff)
		}
		if diff := cmp.Diff(x.sizes, sizes); diff != "" {
			t.Errorf("%s: parameters (-want +got):\n%s", x.name, diff)
		}
		if diff := cmp.Diff(all, params); diff != "" {
			t.Errorf("%s: order of parameters (-want +got):\n%s", x.name, diff)
		}
	}
}
