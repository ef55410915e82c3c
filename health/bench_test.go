package health

import (
	"testing"
	"time"
)

func benchBoard() *Board {
	return NewBoard(BoardConfig{Members: []MemberConfig{{ID: 1}, {ID: 2}, {ID: 3}}})
}

func BenchmarkReportSuccess(b *testing.B) {
	board := benchBoard()
	for b.Loop() {
		board.Report(2, time.Millisecond, nil)
	}
}

func BenchmarkReportSuccessParallel(b *testing.B) {
	board := benchBoard()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			board.Report(2, time.Millisecond, nil)
		}
	})
}

func BenchmarkReportSQLError(b *testing.B) {
	board, err := benchBoard(), server("ERROR", "23505")
	for b.Loop() {
		board.Report(2, time.Millisecond, err)
	}
}

func BenchmarkReportFailure(b *testing.B) {
	board := NewBoard(BoardConfig{Members: []MemberConfig{{ID: 1, Config: Config{FailureRatio: -1}}}})
	for b.Loop() {
		board.Report(1, 0, errGone)
	}
}

func BenchmarkSnapshotState(b *testing.B) {
	board := benchBoard()
	for b.Loop() {
		board.Snapshot().State(2)
	}
}

func BenchmarkNext(b *testing.B) {
	v := world(3)
	promises := []Promise{soft(v, 1), hard(v, 2), hard(v, 3)}
	for b.Loop() {
		if _, err := Next(9, promises, Intent{}); err != nil {
			b.Fatal(err)
		}
	}
}
