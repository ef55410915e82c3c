package gateway

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// column is one of a result's; numbers are int8, all else is text.
type column struct {
	name   string
	number bool
}

// columnsOf reads "name" and "name#" for numbers.
func columnsOf(names string) []column {
	var list []column
	for name := range strings.FieldsSeq(names) {
		bare, number := strings.CutSuffix(name, "#")
		list = append(list, column{bare, number})
	}
	return list
}

func formatOf(formats []byte, i int) byte {
	switch {
	case len(formats) == 1:
		return formats[0]
	case i < len(formats):
		return formats[i]
	}
	return 0
}

func appendColumns(b []byte, columns []column, formats []byte) []byte {
	b, at := begin(b, msgRowDescription)
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
	for i, c := range columns {
		b = append(append(b, c.name...), 0)
		b = append(b, 0, 0, 0, 0, 0, 0) // of no table
		oid, size := uint32(pgtype.TextOID), uint16(0xffff)
		if c.number {
			oid, size = pgtype.Int8OID, 8
		}
		b = binary.BigEndian.AppendUint32(b, oid)
		b = binary.BigEndian.AppendUint16(b, size)
		b = binary.BigEndian.AppendUint32(b, 0xffffffff)
		b = append(b, 0, formatOf(formats, i))
	}
	return end(b, at)
}

// appendRow appends a row of int64, string and nil.
func appendRow(b []byte, columns []column, row []any, formats []byte) []byte {
	b, at := begin(b, msgDataRow)
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
	for i := range columns {
		var text string
		switch v := row[i].(type) {
		case nil:
			b = binary.BigEndian.AppendUint32(b, 0xffffffff)
			continue
		case int64:
			if formatOf(formats, i) == 1 {
				b = binary.BigEndian.AppendUint32(b, 8)
				b = binary.BigEndian.AppendUint64(b, uint64(v))
				continue
			}
			text = fmt.Sprint(v)
		case string:
			text = v
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	return end(b, at)
}

// resultFormats are the formats of the columns asked for in a Bind without parameters.
func resultFormats(body []byte) ([]byte, bool) {
	_, b, _ := cstring(body)
	_, b, _ = cstring(b)
	if len(b) < 2 {
		return nil, false
	}
	skip := 2 + 2*int(binary.BigEndian.Uint16(b)) + 2
	if len(b) < skip+2 {
		return nil, false
	}
	b = b[skip:]
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) != 2*n {
		return nil, false
	}
	var formats []byte
	for i := range n {
		if b[2*i] != 0 || b[2*i+1] > 1 {
			return nil, false
		}
		formats = append(formats, b[2*i+1])
	}
	return formats, true
}
