package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
)

// message is one of a server's.
func message(typ byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4))) + body
}

// column is one of a RowDescription: a name, the numbers of its table and type.
func column(name string, table, typ uint32) string {
	b := append([]byte(name), 0)
	b = binary.BigEndian.AppendUint32(b, table)
	b = append(b, 0, 1)
	b = binary.BigEndian.AppendUint32(b, typ)
	return string(append(b, 0, 4, 255, 255, 255, 255, 0, 0))
}

func digestOf(pieces ...string) [32]byte {
	d := &Digest{}
	d.Reset()
	for _, p := range pieces {
		_, _ = d.Write([]byte(p))
	}
	return d.Sum()
}

// TestDigest: what a client can tell apart counts, and nothing else, however the bytes come.
func TestDigest(t *testing.T) {
	long := message('D', strings.Repeat("x", 3*maxPiece))
	answer := message('1', "") + message('T', "\x00\x02"+column("a", 20000, 23)+column("b", 20000, 20001)) +
		message('D', "row") + long + message('D', "") + message('C', "SELECT 3\x00") + message('Z', "T")
	want := digestOf(answer)
	const seed = 5
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 200 { // in pieces
		var pieces []string
		for rest := answer; rest != ""; {
			n := min(len(rest), 1+rnd.IntN(1<<rnd.IntN(18)))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		if digestOf(pieces...) != want {
			t.Fatalf("seed %d: in %d pieces it is another digest", seed, len(pieces))
		}
	}
	for what, c := range map[string]struct {
		answer string
		same   bool
	}{
		"not prepared":         {strings.Replace(answer, message('1', ""), "", 1), true},
		"a notice":             {message('N', "SNOTICE\x00\x00") + answer, true},
		"a setting":            {message('S', "a\x00b\x00") + answer, true},
		"another table":        {strings.Replace(answer, column("a", 20000, 23), column("a", 30000, 23), 1), true},
		"another user type":    {strings.Replace(answer, column("b", 20000, 20001), column("b", 20000, 30001), 1), true},
		"another type":         {strings.Replace(answer, column("a", 20000, 23), column("a", 20000, 20), 1), false},
		"another name":         {strings.Replace(answer, column("a", 20000, 23), column("c", 20000, 23), 1), false},
		"another row":          {strings.Replace(answer, "row", "raw", 1), false},
		"rows divided":         {strings.Replace(answer, message('D', "row"), message('D', "r")+message('D', "ow"), 1), false},
		"a row less":           {strings.Replace(answer, message('D', ""), "", 1), false},
		"another tag":          {strings.Replace(answer, "SELECT 3", "SELECT 4", 1), false},
		"suspended":            {strings.Replace(answer, message('C', "SELECT 3\x00"), message('s', ""), 1), false},
		"failed in place of C": {strings.Replace(answer, message('C', "SELECT 3\x00"), message('E', "SERROR\x00C22012\x00\x00"), 1), false},
		"in two exchanges":     {strings.Replace(answer, long, long+message('Z', "T"), 1), false},
	} {
		if c.answer == answer {
			t.Fatalf("%s: is the same answer", what)
		}
		if got := digestOf(c.answer) == want; got != c.same {
			t.Errorf("%s: the same digest: %v", what, got)
		}
	}
	failed := func(line string) [32]byte {
		return digestOf(message('E', "SERROR\x00C23505\x00Mduplicate\x00L"+line+"\x00\x00"))
	}
	if failed("1") != failed("2") {
		t.Error("a line of the server's source counts")
	}
}

// TestDigestPrefix: a result that begins as one that was cut off somewhere is told from others.
func TestDigestPrefix(t *testing.T) {
	rows := []string{"one", "two", strings.Repeat("x", 2*maxPiece), "four"}
	result := func(rows ...string) string {
		s := message('2', "") + message('T', "\x00\x01"+column("a", 1, 25))
		for _, r := range rows {
			s += message('D', r)
		}
		return s
	}
	whole := result(rows...)
	end := message('C', "SELECT\x00") + message('Z', "T")
	differs := func(p Prefix, answer string) bool {
		d := &Digest{}
		d.Reset()
		d.Expect(p)
		_, _ = d.Write([]byte(message('1', "") + message('t', "\x00\x00") + message('T', "\x00\x00") + message('Z', "T"))) // it is prepared first
		_, _ = d.Write([]byte(answer))
		return d.Differs()
	}
	for cut := range len(whole) {
		if cut > 100 && cut < len(whole)-100 && cut%997 != 0 {
			continue
		}
		d := &Digest{}
		d.Reset()
		_, _ = d.Write([]byte(whole[:cut]))
		if d.Prefix() == (Prefix{}) {
			continue // within a long row, or before the first
		}
		if d.have == 0 { // a server says farewell between messages; perhaps not all of it comes
			_, _ = d.Write([]byte(message('E', "SFATAL\x00\x00")[:cut%14]))
		}
		p := d.Prefix()
		if p.Rows == 0 {
			continue
		}
		if differs(p, whole+end) {
			t.Errorf("cut at %d, after %d rows: the same result differs", cut, p.Rows)
		}
		if !differs(p, result(append([]string{"0ne"}, rows[1:]...)...)+end) {
			t.Errorf("cut at %d, after %d rows: another first row is not noticed", cut, p.Rows)
		}
		if !differs(p, result(rows[:p.Rows-1]...)+end) {
			t.Errorf("cut at %d, after %d rows: a row less is not noticed", cut, p.Rows)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	answer := []byte(message('2', "") + message('D', "\x00\x02\x00\x00\x00\x041234\x00\x00\x00\x0212") + message('C', "SELECT 1\x00") + message('Z', "T"))
	d := &Digest{}
	b.ReportAllocs()
	for b.Loop() {
		d.Reset()
		_, _ = d.Write(answer)
		d.Sum()
	}
}
