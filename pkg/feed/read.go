package feed

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Stdin is the name of a file that stands for standard input.
const Stdin = "-"

// maxLine bounds a line in memory, in bytes.
const maxLine = 64 << 20

// Row is one row of a file, as it goes into a record.
type Row struct {
	Number int64  // from 1
	Key    string // the device; "" when there is none
	Value  []byte
	Time   int64 // event time, ms; 0 when Bad
	Bad    error // why the spout will dead-letter the row; nil if it will not
}

// Reader reads the rows of one file. It is not safe for concurrent use.
type Reader struct {
	close   func() error
	lines   lines
	form    form
	columns []string // of CSV
	order   []int    // decode csv: where the file has the spout's columns; nil: in the same places
	rows    int64

	spec      topology.Spout
	name      string
	decoder   *spout.Decoder
	keyReader *spout.Decoder // for rows without a readable time
}

// form is how a line becomes a record's value.
type form int

const (
	formJSON form = iota // the line is a JSON object
	formCSV              // cells become a JSON object
	formRow              // the CSV row as it is: the spout knows the columns
	formRaw              // the line as it is
)

// Open opens a file whose rows the spout is to read. What a row becomes follows from the spout's decode: a JSON object of CSV cells or the JSON line
// itself (json), the CSV row (csv), or the line as it is (raw). Where the spout takes the device from the record's key, that is the file's name. The name's ending tells CSV from JSON lines; a file
// with another ending is JSON lines if it begins with {. Compressed files are known by their content. stdin is read for "-".
func Open(path string, spec topology.Spout, stdin io.Reader) (*Reader, error) {
	if path == Stdin {
		if stdin == nil {
			return nil, errors.New("feed from standard input: there is none")
		}
		return newReader("stdin", spec, stdin, func() error { return nil })
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := newReader(path, spec, file, file.Close)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

func newReader(name string, spec topology.Spout, in io.Reader, closing func() error) (*Reader, error) {
	buffered, err := plain(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	keyOnly := spec
	keyOnly.Time = topology.TimeField{}
	r := &Reader{
		close: closing, lines: lines{in: buffered}, spec: spec, name: name,
		decoder: spout.NewDecoder(spec), keyReader: spout.NewDecoder(keyOnly),
	}
	if err := r.recognize(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// plain undoes gzip and a byte order mark.
func plain(in io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReaderSize(in, 64<<10)
	if magic, _ := b.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		b = bufio.NewReaderSize(z, 64<<10)
	}
	if mark, _ := b.Peek(3); bytes.Equal(mark, []byte{0xef, 0xbb, 0xbf}) {
		_, _ = b.Discard(3)
	}
	return b, nil
}

// recognize finds out the form and reads a CSV header.
func (r *Reader) recognize() error {
	if r.spec.Decode == "raw" {
		r.form = formRaw
		return nil
	}
	first := r.lines.firstByte()
	switch ending := filepath.Ext(strings.TrimSuffix(strings.ToLower(r.name), ".gz")); {
	case ending == ".csv":
		r.form = formCSV
	case ending == ".jsonl" || ending == ".ndjson" || ending == ".json" || first == '{' || first == '[':
		r.form = formJSON
	default:
		r.form = formCSV
	}
	if r.form == formJSON {
		if first == '[' {
			return errors.New("it begins with [: one JSON object a line is wanted, as `jq -c '.[]'` makes of an array")
		}
		if r.spec.Decode == "csv" {
			return errors.New("it holds JSON lines, but the spout decodes CSV: feed a CSV file, or write decode: json")
		}
		return nil
	}
	return r.header()
}

// header reads the line with the columns' names.
func (r *Reader) header() error {
	_, cells, err := r.record(0)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	if cells == nil {
		return errors.New("the first line is no CSV header: name the columns there")
	}
	for i, c := range cells {
		cells[i] = strings.TrimSpace(c)
		if cells[i] != "" && slices.Index(cells, cells[i]) < i {
			return fmt.Errorf("the header names column %q twice", cells[i])
		}
	}
	r.columns = cells
	if r.spec.Decode == "csv" {
		return r.match()
	}
	for _, field := range []string{r.spec.Key, r.spec.Time.Field} {
		if field != "" && !strings.Contains(field, ".") && !slices.Contains(cells, field) {
			return fmt.Errorf("the header has no column %q, by which the spout finds device or time: it has %s", field, strings.Join(cells, ", "))
		}
	}
	return nil
}

// match relates the file's columns to those that the spout expects in each record.
func (r *Reader) match() error {
	r.form = formRow
	if slices.Equal(r.columns, r.spec.Columns) {
		return nil
	}
	var missing []string
	for _, c := range r.spec.Columns {
		i := slices.Index(r.columns, c)
		if i < 0 {
			missing = append(missing, c)
		}
		r.order = append(r.order, i)
	}
	switch {
	case len(missing) == len(r.spec.Columns): // a file without a header
		r.columns, r.order = r.spec.Columns, nil
		r.lines.again()
	case len(missing) > 0:
		return fmt.Errorf("the header lacks %s of spout.columns: it has %s", strings.Join(missing, ", "), strings.Join(r.columns, ", "))
	}
	return nil
}

// Next returns the next row; io.EOF behind the last one. Its Value may be kept.
func (r *Reader) Next() (Row, error) {
	raw, cells, err := r.record(len(r.columns))
	if err != nil {
		return Row{}, err
	}
	r.rows++
	row := Row{Number: r.rows, Value: raw}
	switch {
	case r.form == formCSV && cells != nil && utf8.Valid(raw):
		for i, c := range r.columns {
			if c == "" { // such as the row numbers that pandas writes
				cells[i] = ""
			}
		}
		row.Value = spout.Row(r.columns, cells)
	case r.form == formRow && cells != nil && r.order != nil:
		row.Value = arrange(cells, r.order)
	}
	r.decode(&row)
	return row, nil
}

// decode reads key and time as the spout will.
func (r *Reader) decode(row *Row) {
	// The record's time only matters to topologies that take it for the event time: then rows have no order to be merged by.
	record := spout.Record{Value: row.Value}
	if r.form == formRaw || r.spec.Key == "" {
		record.Key = []byte(filepath.Base(r.name))
	}
	reading, err := r.decoder.Decode(&record)
	if err != nil {
		row.Bad = err
		reading, _ = r.keyReader.Decode(&record)
		reading.Time = 0
	}
	row.Key, row.Time = reading.Key, reading.Time
}

// skip passes over a row and reports whether there was one.
func (r *Reader) skip() (bool, error) {
	_, _, err := r.record(len(r.columns))
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil, err
}

// Close closes the file.
func (r *Reader) Close() error { return r.close() }

// arrange puts the cells into the order that the spout expects.
func arrange(cells []string, order []int) []byte {
	row := make([]string, len(order))
	for i, at := range order {
		row[i] = cells[at]
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write(row) // a buffer takes everything
	w.Flush()
	return bytes.TrimRight(b.Bytes(), "\n")
}

// record returns the next row that is not blank, and its cells if it is a CSV row of want cells (0: of any number). A quoted cell may span lines; where
// joining lines does not yield a row, the first of them is returned alone, so that a stray quote spoils one line and not the rest of the file.
func (r *Reader) record(want int) (raw []byte, cells []string, err error) {
	first, err := r.lines.next()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", r.name, err)
	}
	if r.form == formJSON || r.form == formRaw {
		return first, nil, nil
	}
	if r.form == formRow && want == 0 {
		want = len(r.spec.Columns)
	}
	if bytes.IndexByte(first, '"') < 0 {
		cells = strings.Split(string(first), ",")
		if want > 0 && len(cells) != want {
			cells = nil
		}
		return first, cells, nil
	}
	joined := first
	var taken [][]byte
	for bytes.Count(joined, []byte{'"'})%2 == 1 {
		more, err := r.lines.line()
		if err != nil || len(joined)+len(more) > maxJoined {
			if err == nil {
				taken = append(taken, more)
			}
			r.lines.back(taken)
			return first, nil, nil
		}
		taken = append(taken, more)
		joined = slices.Concat(joined, []byte{'\n'}, more)
	}
	if cells = parse(joined, want); cells == nil && len(taken) > 0 {
		r.lines.back(taken)
		return first, nil, nil
	}
	return joined, cells, nil
}

// maxJoined bounds a row whose quoted cells span lines, in bytes.
const maxJoined = 1 << 20

func parse(row []byte, want int) []string {
	c := csv.NewReader(bytes.NewReader(row))
	c.FieldsPerRecord = want
	if want == 0 {
		c.FieldsPerRecord = -1
	}
	cells, err := c.Read()
	if err != nil || int(c.InputOffset()) < len(row) {
		return nil
	}
	return cells
}

// lines splits a text into lines and takes lines back.
type lines struct {
	in      *bufio.Reader
	pending [][]byte
	last    []byte
	number  int64
}

// next returns the next line that is not blank.
func (l *lines) next() ([]byte, error) {
	for {
		line, err := l.line()
		if err != nil || len(bytes.TrimSpace(line)) > 0 {
			return line, err
		}
	}
}

// line returns the next line without its end.
func (l *lines) line() ([]byte, error) {
	if len(l.pending) > 0 {
		l.last, l.pending = l.pending[0], l.pending[1:]
		return l.last, nil
	}
	l.number++
	var line []byte
	for {
		part, err := l.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil || errors.Is(err, io.EOF) && len(line) > 0:
			l.last = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\r'})
			return l.last, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxLine:
			return nil, fmt.Errorf("line %d is longer than %d MiB: CSV or JSON lines are wanted", l.number, maxLine>>20)
		}
	}
}

// back returns lines, to be read again.
func (l *lines) back(taken [][]byte) { l.pending = append(slices.Clone(taken), l.pending...) }

// again returns the line read last.
func (l *lines) again() { l.back([][]byte{l.last}) }

// firstByte returns the first byte that is not white space, 0 if there is none nearby.
func (l *lines) firstByte() byte {
	head, _ := l.in.Peek(4 << 10)
	if head = bytes.TrimLeft(head, " \t\r\n"); len(head) == 0 {
		return 0
	}
	return head[0]
}
