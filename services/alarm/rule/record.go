package rule

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/state"
)

// record is an Episode as the state keeps it.
type record struct{ Episode }

const version = 1

var (
	errCorrupt = errors.New("the stored state cannot be read")
	errShort   = errors.New("it ends early")
)

// Clone implements state.Value. Values are replaced, never changed, so they can be shared.
func (r *record) Clone() state.Value { c := *r; return &c }

// Append implements state.Value.
func (r *record) Append(b []byte) ([]byte, error) {
	flags := byte(0)
	for i, set := range [...]bool{r.Open, r.Notify, r.Known, r.RaiseValue != nil, r.ClearValue != nil} {
		if set {
			flags |= 1 << i
		}
	}
	b = append(b, version, flags)
	for _, v := range r.numbers() {
		b = binary.AppendVarint(b, *v)
	}
	b = binary.AppendVarint(b, int64(r.Streak))
	for _, v := range [...][]byte{r.RaiseValue, r.ClearValue} {
		if v != nil {
			b = binary.AppendUvarint(b, uint64(len(v)))
			b = append(b, v...)
		}
	}
	return b, nil
}

func (r *record) numbers() [7]*int64 {
	return [...]*int64{&r.Number, &r.Version, &r.RaisedAt, &r.Cleared, &r.Readings, &r.Since, &r.Notified}
}

// decode reads what Append wrote; nil is a group that has never had an alarm.
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
	if b[0] != version {
		return fmt.Errorf("its version is %d, not %d", b[0], version)
	}
	flags := b[1]
	if flags >= 1<<5 {
		return fmt.Errorf("its flags are %#x", flags)
	}
	r.Open, r.Notify, r.Known = flags&1 != 0, flags&2 != 0, flags&4 != 0
	b = b[2:]
	var streak int64
	numbers := r.numbers()
	for _, v := range append(numbers[:], &streak) {
		x, n := binary.Varint(b)
		if n <= 0 {
			return errShort
		}
		*v, b = x, b[n:]
	}
	r.Streak = int(streak)
	for i, v := range [...]*[]byte{&r.RaiseValue, &r.ClearValue} {
		if flags&(8<<i) == 0 {
			continue
		}
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return errShort
		}
		b = b[n:]
		*v, b = b[:size:size], b[size:]
	}
	if len(b) > 0 {
		return fmt.Errorf("%d bytes follow it", len(b))
	}
	return nil
}
