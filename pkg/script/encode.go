package script

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// encoder writes trees as JSON. natives writes the objects that belong to a running script; it is nil outside calls.
type encoder struct {
	out     []byte
	natives func(e *encoder, v any, depth int) error
}

func (e *encoder) room(n int) error {
	if len(e.out)+n > tuple.MaxPayload {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, tuple.MaxPayload)
	}
	return nil
}

func (e *encoder) object(o *object, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("the object is nested more than %d deep, or contains itself", maxDepth)
	}
	e.out = append(e.out, '{')
	first := true
	for i := range o.fields {
		f := &o.fields[i]
		if f.kind == kindAbsent {
			continue
		}
		if !first {
			e.out = append(e.out, ',')
		}
		first = false
		if f.quoted != nil {
			e.out = append(e.out, f.quoted...)
		} else {
			e.out = appendString(e.out, f.name)
		}
		e.out = append(e.out, ':')
		if err := e.slot(&f.slot, depth); err != nil {
			return fmt.Errorf("%s: %w", f.key(), err)
		}
	}
	e.out = append(e.out, '}')
	return nil
}

func (e *encoder) array(a *array, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("the array is nested more than %d deep, or contains itself", maxDepth)
	}
	e.out = append(e.out, '[')
	for i := range a.items {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		if err := e.slot(&a.items[i], depth); err != nil {
			return err
		}
	}
	e.out = append(e.out, ']')
	return nil
}

func (e *encoder) slot(s *slot, depth int) error {
	unchanged := s.raw != nil
	switch s.kind {
	case kindObject:
		o := s.ref.(*object)
		if !unchanged || o.dirty {
			return e.object(o, depth+1)
		}
	case kindArray:
		a := s.ref.(*array)
		if !unchanged || a.dirty {
			return e.array(a, depth+1)
		}
	case kindNative:
		return e.natives(e, s.ref, depth+1)
	}
	if unchanged {
		if err := e.room(len(s.raw)); err != nil {
			return err
		}
		e.out = append(e.out, s.raw...)
		return nil
	}
	return e.scalar(s)
}

func (e *encoder) scalar(s *slot) error {
	switch s.kind {
	case kindBool:
		e.out = strconv.AppendBool(e.out, s.num != 0)
	case kindNumber:
		return e.number(s.num)
	case kindString:
		if err := e.room(len(s.str)); err != nil {
			return err
		}
		e.out = appendString(e.out, s.str)
	default:
		e.out = append(e.out, "null"...)
	}
	return e.room(0)
}

func (e *encoder) number(f float64) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("%v has no JSON form", f)
	}
	e.out = appendNumber(e.out, f)
	return e.room(0)
}

// appendNumber writes a finite number as JavaScript does: shortest digits, exponents only far from 1.
func appendNumber(b []byte, f float64) []byte {
	if i := int64(f); float64(i) == f && i > -1<<53 && i < 1<<53 {
		return strconv.AppendInt(b, i, 10)
	}
	format := byte('f')
	if abs := math.Abs(f); abs < 1e-6 || abs >= 1e21 {
		format = 'e'
	}
	b = strconv.AppendFloat(b, f, format, -1, 64)
	if n := len(b); format == 'e' && b[n-4] == 'e' && b[n-2] == '0' { // e-07 is e-7 elsewhere
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}

func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			b = append(append(b, s[start:i]...), "\ufffd"...)
			i++
			start = i
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
