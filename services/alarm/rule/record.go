package rule

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/state"
)

// record is what the state keeps for one group.
type record struct {
	Episode
	watch
	previous []byte // the payload of the last reading, where a script looks at it; replaced, never changed
}

// Versions of the encoding. The first knew nothing of silence, the second nothing of levels, histories and commands; the last reading
// stands at the end of those that have it.
const (
	versionPrevious = 4
	version         = 3
	versionSilent   = 2
	versionPlain    = 1
)

var (
	errCorrupt = errors.New("the stored state cannot be read")
	errShort   = errors.New("it ends early")
)

// flags are what the record's flags stand for, from the lowest bit; hasRaise and hasClear say that there are such values.
func (r *record) flags(hasRaise, hasClear *bool) []*bool {
	return []*bool{&r.Open, &r.Notify, &r.Known, hasRaise, hasClear, &r.Silent, &r.armed, &r.waiting, &r.Escalated, &r.Flapping}
}

// flagsOf is how many of the flags a version has.
func flagsOf(v byte) int {
	switch v {
	case versionPlain:
		return 5
	case versionSilent:
		return 7
	}
	return 10
}

func (r *record) numbers() []*int64 {
	return []*int64{
		&r.Number, &r.Version, &r.RaisedAt, &r.Cleared, &r.Readings, &r.Notified, &r.Noticed, &r.heard, &r.begun, &r.Acknowledged, &r.Omitted,
	}
}

// Append implements state.Value.
func (r *record) Append(b []byte) ([]byte, error) {
	hasRaise, hasClear := r.RaiseValue != nil, r.ClearValue != nil
	set := uint64(0)
	for i, f := range r.flags(&hasRaise, &hasClear) {
		if *f {
			set |= 1 << i
		}
	}
	v := byte(version)
	if len(r.previous) > 0 {
		v = versionPrevious
	}
	b = binary.AppendUvarint(append(b, v), set)
	for _, n := range r.numbers() {
		b = binary.AppendVarint(b, *n)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Tracks)))
	for _, t := range r.Tracks {
		held := uint64(0)
		if t.Held {
			held = 1
		}
		b = binary.AppendUvarint(b, uint64(t.Streak)<<1|held)
		b = binary.AppendVarint(b, t.Since)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Recent)))
	for _, at := range r.Recent {
		b = binary.AppendVarint(b, at)
	}
	b = appendText(appendText(b, r.Severity), r.AcknowledgedBy)
	b = binary.AppendUvarint(b, uint64(len(r.History)))
	for _, h := range r.History {
		b = binary.AppendUvarint(b, uint64(h.What))
		b = binary.AppendVarint(b, h.At)
		for _, s := range [...]string{h.Severity, h.By, h.Note} {
			b = appendText(b, s)
		}
	}
	for i, v := range [...][]byte{r.RaiseValue, r.ClearValue} {
		if [...]bool{hasRaise, hasClear}[i] {
			b = appendText(b, v)
		}
	}
	if v == versionPrevious {
		b = appendText(b, r.previous)
	}
	return b, nil
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode reads what Append wrote, now or in an older version; nil is a group that has never had an alarm.
func decode(b []byte) (state.Value, error) {
	r := &record{}
	if b == nil {
		return r, nil
	}
	if err := r.decode(b); err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return r, nil
}

func (r *record) decode(b []byte) error {
	if len(b) < 2 {
		return errShort
	}
	v := b[0]
	if v < versionPlain || v > versionPrevious {
		return fmt.Errorf("its version is %d, not %d", v, version)
	}
	in := &input{rest: b[1:]}
	set := in.count()
	if set >= 1<<flagsOf(v) {
		return fmt.Errorf("its flags are %#x", set)
	}
	var hasRaise, hasClear bool
	for i, f := range r.flags(&hasRaise, &hasClear) {
		*f = set&(1<<i) != 0
	}
	if v >= version {
		r.body(in)
	} else {
		r.older(v, in)
	}
	if hasRaise {
		r.RaiseValue = in.bytes()
	}
	if hasClear {
		r.ClearValue = in.bytes()
	}
	if v == versionPrevious {
		r.previous = in.bytes()
	}
	if in.err == nil && len(in.rest) > 0 {
		return fmt.Errorf("%d bytes follow it", len(in.rest))
	}
	return in.err
}

// body reads what lies between the flags and the values.
func (r *record) body(in *input) {
	for _, n := range r.numbers() {
		*n = in.number()
	}
	for range in.length() {
		n := in.count()
		r.Tracks = append(r.Tracks, Track{Held: n&1 == 1, Streak: int(n >> 1), Since: in.number()})
	}
	for range in.length() {
		r.Recent = append(r.Recent, in.number())
	}
	r.Severity, r.AcknowledgedBy = string(in.bytes()), string(in.bytes())
	for range in.length() {
		r.History = append(r.History, Happening{
			What: Change(in.count()), At: in.number(), Severity: string(in.bytes()), By: string(in.bytes()), Note: string(in.bytes()),
		})
	}
}

// older is body for the versions before this one, which knew one level.
func (r *record) older(v byte, in *input) {
	t := Track{Held: r.Open && !r.Silent}
	for _, n := range []*int64{&r.Number, &r.Version, &r.RaisedAt, &r.Cleared, &r.Readings, &t.Since, &r.Notified} {
		*n = in.number()
	}
	t.Streak = int(in.number())
	if v > versionPlain {
		r.Noticed, r.heard = in.number(), in.number()
	}
	if t != (Track{}) {
		r.Tracks = []Track{t}
	}
}

// input is an encoding that is being read. After an error, which stays, everything is zero.
type input struct {
	rest []byte
	err  error
}

func (in *input) number() int64 {
	x, n := binary.Varint(in.rest)
	in.skip(n)
	return x
}

func (in *input) count() uint64 {
	x, n := binary.Uvarint(in.rest)
	in.skip(n)
	return x
}

// length is a count of things that take at least a byte each.
func (in *input) length() int {
	n := in.count()
	if n > uint64(len(in.rest)) {
		in.err, in.rest = errShort, nil
		return 0
	}
	return int(n)
}

func (in *input) bytes() []byte {
	n := in.length()
	b := in.rest[:n:n]
	in.rest = in.rest[n:]
	return b
}

func (in *input) skip(n int) {
	if n <= 0 {
		in.err, in.rest = errShort, nil
		return
	}
	in.rest = in.rest[n:]
}
