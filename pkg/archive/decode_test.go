package archive_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/boltmesh/boltmesh/pkg/archive"
)

// decoded is what a file comes to, one text a line of it that is not blank.
func decoded(format, key, text string) (out []string) {
	d, err := archive.NewDecoder(strings.NewReader(text), format, key)
	if err != nil {
		return []string{"! " + err.Error()}
	}
	for {
		p, line, err := d.Next()
		var bad *archive.LineError
		switch {
		case errors.Is(err, io.EOF):
			return out
		case errors.As(err, &bad):
			out = append(out, "! "+bad.What)
		case err != nil:
			return append(out, "!! "+err.Error())
		default:
			out = append(out, fmt.Sprint(line, " ", p.Device, " ", string(p.Fields)))
		}
	}
}

func TestDecode(t *testing.T) {
	long := strings.Repeat("x", 70<<10)
	for _, c := range []struct {
		name, format, text string
		want               []string
	}{
		{"csv", "csv", "device,site,limit,on\nm1,north,4.50,true\nm2,,-3,\n\nm3,\"a, \"\"b\"\"\",007,no\r\n", []string{
			`2 m1 {"site":"north","limit":4.50,"on":true}`, `3 m2 {"limit":-3}`, `5 m3 {"site":"a, \"b\"","limit":"007","on":"no"}`,
		}},
		{"another place of the key, an unnamed column, a byte order mark", "csv", "\ufeff,site,device\n0,north,m1", []string{`2 m1 {"site":"north"}`}},
		{"a stray quote spoils one line", "csv", "device,site\nm1,\"north\nm2,south\n", []string{`! not CSV: extraneous or missing " in quoted-field in column 10`, `3 m2 {"site":"south"}`}},
		{"wrong number of cells", "csv", "device,site\nm1\nm2,a,b\nm3,c\n", []string{"! 1 cells, the header has 2", "! 3 cells, the header has 2", `4 m3 {"site":"c"}`}},
		{"no device", "csv", "device,site\n,north\n", []string{"! the device has no id"}},
		{"numbers that no store can hold stay texts", "csv", "device,n\nm1,1e999\nm2,99999999999999999999\n", []string{`2 m1 {"n":"1e999"}`, `3 m2 {"n":"99999999999999999999"}`}},
		{"not UTF-8", "csv", "device,n\nm1,\xb0C\nm\xb0,1\n", []string{"! not UTF-8", "! not UTF-8"}},
		{"no header", "csv", "", []string{"! line 1: there is no header: begin with a line that names the columns, such as device,site,limit"}},
		{"no key", "csv", "id,site\n", []string{`! line 1: no column "device": there are id, site: name the column of the device with --key`}},
		{"a column twice", "csv", "device,a,a\n", []string{`! line 1: the column "a" comes twice: rename one`}},
		{"a column that is no name", "csv", "device,a-b\n", []string{`! line 1: "a-b" cannot be the name of a field: write a letter or _, then letters, digits and _: rename the column`}},
		{"too long", "csv", "device,a\nm1," + long + "\nm2,1\n", []string{"! the fields have 71688 bytes, at most 65536 are allowed", `3 m2 {"a":1}`}},
		{"far too long", "csv", "device,a\nm1," + strings.Repeat(long, 10) + "\nm2,1\n", []string{"! longer than 512 KiB", `3 m2 {"a":1}`}},

		{"json", "jsonl", `{"device":"m1","site":"north","limits":{"high":[1,2.5]}}` + "\n\n" + `{"device":7}`, []string{
			`1 m1 {"limits":{"high":[1,2.5]},"site":"north"}`, `3 7 {}`,
		}},
		{"json that is wrong", "jsonl", "[1]\n{\"site\":1}\n{\"device\":null}\n{\"device\":\"a\",\"x\":1,\"x\":2}\n{\"device\":\"b\",\"a.b\":1}\n{\"device\":\"c\"} x\n{\"device\":\"d\"}\n", []string{
			"! not a JSON object: json: cannot unmarshal array into Go value of type map[string]json.RawMessage", `! no field "device"`, `! "device" is null`,
			`! the field "x" comes twice`, `! "a.b" cannot be the name of a field: write letters, digits and _`,
			"! not a JSON object: invalid character 'x' after top-level value", `7 d {}`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, decoded(c.format, "device", c.text)); d != "" {
				t.Error(d)
			}
		})
	}
}

// FuzzDecode: whatever a file holds, a profile that is handed out is one that every store takes, and lines go up to the end.
func FuzzDecode(f *testing.F) {
	f.Add("csv", "device,site\nm1,north\n\"m2\",\"a\"\n")
	f.Add("jsonl", `{"device":"m1","a":{"b":[1,null,"x"]}}`)
	f.Fuzz(func(t *testing.T, format, text string) {
		d, err := archive.NewDecoder(strings.NewReader(text), format, "device")
		if err != nil {
			return
		}
		last := 0
		for {
			p, line, err := d.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if line <= last {
				t.Fatalf("line %d after %d", line, last)
			}
			last = line
			var bad *archive.LineError
			switch {
			case errors.As(err, &bad):
				if bad.Line != line || bad.What == "" || bad.Remedy == "" {
					t.Fatalf("line %d: %+v", line, bad)
				}
			case err != nil:
				t.Fatal(err)
			default:
				if err := p.Check(); err != nil {
					t.Fatalf("line %d: %v", line, err)
				}
				if _, err := p.Decode(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
