package health_test

import (
	"context"
	"fmt"
	"time"

	"github.com/pgdist/pgdist/health"
)

func ExampleBoard() {
	board := health.NewBoard(health.BoardConfig{
		Members: []health.MemberConfig{
			{ID: 1, Host: "a:5432"},
			{ID: 2, Host: "b:5432", Config: health.Config{Failures: 1}},
		},
		Probe: func(_ context.Context, id health.MemberID) error {
			if id == 2 {
				return &health.TimeoutError{Err: context.DeadlineExceeded}
			}
			return nil
		},
	})
	if err := board.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer board.Close()

	event := <-board.Events()
	fmt.Println("member", event.Member, "went from", event.From, "to", event.To)

	board.Report(1, 2*time.Millisecond, nil)
	fmt.Println("member 1 is", board.Snapshot().State(1))
	// Output:
	// member 2 went from closed to open
	// member 1 is closed
}

func ExampleNext() {
	now := &health.View{
		Set: "example", Epoch: 4, Term: 1, Leader: 1, InSync: []health.MemberID{1, 2, 3},
		Members: []health.Member{{ID: 1, Weight: 1}, {ID: 2, Weight: 1}, {ID: 3, Weight: 1}},
	}
	// The leader does not answer; the two others promise epoch 5.
	next, err := health.Next(5, []health.Promise{
		{Member: 2, Epoch: 5, Hard: true, Accepted: now, Rank: health.PositionRank{Term: 1, Xmax: 740}},
		{Member: 3, Epoch: 5, Hard: true, Accepted: now, Rank: health.PositionRank{Term: 1, Xmax: 751}},
	}, health.Intent{})
	fmt.Println(next, err)
	// Output:
	// epoch 5 term 5 leader 3 in sync [2 3] of 3 <nil>
}
