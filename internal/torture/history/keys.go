package history

import "encoding/json"

// Keys lists the keys that operations of registers, counters and lists are about.
func Keys(ops []Op) map[int64]bool {
	keys := map[int64]bool{}
	add := func(text json.RawMessage) {
		var key int64
		if json.Unmarshal(text, &key) == nil {
			keys[key] = true
		}
	}
	for _, op := range ops {
		var parts []json.RawMessage
		switch {
		case op.Type != Invoke || json.Unmarshal(op.Value, &parts) != nil || len(parts) == 0:
		case op.F != "txn":
			add(parts[0])
		default:
			for _, p := range parts {
				var step []json.RawMessage
				if json.Unmarshal(p, &step) == nil && len(step) > 1 {
					add(step[1])
				}
			}
		}
	}
	return keys
}
