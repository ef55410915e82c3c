// Package history records what clients asked of a database and what they heard,
// in the form that Jepsen's tools read, and judges such histories.
//
// Every operation has a beginning (invoke) and, unless its client never heard, an
// end: ok, it happened; fail, it did not and never will; info, nobody knows. The
// checkers are pure functions of the operations:
//
//   - [CheckRegisters] registers with compare-and-set are linearizable, key by key
//   - [CheckAppend] transactions over lists: anomalies by Adya's names
//   - [CheckSet] what was added is there, nothing else is
//   - [CheckBank] no transfer makes or loses money, at any moment
//   - [CheckLongFork] all reads lie on one chain of states
//   - [CheckCounters] nobody reads less than he, or anybody, knew before
//
// A checker's error is of the history itself: it is none that the workload could
// have recorded.
package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"
)

// Type is what a line of a history says of its operation.
type Type string

const (
	Invoke Type = "invoke" // it is about to be sent
	OK     Type = "ok"     // it happened
	Fail   Type = "fail"   // it did not happen, and will not
	Info   Type = "info"   // it may have happened, or may happen yet
)

// Op is one line of a history. The JSON names are Jepsen's.
type Op struct {
	Index   int             `json:"index"` // place in the history, from 0
	Type    Type            `json:"type"`
	Process int             `json:"process"` // does one thing at a time, and nothing after an info
	F       string          `json:"f"`       // what was asked for
	Value   json.RawMessage `json:"value"`
	Time    int64           `json:"time"` // nanoseconds since the history began
	Error   string          `json:"error,omitempty"`
}

// Recorder takes down a history. Its methods may be called by any number of
// goroutines; the zero value is not ready, see [NewRecorder].
type Recorder struct {
	began time.Time

	mu        sync.Mutex // guards what follows
	ops       []Op
	processes int
}

// NewRecorder begins a history.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Process returns the number of a new process. A client takes one at its beginning
// and another after each operation whose end it does not know.
func (r *Recorder) Process() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.processes++
	return r.processes - 1
}

// Invoke notes that process is about to ask for f. value must be something that
// package json can write.
func (r *Recorder) Invoke(process int, f string, value any) {
	r.add(Op{Type: Invoke, Process: process, F: f}, value)
}

// End notes what the process heard: typ is OK, Fail or Info, value what came of it,
// err what went wrong, if anything.
func (r *Recorder) End(process int, typ Type, f string, value any, err error) {
	op := Op{Type: typ, Process: process, F: f}
	if err != nil {
		op.Error = err.Error()
	}
	r.add(op, value)
}

func (r *Recorder) add(op Op, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // values are the workloads' own, plain numbers and lists
	}
	op.Value = text
	r.mu.Lock()
	defer r.mu.Unlock()
	op.Index, op.Time = len(r.ops), int64(time.Since(r.began))
	r.ops = append(r.ops, op)
}

// Ops returns a copy of what was recorded so far.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Op(nil), r.ops...)
}

// Write writes a history, an operation a line.
func Write(w io.Writer, ops []Op) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for _, op := range ops {
		if err := enc.Encode(op); err != nil {
			return fmt.Errorf("write the history: %w", err)
		}
	}
	return out.Flush()
}

// Read reads what Write, or another tool, wrote.
func Read(r io.Reader) ([]Op, error) {
	var ops []Op
	for dec := json.NewDecoder(r); ; {
		var op Op
		switch err := dec.Decode(&op); {
		case errors.Is(err, io.EOF):
			return ops, nil
		case err != nil:
			return nil, fmt.Errorf("read the history, operation %d: %w", len(ops), err)
		}
		ops = append(ops, op)
	}
}

// never is the end of an operation whose client never heard of it.
const never = math.MaxInt

// call is an operation from its beginning to its end.
type call struct {
	process  int
	f        string
	typ      Type // OK, Fail or Info
	from, to int  // indexes of its lines; to is never for Info
	asked    json.RawMessage
	got      json.RawMessage // of OK
}

// calls pairs beginnings with ends. What never ended is Info.
func calls(ops []Op) ([]call, error) {
	var out []call
	open := map[int]int{} // process → its call under way
	over := map[int]bool{}
	for i, op := range ops {
		at, busy := open[op.Process]
		switch {
		case op.Index != i:
			return nil, fmt.Errorf("operation %d has index %d: the history is not whole", i, op.Index)
		case op.Type == Invoke && over[op.Process]:
			return nil, fmt.Errorf("operation %d: process %d goes on after an operation whose end it does not know", i, op.Process)
		case op.Type == Invoke && busy:
			return nil, fmt.Errorf("operation %d: process %d does two things at a time", i, op.Process)
		case op.Type == Invoke:
			open[op.Process] = len(out)
			out = append(out, call{process: op.Process, f: op.F, typ: Info, from: i, to: never, asked: op.Value})
			continue
		case op.Type != OK && op.Type != Fail && op.Type != Info:
			return nil, fmt.Errorf("operation %d is of type %q: it must be invoke, ok, fail or info", i, op.Type)
		case !busy || out[at].f != op.F:
			return nil, fmt.Errorf("operation %d ends what process %d has not begun", i, op.Process)
		}
		delete(open, op.Process)
		out[at].typ = op.Type
		switch op.Type {
		case OK:
			out[at].to, out[at].got = i, op.Value
		case Fail:
			out[at].to = i
		case Info:
			over[op.Process] = true
		}
	}
	return out, nil
}

// decode reads one operation's value.
func (c call) decode(text json.RawMessage, into any) error {
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("operation %d (%s): value %s: %w", c.from, c.f, text, err)
	}
	return nil
}

// list decodes a value that is a list of as many parts as there are pointers.
func (c call) list(text json.RawMessage, into ...any) error {
	var parts []json.RawMessage
	if err := c.decode(text, &parts); err != nil {
		return err
	}
	if len(parts) != len(into) {
		return fmt.Errorf("operation %d (%s): value %s has %d parts, not %d", c.from, c.f, text, len(parts), len(into))
	}
	for i, p := range parts {
		if err := c.decode(p, into[i]); err != nil {
			return err
		}
	}
	return nil
}

// said is what the call's last line says: of one that happened the answer, else what
// was asked for.
func (c call) said() json.RawMessage {
	if c.typ == OK {
		return c.got
	}
	return c.asked
}

// Violation is something that a history shows and that must not be.
type Violation struct {
	Name string // of the anomaly: "G1a", "lost element", …
	Ops  []int  // indexes of the operations' first lines
	Text string // what is wrong, with values
}

// Error is the violation in one line.
func (v Violation) Error() string {
	return fmt.Sprintf("%s (operations %d): %s", v.Name, v.Ops, v.Text)
}

// most is how many violations of one name are reported: a store that is broken
// breaks everything.
const most = 10

// findings collects violations.
type findings struct {
	list   []Violation
	counts map[string]int
}

func (f *findings) add(name string, ops []int, format string, args ...any) {
	if f.counts == nil {
		f.counts = map[string]int{}
	}
	if f.counts[name]++; f.counts[name] <= most {
		f.list = append(f.list, Violation{name, ops, fmt.Sprintf(format, args...)})
	}
}
