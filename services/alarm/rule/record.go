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
}

// Versions of the encoding. The first knew nothing of silence.
const (
	version      = 2
	versionPlain = 1
)

var (
	errCorrupt = errors.New("the stored state cannot be read")
	errShort   = errors.New("it ends early")
)

// Clone implements state.Value. Values are replaced, never changed, so they can be shared.
func (r *record) Clone() state.Value { c := *r; return &c }

// Append implements state.Value.
func (r *record) Append(b []byte) ([]byte, error) {
	flags := byte(0)
	for i, set := range [...]bool{r.Open, r.Notify, r.Known, r.RaiseValue != nil, r.ClearValue != nil, r.Silent, r.armed} {
		if set {
			flags |= 1 << i
		}
	}
	b = append(b, version, flags)
	for _, v := range r.numbers() {
		b = binary.AppendVarint(b, *v)
	}
	b = binary.AppendVarint(b, int64(r.Streak))
	b = binary.AppendVarint(b, r.Noticed)
	b = binary.AppendVarint(b, r.heard)
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
	v := b[0]
	if v != version && v != versionPlain {
		return fmt.Errorf("its version is %d, not %d", v, version)
	}
	flags := b[1]
	if flags >= 1<<7 || v == versionPlain && flags >= 1<<5 {
		return fmt.Errorf("its flags are %#x", flags)
	}
	r.Open, r.Notify, r.Known, r.Silent, r.armed = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&32 != 0, flags&64 != 0
	b = b[2:]
	var streak int64
	numbers := r.numbers()
	all := append(numbers[:], &streak)
	if v == version {
		all = append(all, &r.Noticed, &r.heard)
	}
	for _, v := range all {
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
