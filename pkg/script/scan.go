package script

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds nesting, so that hostile input cannot exhaust the stack; encoding/json allows 10,000.
const maxDepth = 512

// scanner validates JSON in one pass and tells where values end; it allocates nothing.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// value skips one value at s.i (no space before it) and returns its bytes.
func (s *scanner) value(depth int) ([]byte, bool) {
	start := s.i
	if s.i >= len(s.b) {
		return nil, false
	}
	ok := false
	switch c := s.b[s.i]; {
	case c == '"':
		_, ok = s.str()
	case c == '{':
		ok = s.members(depth, nil)
	case c == '[':
		ok = s.items(depth, nil)
	case c == 't':
		ok = s.word("true")
	case c == 'f':
		ok = s.word("false")
	case c == 'n':
		ok = s.word("null")
	case c == '-' || c >= '0' && c <= '9':
		ok = s.number()
	}
	return s.b[start:s.i], ok
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

// str skips a string at s.i and reports whether it is plain: ASCII without escapes.
func (s *scanner) str() (plain, ok bool) {
	b := s.b
	plain = true
	for i := s.i + 1; i < len(b); i++ {
		c := b[i]
		if c == '"' {
			s.i = i + 1
			return plain, true
		}
		if c >= 0x20 && c != '\\' && c < utf8.RuneSelf {
			continue
		}
		plain = false
		if c >= utf8.RuneSelf {
			continue
		}
		if c != '\\' {
			return false, false
		}
		i++
		if i >= len(b) {
			return false, false
		}
		switch b[i] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			if i+4 >= len(b) || !isHex(b[i+1]) || !isHex(b[i+2]) || !isHex(b[i+3]) || !isHex(b[i+4]) {
				return false, false
			}
			i += 4
		default:
			return false, false
		}
	}
	return false, false
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) number() bool {
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if !s.digits() {
		return false
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		return s.digits()
	}
	return true
}

// members skips an object at s.i; each, when given, receives the quoted key, whether it is plain, and the value.
func (s *scanner) members(depth int, each func(key []byte, plain bool, value []byte)) bool {
	if depth >= maxDepth {
		return false
	}
	s.i++
	s.space()
	if s.peek() == '}' {
		s.i++
		return true
	}
	for {
		start := s.i
		if s.peek() != '"' {
			return false
		}
		plain, ok := s.str()
		if !ok {
			return false
		}
		key := s.b[start:s.i]
		s.space()
		if s.peek() != ':' {
			return false
		}
		s.i++
		s.space()
		value, ok := s.value(depth + 1)
		if !ok {
			return false
		}
		if each != nil {
			each(key, plain, value)
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
			s.space()
		case '}':
			s.i++
			return true
		default:
			return false
		}
	}
}

// items skips an array at s.i; each, when given, receives every element.
func (s *scanner) items(depth int, each func(value []byte)) bool {
	if depth >= maxDepth {
		return false
	}
	s.i++
	s.space()
	if s.peek() == ']' {
		s.i++
		return true
	}
	for {
		value, ok := s.value(depth + 1)
		if !ok {
			return false
		}
		if each != nil {
			each(value)
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
			s.space()
		case ']':
			s.i++
			return true
		default:
			return false
		}
	}
}

// unquote decodes a valid JSON string with its quotes; bytes that are not UTF-8 and lone surrogates become U+FFFD.
func unquote(q []byte) string {
	q = q[1 : len(q)-1]
	plain := true
	for _, c := range q {
		if c == '\\' || c >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		return string(q)
	}
	out := make([]byte, 0, len(q))
	for i := 0; i < len(q); {
		c := q[i]
		switch {
		case c == '\\' && q[i+1] == 'u':
			r := hex4(q[i+2:])
			i += 6
			if utf16.IsSurrogate(r) {
				if i+6 <= len(q) && q[i] == '\\' && q[i+1] == 'u' {
					if pair := utf16.DecodeRune(r, hex4(q[i+2:])); pair != utf8.RuneError {
						r = pair
						i += 6
					}
				}
			}
			out = utf8.AppendRune(out, r)
		case c == '\\':
			out = append(out, unescape(q[i+1]))
			i += 2
		case c < utf8.RuneSelf:
			out = append(out, c)
			i++
		default:
			r, n := utf8.DecodeRune(q[i:])
			out = utf8.AppendRune(out, r)
			i += n
		}
	}
	return string(out)
}

func unescape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

func hex4(b []byte) rune {
	n, err := strconv.ParseUint(string(b[:4]), 16, 32)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}
