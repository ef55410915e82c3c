package pgtest

import "encoding/binary"

// message is the beginning of one of the protocol's messages.
type message struct {
	kind byte   // 0: a start-up packet
	body []byte // sixteen bytes of it at most
}

// framer finds messages in one direction of a connection.
type framer struct {
	started bool   // the start-up packet, which has no type, is over
	head    []byte // of the message under way: type, length, and what of the body is shown
	told    bool   // feed has returned it
	left    int    // bytes of it to come, once head has the length
}

const peeked = 16 // bytes of a body

// feed takes what comes next and returns the messages whose beginning is complete now.
func (f *framer) feed(data []byte) (out []message) {
	for len(data) > 0 {
		prefix := 5
		if !f.started {
			prefix = 4
		}
		if len(f.head) < prefix {
			n := min(prefix-len(f.head), len(data))
			f.head, data = append(f.head, data[:n]...), data[n:]
			if len(f.head) < prefix {
				return out
			}
			f.left = max(0, int(binary.BigEndian.Uint32(f.head[prefix-4:]))-4)
		}
		n := min(f.left, len(data))
		if want := prefix + peeked - len(f.head); want > 0 {
			f.head = append(f.head, data[:min(want, n)]...)
		}
		f.left, data = f.left-n, data[n:]
		if !f.told && (f.left == 0 || len(f.head) == prefix+peeked) {
			m := message{body: append([]byte(nil), f.head[prefix:]...)}
			if f.started {
				m.kind = f.head[0]
			}
			out, f.told = append(out, m), true
		}
		if f.left == 0 {
			f.started, f.told, f.head = true, false, f.head[:0]
		}
	}
	return out
}
