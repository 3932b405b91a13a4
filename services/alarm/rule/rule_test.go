package rule

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/state"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func byDevice(t *tuple.Tuple) (string, bool) { return t.Key, t.Key != "" }

func expr(source string) *topology.Expr {
	return &topology.Expr{Source: source, At: topology.Place{Line: 7, Column: 9}}
}

func open(t testing.TB, spec topology.Bolt) *Bolt {
	t.Helper()
	b, err := New(spec, byDevice, map[string]any{"limit": 100})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func reading(d string, ts int64, payload string) tuple.Tuple {
	return tuple.Tuple{Key: d, Time: ts, Payload: []byte(payload)}
}

// happened writes events as "r3" and "c5": what, and when.
func happened(t *testing.T, out []tuple.Tuple) string {
	t.Helper()
	var s []string
	for _, o := range out {
		var e struct {
			Event  string
			Ts     int64
			Notify bool
		}
		if err := json.Unmarshal(o.Payload, &e); err != nil || e.Ts != o.Time {
			t.Fatalf("%s at %d: %v", o.Payload, o.Time, err)
		}
		mark := e.Event[:1]
		if e.Notify {
			mark = strings.ToUpper(mark)
		}
		s = append(s, fmt.Sprint(mark, e.Ts))
	}
	return strings.Join(s, " ")
}

func TestRule(t *testing.T) {
	script := &topology.Script{File: "when.js", Text: "function when(t, ctx) { if (t.x !== undefined) return t.x > ctx.params.limit }"}
	for _, tt := range []struct {
		name string
		spec topology.Bolt
		xs   string // readings at ts 0, 1, 2, ...; "-" has no x
		want string // R and C are notified, r and c are muted
	}{
		{"strict", topology.Bolt{When: expr("x > 100")}, "100 101 100", "R1 C2"},
		{"as written", topology.Bolt{When: expr("x >= 100")}, "100 101 100 99", "R0 C3"},
		{"absent changes nothing", topology.Bolt{When: expr("x > 100"), RaiseAfter: 2, ClearAfter: 2}, "101 - 101 - 1 - - 1", "R2 C7"},
		{"a streak must not break", topology.Bolt{When: expr("x > 100"), RaiseAfter: 3, ClearAfter: 2}, "101 101 1 101 101 101 1 101 1 1", "R5 C9"},
		{"hysteresis", topology.Bolt{When: expr("x > 100"), Clear: expr("x < 80")}, "101 90 99 79 90 101", "R0 C3 R5"},
		{"hysteresis with streak", topology.Bolt{When: expr("x > 100"), Clear: expr("x < 80"), ClearAfter: 2}, "101 79 90 79 79", "R0 C4"},
		{"the clear's field is absent", topology.Bolt{When: expr("x > 100"), Clear: expr("y < 80")}, "101 1 1 101", "R0"},
		{"for a duration", topology.Bolt{When: expr("x > 100"), RaiseFor: 3 * time.Millisecond, ClearFor: 2 * time.Millisecond}, "101 101 1 101 101 101 101 1 1 1", "R6 C9"},
		{"for a duration and a number", topology.Bolt{When: expr("x > 100"), RaiseFor: time.Millisecond, RaiseAfter: 4}, "101 101 101 101", "R3"},
		{"suppressed", topology.Bolt{When: expr("x > 100"), Suppress: 4 * time.Millisecond}, "101 1 101 1 101 1 101", "R0 C1 r2 c3 R4 C5 r6"},
		{"filtered", topology.Bolt{When: expr("x > 100"), Where: expr("x != 1")}, "101 1 1 50", "R0 C3"},
		{"presence may be asked for", topology.Bolt{When: expr("x == nil")}, "1 - - 2", "R1 C3"},
		{"script", topology.Bolt{Script: script, RaiseAfter: 2}, "100 101 - 101 100", "R3 C4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.ID = "hot"
			h := bolttest.New(t, open(t, tt.spec))
			var out []tuple.Tuple
			for i, x := range strings.Fields(tt.xs) {
				payload := `{"x":` + x + `}`
				if x == "-" {
					payload = `{"z":1}`
				}
				out = append(out, h.Feed(reading("a", int64(i), payload), reading("b", int64(i), `{"x":50}`))...)
				h.Restart()
			}
			out = slices.DeleteFunc(out, func(o tuple.Tuple) bool { return o.Key == "b" && tt.name == "presence may be asked for" })
			if got := happened(t, out); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if len(h.Letters) > 0 {
				t.Errorf("dead letter: %s", h.Letters[0].Error)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	h := bolttest.New(t, open(t, topology.Bolt{ID: "hot", When: expr(`x > 100 and device != ""`), Severity: "major", RaiseAfter: 2}))
	var got []string
	for i, x := range []string{"100.5", "1e3", "7", "101", "102"} {
		for _, o := range h.Feed(reading("m1", int64(1000+i), `{"device":"m1","x":`+x+`}`)) {
			got = append(got, o.Stream+" "+o.Key+" "+string(o.Payload))
		}
	}
	first, second := (&Episode{Number: 1}).ID("hot", "m1"), (&Episode{Number: 2}).ID("hot", "m1")
	want := []string{
		`default m1 {"event":"raise","alarm":"hot","device":"m1","group":"m1","severity":"major","ts":1001,"value":1000,"readings":2,"notify":true,` +
			`"episode":{"id":"` + first + `","number":1,"version":1,"state":"open","raised_at":1001,"raise_value":1000,"history":[{"what":"raise","at":1001,"severity":"major"}]}}`,
		`default m1 {"event":"clear","alarm":"hot","device":"m1","group":"m1","severity":"major","ts":1002,"value":7,"readings":3,"notify":true,` +
			`"episode":{"id":"` + first + `","number":1,"version":2,"state":"cleared","raised_at":1001,"cleared_at":1002,"raise_value":1000,"clear_value":7,"history":[{"what":"raise","at":1001,"severity":"major"},{"what":"clear","at":1002,"severity":"major"}]}}`,
		`default m1 {"event":"raise","alarm":"hot","device":"m1","group":"m1","severity":"major","ts":1004,"value":102,"readings":2,"notify":true,` +
			`"episode":{"id":"` + second + `","number":2,"version":1,"state":"open","raised_at":1004,"raise_value":102,"history":[{"what":"raise","at":1004,"severity":"major"}]}}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if first != "9600307719fe4e262103a6df0ff3901f" {
		t.Errorf("the first episode's id is %s: ids must never change, stored episodes would be left open", first)
	}

	several := bolttest.New(t, open(t, topology.Bolt{ID: "both", When: expr("x > 1 or y > 1")}))
	out := several.Feed(reading("a", 5, `{"x":2,"y":"absent?"}`), reading("a", 6, `{"x":2,"y":0}`))
	if len(several.Letters) > 1 || len(out) == 0 || !strings.Contains(string(out[0].Payload), `"values":{"x":2,"y":`) {
		t.Errorf("%v", out)
	}
}

func TestRejected(t *testing.T) {
	for _, tt := range []struct {
		spec          topology.Bolt
		payload, want string
	}{
		{topology.Bolt{When: expr("x > 1")}, `{"x":"y"}`, "7:"},
		{topology.Bolt{When: expr("x > 1")}, `nonsense`, "not a JSON object"},
		{topology.Bolt{Script: &topology.Script{File: "w.js", Text: "\nfunction when(t) { return t.a.b > 1 }"}}, `{}`, "w.js:2:"},
		{topology.Bolt{Script: &topology.Script{Text: "function when(t) {\n return 7 }", At: topology.Place{Line: 30, Column: 3}}}, `{}`, "when returned a number"},
	} {
		h := bolttest.New(t, open(t, tt.spec))
		if out := h.Feed(reading("a", 1, tt.payload)); len(out) > 0 || len(h.Letters) != 1 || h.Letters[0].Tries != 1 || !strings.Contains(h.Letters[0].Error, tt.want) {
			t.Errorf("%s: %v, letters %+v", tt.payload, out, h.Letters)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		spec topology.Bolt
		want string
	}{
		{topology.Bolt{ID: "hot"}, "alarm hot: it needs either when, levels or a script"},
		{topology.Bolt{When: expr("x"), Script: &topology.Script{}}, "either"},
		{topology.Bolt{When: expr("1")}, "7:"},
		{topology.Bolt{When: expr("x > 1"), Clear: expr("x <")}, "7:"},
		{topology.Bolt{When: expr("x > 1"), RaiseAfter: -1}, "negative"},
		{topology.Bolt{When: expr("x > 1"), NoData: -time.Second}, "negative"},
		{topology.Bolt{Clear: expr("x > 1"), NoData: time.Second}, "clear has no meaning"},
		{topology.Bolt{Script: &topology.Script{File: "w.js", Text: "1"}}, "w.js:1:1: the script declares no function when"},
	} {
		if _, err := New(tt.spec, byDevice, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

// twin finds the events of a whole sequence at once: it looks, for the state it is in, for the first run that is long enough.
func twin(l Limits, holds []bool, times []int64) (events []string) {
	raised := false
	for from := 0; from < len(holds); {
		after, lasting := max(l.RaiseAfter, 1), l.RaiseFor
		if raised {
			after, lasting = max(l.ClearAfter, 1), l.ClearFor
		}
		found := -1
		for end := from; end < len(holds) && found < 0; end++ {
			start := end
			for start >= from && holds[start] != raised {
				start--
			}
			start++
			if run := end - start + 1; run >= after && run > 0 && times[end]-times[start] >= lasting {
				found = end
			}
		}
		if found < 0 {
			break
		}
		raised = !raised
		events = append(events, fmt.Sprint(raised, times[found]))
		from = found + 1
	}
	return events
}

func TestEpisodeEqualsTheTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{
			RaiseAfter: rapid.IntRange(0, 4).Draw(t, "raise after"), ClearAfter: rapid.IntRange(0, 4).Draw(t, "clear after"),
			RaiseFor: rapid.SampledFrom([]int64{0, 0, 3}).Draw(t, "raise for"), ClearFor: rapid.SampledFrom([]int64{0, 0, 3}).Draw(t, "clear for"),
		}
		holds := rapid.SliceOfN(rapid.Bool(), 0, 60).Draw(t, "holds")
		times := make([]int64, len(holds))
		for i := range times {
			times[i] = rapid.Int64Range(-1, 2).Draw(t, "step")
			if i > 0 {
				times[i] += times[i-1]
			}
		}
		var r record
		var got []string
		for i, h := range holds {
			before := r.Episode
			before.Tracks = slices.Clone(before.Tracks)
			before.fit(1)
			said := Against
			if h != r.Open {
				said = For
			}
			change := r.Step(&l, []Answer{said}, times[i])
			if change == Nothing && fmt.Sprint(before) != fmt.Sprint(r.Episode) {
				t.Fatalf("nothing changed %v to %v", before, r.Episode)
			}
			if change == Raised || change == Cleared {
				got = append(got, fmt.Sprint(change == Raised, times[i]))
				r.RaiseValue = []byte("1")
			}
			raw, _ := r.Append(nil)
			v, err := decode(raw)
			if err != nil || fmt.Sprint(v.(*record).Episode) != fmt.Sprint(r.Episode) {
				t.Fatalf("%v became %v, %v", r.Episode, v, err)
			}
			r = *v.(*record)
		}
		if want := twin(l, holds, times); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// Records as former versions wrote them: of the first an alarm that is clear with a streak, of the second an open one.
var (
	old1 = []byte{1, 0x06, 2, 4, 10, 12, 6, 14, 8, 4}
	old2 = []byte{2, 0x4b, 2, 2, 10, 0, 6, 14, 10, 2, 0, 0x8c, 1, 1, '7'}
)

func TestOlderRecords(t *testing.T) {
	for _, tt := range []struct {
		raw  []byte
		want record
	}{
		{old1, record{Episode: Episode{
			Number: 1, Version: 2, RaisedAt: 5, Cleared: 6, Readings: 3, Notify: true, Known: true, Notified: 4, Tracks: []Track{{Streak: 2, Since: 7}},
		}}},
		{old2, record{Episode: Episode{
			Number: 1, Version: 1, Open: true, RaisedAt: 5, Readings: 3, Notify: true, Notified: 5, RaiseValue: []byte("7"), Tracks: []Track{{Held: true, Streak: 1, Since: 7}},
		}, watch: watch{heard: 70, armed: true}}},
	} {
		v, err := decode(tt.raw)
		if err != nil || fmt.Sprintf("%+v", v) != fmt.Sprintf("%+v", &tt.want) {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, v, &tt.want)
		}
	}
	for i := range old2 {
		if _, err := decode(old2[:i]); err == nil && i > 0 {
			t.Errorf("%x was read", old2[:i])
		}
	}
}

// An episode that a former version opened goes on: it is cleared as its next version, with a history.
func TestOlderEpisodeGoesOn(t *testing.T) {
	h := bolttest.New(t, open(t, topology.Bolt{ID: "hot", When: expr("x > 100"), Severity: "major"}))
	seed(t, h.Store, "a", old2)
	h.Restart()
	out := h.Feed(reading("a", 9, `{"x":1}`))
	const want = `"version":2,"state":"cleared","raised_at":5,"cleared_at":9,"raise_value":7,"clear_value":1,` +
		`"history":[{"what":"raise","at":5,"severity":"major"},{"what":"clear","at":9,"severity":"major"}]}}`
	if len(out) != 1 || !strings.Contains(string(out[0].Payload), want) {
		t.Error(payloads(out))
	}
}

// seed stores a record as it is.
func seed(t *testing.T, store *state.Memory, group string, raw []byte) {
	t.Helper()
	task := state.Task{Topology: "test", Node: "node"}
	epoch, err := store.Claim(t.Context(), task)
	if err == nil {
		err = store.Commit(t.Context(), task, epoch, &state.Batch{Set: []state.Entry{{Key: stateKey + "hot-" + group, Value: raw}}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	r := record{Episode{
		Number: 1, Version: 2, RaisedAt: 5, Tracks: []Track{{Held: true, Streak: 3, Since: 2}, {}}, Known: true, Silent: true, Noticed: 9, Severity: "major", Recent: []int64{5, 9},
		History: []Happening{{What: Raised, At: 5, Severity: "major", By: "ann", Note: "seen"}}, RaiseValue: []byte("7"), ClearValue: []byte{},
	}, watch{heard: 70, armed: true, begun: 60, waiting: true}, []byte(`{"x":1}`)}
	raw, _ := r.Append(nil)
	f.Add(raw)
	f.Add(old2)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decode(b)
		if err != nil || b == nil {
			return
		}
		once, _ := v.Append(nil)
		again, err := decode(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, _ := again.Append(nil); string(once) != string(twice) {
			t.Fatalf("%x, then %x", once, twice)
		}
	})
}

// data holds readings of real machines, and the events that the rules below must find in them.
const data = "../../../examples/machine-health/data"

func TestRealReadings(t *testing.T) {
	for _, tt := range []struct {
		file, field     string
		rules           map[string]topology.Bolt
		raises, clears  map[string]int
		known, readings int
	}{
		{
			file: "machine_temperature", field: "temperature",
			rules: map[string]topology.Bolt{
				"high": {When: expr("temperature > 100")}, "high3": {When: expr("temperature > 100"), RaiseAfter: 3, ClearAfter: 3},
				"low": {When: expr("temperature < 60")}, "low3": {When: expr("temperature < 60"), RaiseAfter: 3, ClearAfter: 3},
			},
			raises: map[string]int{"high": 239, "high3": 37, "low": 53, "low3": 16}, clears: map[string]int{"high": 239, "high3": 37, "low": 53, "low3": 16},
			readings: 22_695,
		},
		{
			file: "ec2_cpu", field: "cpu",
			rules: map[string]topology.Bolt{
				"cpu2": {When: expr("cpu > 2")}, "cpu50": {When: expr("cpu > 50")}, "cpu90_3": {When: expr("cpu > 90"), RaiseAfter: 3, ClearAfter: 3},
			},
			raises: map[string]int{"cpu50": 449, "cpu90_3": 78}, clears: map[string]int{"cpu50": 447, "cpu90_3": 76},
			readings: 32_256,
		},
	} {
		t.Run(tt.file, func(t *testing.T) {
			rows := table(t, tt.file+".csv")
			if len(rows) != tt.readings {
				t.Fatalf("%d readings, want %d", len(rows), tt.readings)
			}
			want := map[string][]string{}
			for _, row := range table(t, tt.file+".alarms.csv") { // ts,device,rule,event,value
				row[4] = strings.TrimSuffix(row[4], ".0")
				want[row[2]] = append(want[row[2]], strings.Join(row, ","))
			}
			for name, spec := range tt.rules {
				got := events(t, name, spec, tt.field, rows)
				slices.SortStableFunc(got, byDeviceName) // the order is fixed per device only
				slices.SortStableFunc(want[name], byDeviceName)
				if expected := want[name]; !slices.Equal(got, expected) {
					t.Errorf("%s: %d events, want %d; the first to differ: %s", name, len(got), len(expected), difference(got, expected))
				}
				if n := count(got, ",raise,"); tt.raises[name] != 0 && n != tt.raises[name] {
					t.Errorf("%s: %d raises, want %d", name, n, tt.raises[name])
				}
				if n := count(got, ",clear,"); tt.clears[name] != 0 && n != tt.clears[name] {
					t.Errorf("%s: %d clears, want %d", name, n, tt.clears[name])
				}
				delete(want, name)
			}
			for name := range want {
				t.Errorf("no rule %s", name)
			}
		})
	}
}

func byDeviceName(a, b string) int {
	return strings.Compare(strings.Split(a, ",")[1], strings.Split(b, ",")[1])
}

func difference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return got[i] + ", want " + want[i]
		}
	}
	return "the last"
}

func count(lines []string, part string) (n int) {
	for _, l := range lines {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}

// table reads a CSV file without its header.
func table(t *testing.T, name string) [][]string {
	t.Helper()
	f, err := os.Open(filepath.Join(data, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

// events runs a rule over rows of device,ts,value and writes what it emits as rows of ts,device,rule,event,value.
func events(t *testing.T, name string, spec topology.Bolt, field string, rows [][]string) (lines []string) {
	t.Helper()
	spec.ID = name
	h := bolttest.New(t, open(t, spec))
	episodes := map[string]int64{}
	var batch []tuple.Tuple
	flush := func() {
		for _, o := range h.Feed(batch...) {
			var e struct {
				Ts                   int64
				Device, Alarm, Event string
				Value                float64
				Episode              struct{ Number, Version int64 }
			}
			if err := json.Unmarshal(o.Payload, &e); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%d,%s,%s,%s,%s", e.Ts, e.Device, e.Alarm, e.Event, strconv.FormatFloat(e.Value, 'g', -1, 64)))
			if e.Event == "raise" {
				episodes[e.Device]++
			}
			if e.Episode.Number != episodes[e.Device] || e.Event == "raise" != (e.Episode.Version == 1) {
				t.Fatalf("%s: episode %+v, want number %d", lines[len(lines)-1], e.Episode, episodes[e.Device])
			}
		}
		h.Floor += int64(len(batch))
		batch = batch[:0]
	}
	for _, row := range rows {
		ts, err := strconv.ParseInt(row[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		payload := fmt.Sprintf(`{"device":%q,"ts":%s}`, row[0], row[1])
		if row[2] != "" {
			payload = fmt.Sprintf(`{"device":%q,"ts":%s,%q:%s}`, row[0], row[1], field, row[2])
		}
		if batch = append(batch, reading(row[0], ts, payload)); len(batch) == 256 {
			flush()
		}
	}
	if len(batch) > 0 {
		flush()
	}
	return lines
}

func BenchmarkExecute(b *testing.B) {
	r := open(b, topology.Bolt{ID: "hot", When: expr("temperature > 100")})
	t := reading("m1", 5, `{"device":"m1","ts":1386018900000,"temperature":73.96732207}`)
	b.ReportAllocs()
	for b.Loop() {
		r.doc.Reset(t.Payload)
		r.env.Doc = &r.doc
		if speaks, err := r.speaks(&r.levels[0], &t, false); speaks || err != nil {
			b.Fatal(speaks, err)
		}
	}
}
