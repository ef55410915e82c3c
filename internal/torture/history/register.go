package history

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// Registers: f is "read" with value [key, number or null], "write" with [key,
// number], or "cas" with [key, [old, new]]. A cas that found another value is a fail.
// What was never written reads as null.

// registerOp is an operation on one register.
type registerOp struct {
	f        string
	key      int64
	val, old *int64
}

// CheckRegisters tells whether each key by itself is linearizable: whether there is
// one order of all operations, each between its beginning and its end, that explains
// every answer. What has no known end may happen at any later time, or never. It
// gives up on a key, with an error, after limit.
func CheckRegisters(ops []Op, limit time.Duration) ([]Violation, error) {
	all, err := calls(ops)
	if err != nil {
		return nil, err
	}
	byKey := map[int64][]porcupine.Operation{}
	first := map[int64][]int{}
	decoded := make([]registerOp, len(all))
	for i, c := range all {
		if decoded[i], err = c.register(); err != nil {
			return nil, err
		}
	}
	shown := observed(all, decoded)
	for i, c := range all {
		op := decoded[i]
		if c.typ == Fail || c.typ == Info && (op.f == "read" || !shown[element{op.key, *op.val}]) {
			continue // it says nothing
		}
		end := int64(math.MaxInt64)
		if c.typ == OK {
			end = int64(c.to)
		}
		byKey[op.key] = append(byKey[op.key], porcupine.Operation{ClientId: c.process, Input: op, Output: c.typ, Call: int64(c.from), Return: end})
		first[op.key] = append(first[op.key], c.from)
	}
	var found findings
	for _, key := range sortedKeys(byKey) {
		switch porcupine.CheckOperationsTimeout(registerModel, byKey[key], limit) {
		case porcupine.Illegal:
			found.add("not linearizable", first[key], "no order of the %d operations on register %d explains what they returned", len(byKey[key]), key)
		case porcupine.Unknown:
			return found.list, fmt.Errorf("register %d: whether its %d operations are linearizable was not decided within %v", key, len(byKey[key]), limit)
		}
	}
	return found.list, nil
}

// observed finds the values that anything depends on. What is of unknown end and wrote
// none of them may as well have come last, and is left out: each of those that stay
// doubles the work.
func observed(all []call, decoded []registerOp) map[element]bool {
	shown := map[element]bool{}
	for again := true; again; {
		again = false
		for i, c := range all {
			op := decoded[i]
			see := op.old
			switch {
			case c.typ == OK && op.f == "read":
				see = op.val
			case c.typ == Fail || op.f != "cas" || c.typ == Info && !shown[element{op.key, *op.val}]:
				continue
			}
			if see != nil && !shown[element{op.key, *see}] {
				shown[element{op.key, *see}], again = true, true
			}
		}
	}
	return shown
}

// register decodes a call's value: the answer, if it is a read's.
func (c call) register() (registerOp, error) {
	op := registerOp{f: c.f}
	var err error
	switch c.f {
	case "read":
		return op, c.list(c.said(), &op.key, &op.val)
	case "write":
		err = c.list(c.said(), &op.key, &op.val)
		if err == nil && op.val == nil {
			err = fmt.Errorf("operation %d writes nothing", c.from)
		}
	case "cas":
		var both json.RawMessage
		if err = c.list(c.said(), &op.key, &both); err == nil {
			err = c.list(both, &op.old, &op.val)
		}
		if err == nil && (op.val == nil || op.old == nil) {
			err = fmt.Errorf("operation %d compares or sets nothing", c.from)
		}
	default:
		err = fmt.Errorf("operation %d: %q is nothing that a register does", c.from, c.f)
	}
	return op, err
}

// registerModel is a register that holds nothing at first. Its state is *int64.
var registerModel = porcupine.Model{
	Init: func() any { return (*int64)(nil) },
	Step: func(state, input, output any) (bool, any) {
		held, op := state.(*int64), input.(registerOp)
		switch op.f {
		case "read":
			return same(held, op.val), held
		case "cas":
			if !same(held, op.old) { // then it does nothing, and would say so
				return output.(Type) == Info, held
			}
		}
		return true, op.val
	},
	Equal: func(a, b any) bool { return same(a.(*int64), b.(*int64)) },
}

func same(a, b *int64) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }
