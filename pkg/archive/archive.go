// Package archive is what is known of devices beside their readings, such as site, model or limits: the contract of a store of device profiles, a
// bounded cache in front of it, and a decoder of the files that they are imported from. Bolts read profiles through a Reader, the tools write them;
// pkg/mongo and pkg/sqlite implement Store, archivetest.Run checks them. It never interprets a field, and never talks to anything by itself.
package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// DefaultName is the archive of an installation that has only one.
const DefaultName = topology.DefaultArchive

// Limits of one profile.
const (
	MaxDevice = 256      // bytes of a device's id
	MaxFields = 64 << 10 // bytes of the fields as JSON
	maxName   = 64       // bytes of a field's name
	maxDepth  = 32       // objects and lists in each other
)

// ErrConflict says that the profile has another version than the writer has seen: read it again.
var ErrConflict = errors.New("the profile has been changed by somebody else")

// Profile is what is known of one device.
type Profile struct {
	Device  string
	Version int64  // 1 when it is first written, one more with each change; 0 in one that was never stored
	Fields  []byte // a JSON object, without white space; the names at its top are identifiers
}

// Store keeps profiles in named archives. An archive that nothing was written to is an empty one. It is safe for concurrent use.
type Store interface {
	// Read returns the profiles of devices in their order, nil where a device is unknown, in one round trip.
	Read(ctx context.Context, archive string, devices []string) ([]*Profile, error)
	// Write stores profiles whole, whatever was there; their versions do not matter. No device may come twice. After an error any of them may or may not
	// be stored: write all again.
	Write(ctx context.Context, archive string, profiles []Profile) error
	// Replace stores one profile, provided that the stored one has its version still (0: that there is none), and returns the new version. It is
	// ErrConflict otherwise. A device that was deleted and written again begins at 1.
	Replace(ctx context.Context, archive string, p Profile) (version int64, err error)
	// Delete forgets devices and returns how many of them were known.
	Delete(ctx context.Context, archive string, devices []string) (known int, err error)
	// List returns at most limit profiles of devices whose ids begin with prefix and are greater than after, ordered by the bytes of their ids.
	List(ctx context.Context, archive, prefix, after string, limit int) ([]Profile, error)
	Close() error
}

// CheckName returns why name cannot be that of an archive, or nil. There is no hyphen in it, so that Key is never ambiguous.
func CheckName(name string) error {
	if !topology.IsArchive(name) {
		return errors.New("the name of an archive is a lower-case letter, then lower-case letters, digits and _, at most 48 in all")
	}
	return nil
}

// CheckDevice returns why device cannot be the id of a device, or nil.
func CheckDevice(device string) error {
	switch {
	case device == "":
		return errors.New("the device has no id")
	case len(device) > MaxDevice:
		return fmt.Errorf("the id of the device has %d bytes, at most %d are allowed", len(device), MaxDevice)
	case !utf8.ValidString(device):
		return fmt.Errorf("the id of the device, %q, is not UTF-8", device)
	case strings.ContainsFunc(device, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("the id of the device, %q, holds a control character", device)
	}
	return nil
}

// CheckBatch returns why archive and profiles cannot be given to Write, or nil.
func CheckBatch(archive string, profiles []Profile) error {
	if err := CheckName(archive); err != nil {
		return err
	}
	seen := make(map[string]bool, len(profiles))
	for i := range profiles {
		p := &profiles[i]
		if err := p.Check(); err != nil {
			return fmt.Errorf("profile of %q: %w", p.Device, err)
		}
		if seen[p.Device] {
			return fmt.Errorf("profile of %q: it comes twice", p.Device)
		}
		seen[p.Device] = true
	}
	return nil
}

// New makes a profile of a JSON object, written in whatever way.
func New(device string, fields []byte) (Profile, error) {
	p := Profile{Device: device, Fields: fields}
	if err := p.Check(); err != nil {
		return Profile{}, err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, fields); err != nil {
		return Profile{}, err
	}
	p.Fields = b.Bytes()
	return p, nil
}

// Of makes a profile of its fields, each as JSON.
func Of(device string, fields map[string]json.RawMessage) (Profile, error) {
	object, err := encode(fields)
	if err != nil {
		return Profile{}, err
	}
	return New(device, object)
}

// encode writes v as JSON, with < and > as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Check returns why no store can accept p, or nil.
func (p *Profile) Check() error {
	if err := CheckDevice(p.Device); err != nil {
		return err
	}
	if len(p.Fields) > MaxFields {
		return fmt.Errorf("the fields have %d bytes, at most %d are allowed", len(p.Fields), MaxFields)
	}
	if !utf8.Valid(p.Fields) {
		return errors.New("the fields are not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(p.Fields))
	d.UseNumber()
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return errors.New("the fields are not a JSON object")
	}
	if err := checkObject(d, 1); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// Decode returns the fields as Go values: numbers are float64.
func (p *Profile) Decode() (fields map[string]any, err error) {
	if err := json.Unmarshal(p.Fields, &fields); err != nil {
		return nil, fmt.Errorf("profile of %q: %w", p.Device, err)
	}
	return fields, nil
}

// checkObject reads what follows an opening brace.
func checkObject(d *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return broken(err)
		}
		name, _ := token.(string) // the decoder lets nothing else stand here
		if err := checkField(name, depth); err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("the field %q comes twice", name)
		}
		seen[name] = true
		if err := checkValue(d, depth); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err := d.Token()
	return broken(err)
}

// CheckField returns why name cannot be that of a field, or nil.
func CheckField(name string) error { return checkField(name, 1) }

// checkField: expressions and scripts write archive.name, so a name at the top is an identifier; deeper ones need only be such as every store can hold.
func checkField(name string, depth int) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("the name of the field %q... has %d bytes, at most %d are allowed", name[:16], len(name), maxName)
	case name == "" || strings.HasPrefix(name, "$") || strings.ContainsAny(name, ".\x00"):
		return fmt.Errorf("%q cannot be the name of a field: write letters, digits and _", name)
	case depth > 1:
		return nil
	}
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return fmt.Errorf("%q cannot be the name of a field: write a letter or _, then letters, digits and _", name)
		}
	}
	return nil
}

func checkValue(d *json.Decoder, depth int) error {
	token, err := d.Token()
	if err != nil {
		return broken(err)
	}
	switch x := token.(type) {
	case json.Delim:
		if depth++; depth > maxDepth {
			return fmt.Errorf("objects and lists nest deeper than %d", maxDepth)
		}
		if x == '{' {
			return checkObject(d, depth)
		}
		for d.More() {
			if err := checkValue(d, depth); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return broken(err)
	case json.Number:
		return checkNumber(x.String())
	}
	return nil
}

// checkNumber allows what every store and expressions can hold.
func checkNumber(s string) error {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return fmt.Errorf("the number %.40s is too large", s)
	}
	if !strings.ContainsAny(s, ".eE") && math.Abs(f) >= 1<<63 {
		return fmt.Errorf("the integer %.40s does not fit 64 bits: write it in quotes, or with an exponent", s)
	}
	return nil
}

func broken(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the fields are not JSON: %w", err)
}

// Prefixed returns the least text that is greater than all that begin with prefix; "" when there is none.
func Prefixed(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}
