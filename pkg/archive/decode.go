package archive

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Formats of files with profiles.
const (
	CSV   = "csv"   // a header, then one device a line; an empty cell is an absent field
	JSONL = "jsonl" // one JSON object a line
)

// maxLine bounds a line of a file: fields at their largest, escaped throughout, and the device.
const maxLine = 512 << 10

// Decoder reads profiles from a file, line by line: a line that cannot be used spoils nothing but itself.
type Decoder struct {
	in      *bufio.Reader
	format  string
	key     string
	line    int
	columns []column // of CSV
	keyAt   int
}

type column struct {
	name   string // "" is passed over
	quoted []byte // name as JSON, with its colon
}

// LineError is a line that cannot be used.
type LineError struct {
	Line   int // from 1
	What   string
	Remedy string
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s: %s", e.Line, e.What, e.Remedy) }

// NewDecoder reads the header of a CSV file. key is the column, or the field of each object, that names the device. The error is a *LineError if the
// file itself is at fault.
func NewDecoder(r io.Reader, format, key string) (*Decoder, error) {
	d := &Decoder{in: bufio.NewReaderSize(r, 64<<10), format: format, key: key}
	switch format {
	case JSONL:
		return d, nil
	case CSV:
		return d, d.header()
	}
	return nil, fmt.Errorf("%q is no format of profiles: it is csv or jsonl", format)
}

func (d *Decoder) header() error {
	line, err := d.next()
	if errors.Is(err, io.EOF) {
		return d.bad("there is no header", "begin with a line that names the columns, such as "+d.key+",site,limit")
	}
	if err != nil {
		return err
	}
	cells, err := split(line)
	if err != nil {
		return d.bad("the header is not CSV: "+err.Error(), "write names divided by commas")
	}
	d.keyAt = -1
	seen := map[string]bool{}
	for i, name := range cells {
		switch {
		case seen[name] && name != "":
			return d.bad(fmt.Sprintf("the column %q comes twice", name), "rename one")
		case name == d.key:
			d.keyAt = i
			name = ""
		case name != "": // a column without a name, such as the row numbers that pandas writes, is nothing
			if err := CheckField(name); err != nil {
				return d.bad(err.Error(), "rename the column")
			}
		}
		seen[cells[i]] = true
		quoted, _ := encode(name) // a string cannot fail
		d.columns = append(d.columns, column{name, append(quoted, ':')})
	}
	if d.keyAt < 0 {
		return d.bad(fmt.Sprintf("no column %q: there are %s", d.key, strings.Join(cells, ", ")), "name the column of the device with --key")
	}
	return nil
}

// Next returns the next profile and the line it stands on. After a *LineError the next call goes on with the next line; io.EOF is the end, any other
// error that of the file.
func (d *Decoder) Next() (p Profile, line int, err error) {
	for {
		text, err := d.next()
		if err != nil {
			return Profile{}, d.line, err
		}
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		switch {
		case !utf8.Valid(text):
			err = d.bad("not UTF-8", "save the file as UTF-8")
		case d.format == CSV:
			p, err = d.row(text)
		default:
			p, err = d.object(text)
		}
		return p, d.line, err
	}
}

// row makes a profile of a line of CSV.
func (d *Decoder) row(line []byte) (Profile, error) {
	cells, err := split(line)
	if err != nil {
		return Profile{}, d.bad("not CSV: "+err.Error(), `put cells with commas or quotes in quotes, and double the quotes within ("" for "); a cell cannot hold a line break`)
	}
	if len(cells) != len(d.columns) {
		return Profile{}, d.bad(fmt.Sprintf("%d cells, the header has %d", len(cells), len(d.columns)), "write one cell for each column, an empty one for an absent field")
	}
	b := []byte{'{'}
	for i, c := range d.columns {
		if cells[i] == "" || c.name == "" {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = appendCell(append(b, c.quoted...), cells[i])
	}
	return d.made(New(cells[d.keyAt], append(b, '}')))
}

// appendCell writes a cell as JSON: a number or a bool where it is one letter for letter, so that 007 stays a text.
func appendCell(b []byte, cell string) []byte {
	if cell == "true" || cell == "false" {
		return append(b, cell...)
	}
	if c := cell[0]; (c == '-' || c >= '0' && c <= '9') && json.Valid([]byte(cell)) && checkNumber(cell) == nil {
		return append(b, cell...)
	}
	quoted, _ := encode(cell) // a string cannot fail
	return append(b, quoted...)
}

// object makes a profile of a line of JSON: the device's field is not part of it.
func (d *Decoder) object(line []byte) (Profile, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &members); err != nil {
		return Profile{}, d.bad("not a JSON object: "+err.Error(), `write one object a line, such as {"`+d.key+`": "m1", "site": "north"}`)
	}
	raw, ok := members[d.key]
	if !ok {
		return Profile{}, d.bad(fmt.Sprintf("no field %q", d.key), "add it, or name the field of the device with --key")
	}
	var device string
	if err := json.Unmarshal(raw, &device); err != nil || raw[0] != '"' {
		if device = string(raw); json.Valid(raw) && (raw[0] == '{' || raw[0] == '[' || raw[0] == 'n' || raw[0] == 't' || raw[0] == 'f') {
			return Profile{}, d.bad(fmt.Sprintf("%q is %.40s", d.key, raw), "write the device as a text or a number")
		}
	}
	whole := Profile{Device: device, Fields: line} // for what a map cannot tell any more: names that come twice
	if err := whole.Check(); err != nil && len(line) <= MaxFields {
		if keyErr := CheckField(d.key); keyErr == nil {
			return Profile{}, d.bad(err.Error(), "correct the line")
		}
	}
	delete(members, d.key)
	return d.made(Of(device, members))
}

// made is p, or what is wrong with the line that it was to be made of.
func (d *Decoder) made(p Profile, err error) (Profile, error) {
	if err != nil {
		return Profile{}, d.bad(err.Error(), "correct the line")
	}
	return p, nil
}

func (d *Decoder) bad(what, remedy string) *LineError { return &LineError{d.line, what, remedy} }

// next returns the next line without its end, valid until the next call.
func (d *Decoder) next() ([]byte, error) {
	d.line++
	line, err := d.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = d.long(line)
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
		return nil, err
	}
	if d.line == 1 {
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// long goes on with a line that did not fit the buffer; one that is too long is passed over.
func (d *Decoder) long(begin []byte) ([]byte, error) {
	line := bytes.Clone(begin)
	for {
		more, err := d.in.ReadSlice('\n')
		if len(line) <= maxLine {
			line = append(line, more...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if len(line) > maxLine && (err == nil || errors.Is(err, io.EOF)) {
			return nil, d.bad(fmt.Sprintf("longer than %d KiB", maxLine>>10), "write one device a line")
		}
		return line, err
	}
}

// split reads one line of CSV.
func split(line []byte) ([]string, error) {
	if bytes.IndexByte(line, '"') < 0 {
		return strings.Split(string(line), ","), nil
	}
	r := csv.NewReader(bytes.NewReader(line))
	cells, err := r.Read()
	if err != nil {
		var at *csv.ParseError
		if errors.As(err, &at) {
			err = fmt.Errorf("%w in column %d", at.Err, at.Column)
		}
		return nil, err
	}
	return cells, nil
}
