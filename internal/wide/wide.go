// Package wide lends text that is in an encoding other than UTF-8, or in none, to what reads
// UTF-8 alone: each byte above 127 goes as the character of that number, and is a byte again
// afterwards.
package wide

import (
	"reflect"
	"unicode/utf8"
	"unsafe"
)

// Widen returns s with a character for each byte.
func Widen(s string) string {
	out := make([]byte, 0, len(s)+len(s)/4)
	for i := range len(s) {
		out = utf8.AppendRune(out, rune(s[i]))
	}
	return string(out)
}

// Offset tells which byte of a text became the one at offset at of what [Widen] made of it.
func Offset(wide string, at int) int { return utf8.RuneCountInString(wide[:at]) }

// Narrow turns the characters of all strings, and raw JSON, that v points to, or that are in what it
// points to, into bytes again: in exported fields, elements and keys. Strings that [Widen]
// cannot have made stay as they are.
func Narrow(v any) {
	n := narrower{}
	n.narrow(reflect.ValueOf(v))
}

// narrower are the structs that were narrowed: what is pointed to twice is narrowed once.
type narrower map[place]bool

type place struct {
	at unsafe.Pointer
	of reflect.Type
}

func (n narrower) narrow(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			n.narrow(v.Elem())
		}
	case reflect.Interface:
		if !v.IsNil() && v.CanSet() {
			v.Set(n.copied(v.Elem()))
		}
	case reflect.String:
		if s := narrowed(v.String()); v.CanSet() && s != v.String() {
			v.SetString(s)
		}
	case reflect.Struct:
		if v.CanAddr() {
			p := place{v.Addr().UnsafePointer(), v.Type()}
			if n[p] {
				return
			}
			n[p] = true
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() || v.Type().Field(i).Anonymous {
				n.narrow(f)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if s := narrowed(string(v.Bytes())); v.CanSet() && s != string(v.Bytes()) {
				v.SetBytes([]byte(s))
			}
			return
		}
		for i := range v.Len() {
			n.narrow(v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			n.narrow(v.Index(i))
		}
	case reflect.Map:
		if v.IsNil() || !v.CanSet() {
			return
		}
		out := reflect.MakeMapWithSize(v.Type(), v.Len())
		for k, e := range v.Seq2() {
			out.SetMapIndex(n.copied(k), n.copied(e))
		}
		v.Set(out)
	}
}

func (n narrower) copied(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	n.narrow(out)
	return out
}

// narrowed has a byte for each character.
func narrowed(s string) string {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return s
		}
		out = append(out, byte(r))
	}
	return string(out)
}
