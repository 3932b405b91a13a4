package spout

import (
	"encoding/binary"
	"math/bits"
)

// valid reports whether b is one JSON value (RFC 8259); whether its text is UTF-8 is not looked at. It takes time in proportion to b, and no stack however deep b is.
// Most of a reading is text, of which it looks at eight bytes at a time.
func valid(b []byte) bool {
	var room [32]byte
	open := room[:0] // the objects and arrays around i, by their first byte
	for i := 0; ; {
		if i = space(b, i); i == len(b) {
			return false
		}
		if len(open) > 0 && open[len(open)-1] == '{' {
			if i = name(b, i); i < 0 {
				return false
			}
		}
		if c := b[i]; (c == '{' || c == '[') && !empty(b, i) {
			open = append(open, c)
			i++
			continue
		}
		if i = value(b, i); i < 0 {
			return false
		}
		for i = space(b, i); len(open) > 0 && i < len(b) && b[i] == open[len(open)-1]+2; i = space(b, i+1) { // } and ] come two behind { and [
			open = open[:len(open)-1]
		}
		switch {
		case len(open) == 0:
			return i == len(b)
		case i == len(b) || b[i] != ',':
			return false
		}
		i++
	}
}

// space returns where the white space at i ends.
func space(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// empty reports whether the object or array at i has nothing in it.
func empty(b []byte, i int) bool {
	end := space(b, i+1)
	return end < len(b) && b[end] == b[i]+2
}

// name returns where the value of the member begins whose name is at i; -1 if there is none.
func name(b []byte, i int) int {
	if b[i] != '"' {
		return -1
	}
	if i = text(b, i+1); i < 0 {
		return -1
	}
	if i = space(b, i); i == len(b) || b[i] != ':' {
		return -1
	}
	if i = space(b, i+1); i == len(b) {
		return -1
	}
	return i
}

// value returns where the value at i ends, a plain one or one with nothing in it; -1 if there is none.
func value(b []byte, i int) int {
	switch c := b[i]; c {
	case '"':
		return text(b, i+1)
	case '{', '[':
		return space(b, i+1) + 1
	case 't':
		return word(b, i, "true")
	case 'f':
		return word(b, i, "false")
	case 'n':
		return word(b, i, "null")
	default:
		return numeral(b, i)
	}
}

func word(b []byte, i int, w string) int {
	if len(b)-i < len(w) || string(b[i:i+len(w)]) != w {
		return -1
	}
	return i + len(w)
}

// Bytes eight at a time: all of them 1, and the highest bit of each.
const (
	ones = 0x0101010101010101
	tops = 0x8080808080808080
)

// text returns where the text ends whose first quote is before i; -1 if it does not, or has what must be escaped.
func text(b []byte, i int) int {
	for ; len(b)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quote, slash := x^('"'*ones), x^('\\'*ones)
		// Of each byte the top bit, where it is below 0x20, or 0 in quote or slash: the first of them is right (Hacker's Delight, 6-1).
		if m := (((x - 0x20*ones) &^ x) | ((quote - ones) &^ quote) | ((slash - ones) &^ slash)) & tops; m != 0 {
			i += bits.TrailingZeros64(m) / 8
			if b[i] != '\\' {
				return end(b, i)
			}
			if i = escape(b, i); i < 0 {
				return -1
			}
			i -= 8
		}
	}
	for i < len(b) {
		switch c := b[i]; {
		case c == '"' || c < 0x20:
			return end(b, i)
		case c != '\\':
			i++
		default:
			if i = escape(b, i); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// end returns what is behind the quote at i; -1 if it is none.
func end(b []byte, i int) int {
	if b[i] != '"' {
		return -1
	}
	return i + 1
}

// escape returns where the escaped character ends whose backslash is at i; -1 if it is none.
func escape(b []byte, i int) int {
	if i+1 == len(b) {
		return -1
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
	default:
		return -1
	}
	if len(b)-i < 6 {
		return -1
	}
	for _, c := range b[i+2 : i+6] {
		if !digit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return -1
		}
	}
	return i + 6
}

// numeral returns where the number at i ends; -1 if there is none.
func numeral(b []byte, i int) int {
	if b[i] == '-' {
		i++
	}
	switch {
	case i == len(b):
		return -1
	case b[i] == '0':
		i++
	default:
		if i = digits(b, i); i < 0 {
			return -1
		}
	}
	if i < len(b) && b[i] == '.' {
		if i = digits(b, i+1); i < 0 {
			return -1
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		i = digits(b, i)
	}
	return i
}

// digits returns where the digits at i end; -1 if there are none.
func digits(b []byte, i int) int {
	first := i
	for i < len(b) && digit(b[i]) {
		i++
	}
	if i == first {
		return -1
	}
	return i
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
