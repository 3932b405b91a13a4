package feed

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

var timed = topology.Spout{Key: "device", Time: topology.TimeField{Field: "ts", Unit: "ms"}}

func reader(t testing.TB, name, text string, spec topology.Spout) *Reader {
	t.Helper()
	r, err := newReader(name, spec, strings.NewReader(text), func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readAll(t testing.TB, r *Reader) (rows []Row) {
	t.Helper()
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
}

func TestRows(t *testing.T) {
	csvSpec := timed
	csvSpec.Decode, csvSpec.Columns = "csv", []string{"device", "ts", "v"}
	rawSpec := topology.Spout{Decode: "raw"}
	for name, c := range map[string]struct {
		file, text string
		spec       topology.Spout
		want       []string // value, key, time, and ! when the spout will not take it
	}{
		"csv": {"a.csv", "device,ts,v\nm1,5,1.50\nm2,6,\n\nm3,7,x y\r\n", timed, []string{
			`{"device":"m1","ts":5,"v":1.50} m1 5`, `{"device":"m2","ts":6} m2 6`, `{"device":"m3","ts":7,"v":"x y"} m3 7`,
		}},
		"quoted cells": {"a.csv", "device,ts,v\n\"m,1\",5,\"a\nb \"\"c\"\"\"\nm2,6,1\n", timed, []string{
			`{"device":"m,1","ts":5,"v":"a\nb \"c\""} m,1 5`, `{"device":"m2","ts":6,"v":1} m2 6`,
		}},
		"a stray quote spoils one line": {"a.csv", "device,ts,v\nm1,5,\"oops\nm2,6,1\nm3,7,\"q\"\n", timed, []string{
			`m1,5,"oops  0 !`, `{"device":"m2","ts":6,"v":1} m2 6`, `{"device":"m3","ts":7,"v":"q"} m3 7`,
		}},
		"wrong number of cells": {"a.csv", "device,ts,v\nm1,5\nm2,6,1,2\nm3,7,1", timed, []string{
			`m1,5  0 !`, `m2,6,1,2  0 !`, `{"device":"m3","ts":7,"v":1} m3 7`,
		}},
		"not UTF-8 is not repaired":     {"a.csv", "device,ts,v\nm1,5,\xb0C\n", timed, []string{"m1,5,\xb0C  0 !"}},
		"unreadable time keeps its key": {"a.csv", "device,ts,v\nm1,later,1\n", timed, []string{`{"device":"m1","ts":"later","v":1} m1 0 !`}},
		"json lines": {"a.jsonl", `{"device":"m1","ts":5}` + "\nnot json\n[1]\n" + `{"device":7,"ts":6}`, timed, []string{
			`{"device":"m1","ts":5} m1 5`, `not json  0 !`, `[1]  0 !`, `{"device":7,"ts":6} 7 6`,
		}},
		"json by its first byte": {"stdin", "\n {\"device\":\"m1\",\"ts\":5}", timed, []string{` {"device":"m1","ts":5} m1 5`}},
		"byte order mark":        {"a.csv", "\ufeffdevice,ts,v\nm1,5,1\n", timed, []string{`{"device":"m1","ts":5,"v":1} m1 5`}},
		"an unnamed column":      {"a.csv", ",device,ts\n0,m1,5\n", timed, []string{`{"device":"m1","ts":5} m1 5`}},
		"csv rows":               {"a.csv", "device,ts,v\nm1,5,\"a,b\"\nm2,6,\n", csvSpec, []string{`m1,5,"a,b" m1 5`, `m2,6, m2 6`}},
		"csv rows in another order": {"a.csv", "v,extra,ts,device\n\"a,b\",x,5,m1\n", csvSpec, []string{
			`m1,5,"a,b" m1 5`,
		}},
		"csv rows without a header": {"a.csv", "m1,5,1\nm2,6,2\n", csvSpec, []string{`m1,5,1 m1 5`, `m2,6,2 m2 6`}},
		"raw lines":                 {"dir/words.txt", "to be or\n\nnot, {\n", rawSpec, []string{`to be or words.txt 0`, `not, { words.txt 0`}},
		"empty":                     {"a.csv", "", timed, nil},
		"only a header":             {"a.csv", "device,ts,v\n", timed, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for i, r := range readAll(t, reader(t, c.file, c.text, c.spec)) {
				s := fmt.Sprintf("%s %s %d", r.Value, r.Key, r.Time)
				if r.Bad != nil {
					s += " !"
				}
				if got = append(got, s); r.Number != int64(i+1) {
					t.Errorf("row %d has number %d", i+1, r.Number)
				}
			}
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestRefusedFiles(t *testing.T) {
	csvSpec := timed
	csvSpec.Decode, csvSpec.Columns = "csv", []string{"device", "ts"}
	for name, c := range map[string]struct {
		file, text, want string
		spec             topology.Spout
	}{
		"array":          {"a.json", `[{"a":1}]`, "jq -c", timed},
		"no key column":  {"a.csv", "dev,ts\n", `no column "device"`, timed},
		"no time column": {"a.csv", "device;ts\n", `it has device;ts`, timed},
		"column twice":   {"a.csv", "device,ts,ts\n", "twice", timed},
		"column missing": {"a.csv", "device,at\n", "lacks ts", csvSpec},
		"json for csv":   {"a.jsonl", `{"a":1}`, "decode: json", csvSpec},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newReader(c.file, c.spec, strings.NewReader(c.text), nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestCompressed(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	fmt.Fprint(z, "device,ts\nm1,5\n")
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if rows := readAll(t, reader(t, "a.csv.gz", b.String(), timed)); len(rows) != 1 || rows[0].Key != "m1" {
		t.Errorf("got %+v", rows)
	}
	r := reader(t, "a.csv.gz", b.String()[:b.Len()-6], timed)
	_, err := r.Next()
	for err == nil {
		_, err = r.Next()
	}
	if errors.Is(err, io.EOF) {
		t.Error("a file that is cut off looks whole")
	}
}

// What is written as CSV is read as the object that the spout makes of the same cells.
func TestRowsSurvive(t *testing.T) {
	cell := rapid.StringMatching(`[a-z0-9 ,"\n.-]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		columns := []string{"device", "ts", "v"}
		var text strings.Builder
		text.WriteString("device,ts,v\n")
		var want []string
		for range rapid.IntRange(0, 8).Draw(t, "rows") {
			row := []string{"m" + cell.Draw(t, "device"), "1", cell.Draw(t, "v")}
			want = append(want, string(spout.Row(columns, row)))
			for i, c := range row {
				if i > 0 {
					text.WriteByte(',')
				}
				text.WriteString(`"` + strings.ReplaceAll(c, `"`, `""`) + `"`)
			}
			text.WriteByte('\n')
		}
		r, err := newReader("a.csv", timed, strings.NewReader(text.String()), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			row, err := r.Next()
			if err != nil || string(row.Value) != w {
				t.Fatalf("got %s (%v), want %s, from\n%s", row.Value, err, w, text.String())
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("after the last row: %v", err)
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add("device,ts\nm,1\n")
	f.Add("device,ts\n\"m,1\n\"\"\n")
	f.Add("{\"device\":\"m\",\"ts\":1}\n{")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := newReader("x", timed, strings.NewReader(text), nil)
		for err == nil {
			var row Row
			if row, err = r.Next(); err == nil && row.Bad == nil && row.Key == "" {
				t.Errorf("a good row without a device: %q", row.Value)
			}
		}
	})
}

func TestMergeKeepsEachOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sources []*source
		last := map[int]int64{}
		total := 0
		for i := range rapid.IntRange(1, 4).Draw(t, "files") {
			var text strings.Builder
			for n, ts := range rapid.SliceOfN(rapid.IntRange(-5, 20), 0, 12).Draw(t, "times") {
				fmt.Fprintf(&text, `{"device":"m%d","ts":%d}`+"\n", n, ts)
				total++
			}
			r, err := newReader("a.jsonl", timed, strings.NewReader(text.String()), nil)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, &source{index: i, Reader: r, time: -1 << 62})
		}
		m, clock := merge{sources: sources, ordered: true}, int64(-1<<62)
		for ; ; total-- {
			it, err := m.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if it.row.Number != last[it.source.index]+1 {
				t.Fatalf("row %d of file %d after row %d", it.row.Number, it.source.index, last[it.source.index])
			}
			last[it.source.index] = it.row.Number
			if it.row.Time > clock {
				clock = it.row.Time
			}
			for _, s := range sources { // nobody older is kept waiting behind a younger one
				if s.head != nil && s.time < it.row.Time {
					t.Fatalf("a row of %d went before one of %d", it.row.Time, s.time)
				}
			}
		}
		if total != 0 {
			t.Fatalf("%d rows are missing", total)
		}
	})
}
