// Package archivetest is the conformance suite of archive.Store: what the tools and the cache rely on.
// The memory store and every adapter run it in their tests. It never looks behind the interface.
package archivetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/boltmesh/boltmesh/pkg/archive"
)

// Traits are what stores may differ in.
type Traits struct {
	Racy bool // the server looks and writes in two steps, so that of two writers at the same moment both may win (FerretDB; MongoDB does not)
}

// Run checks one implementation. open returns an empty store and ends it with t.
func Run(t *testing.T, traits Traits, open func(t *testing.T) archive.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, archive.Store)
	}{
		{"nothing there", testNothing},
		{"write and read", testWriteRead},
		{"versions", testVersions},
		{"concurrent replacing", func(t *testing.T, s archive.Store) { testConcurrent(t, s, traits) }},
		{"values", testValues},
		{"devices of all kinds", testDevices},
		{"delete", testDelete},
		{"list", testList},
		{"many", testMany},
		{"refusals", testRefusals},
		{"ended context", testEnded},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

var ctx = context.Background()

// profile makes a profile that is right.
func profile(t *testing.T, device, fields string) archive.Profile {
	t.Helper()
	p, err := archive.New(device, []byte(fields))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t *testing.T, s archive.Store, name string, profiles ...archive.Profile) {
	t.Helper()
	if err := s.Write(ctx, name, profiles); err != nil {
		t.Fatal(err)
	}
}

// read shows what the store says of devices: device, version and fields with sorted names, "-" for an unknown one.
func read(t *testing.T, s archive.Store, name string, devices ...string) (out []string) {
	t.Helper()
	got, err := s.Read(ctx, name, devices)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range got {
		if p == nil {
			out = append(out, "-")
			continue
		}
		if p.Device != devices[i] {
			t.Errorf("asked for %q, got %q", devices[i], p.Device)
		}
		out = append(out, show(t, p))
	}
	return out
}

func show(t *testing.T, p *archive.Profile) string {
	t.Helper()
	if err := p.Check(); err != nil {
		t.Errorf("what the store returns cannot be stored: %v", err)
	}
	fields, err := p.Decode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(p.Device, " ", p.Version, " ", string(b))
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func testNothing(t *testing.T, s archive.Store) {
	expect(t, read(t, s, "machines", "a", "b"), "-", "-")
	expect(t, read(t, s, "machines"))
	list, err := s.List(ctx, "machines", "", "", 10)
	if err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if n, err := s.Delete(ctx, "machines", []string{"a"}); n != 0 || err != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
	write(t, s, "machines")
}

func testWriteRead(t *testing.T, s archive.Store) {
	write(t, s, "machines", profile(t, "a", `{"site": "north", "limit": 4}`), profile(t, "b", `{}`))
	write(t, s, "others", profile(t, "a", `{"site":"elsewhere"}`))
	expect(t, read(t, s, "machines", "b", "x", "a", "a"), "b 1 {}", "-", `a 1 {"limit":4,"site":"north"}`, `a 1 {"limit":4,"site":"north"}`)
	expect(t, read(t, s, "others", "a", "b"), `a 1 {"site":"elsewhere"}`, "-")
	write(t, s, "machines", profile(t, "a", `{"limit":5}`), profile(t, "c", `{"x":1}`))
	expect(t, read(t, s, "machines", "a", "c"), `a 2 {"limit":5}`, `c 1 {"x":1}`)
}

func testVersions(t *testing.T, s archive.Store) {
	p := profile(t, "a", `{"n":1}`)
	v, err := s.Replace(ctx, "machines", p)
	if err != nil || v != 1 {
		t.Fatal(v, err)
	}
	if _, err := s.Replace(ctx, "machines", p); !errors.Is(err, archive.ErrConflict) {
		t.Errorf("replaced what was to be new: %v", err)
	}
	q := profile(t, "a", `{"n":2}`)
	q.Version = 1
	if v, err = s.Replace(ctx, "machines", q); err != nil || v != 2 {
		t.Errorf("version %d, %v", v, err)
	}
	for _, stale := range []int64{1, 3} {
		q.Version = stale
		if _, err := s.Replace(ctx, "machines", q); !errors.Is(err, archive.ErrConflict) {
			t.Errorf("replaced version 2 as if it were %d: %v", stale, err)
		}
	}
	other := profile(t, "b", `{}`)
	other.Version = 1
	if _, err := s.Replace(ctx, "machines", other); !errors.Is(err, archive.ErrConflict) {
		t.Errorf("replaced what is not there: %v", err)
	}
	write(t, s, "machines", p) // whatever its version says
	expect(t, read(t, s, "machines", "a", "b"), `a 3 {"n":1}`, "-")
	if _, err := s.Delete(ctx, "machines", []string{"a"}); err != nil {
		t.Fatal(err)
	}
	write(t, s, "machines", p)
	expect(t, read(t, s, "machines", "a"), `a 1 {"n":1}`)
}

// testConcurrent counts in one profile from several writers: each increment is made once.
func testConcurrent(t *testing.T, s archive.Store, traits Traits) {
	writers, each := 4, 10
	if traits.Racy {
		writers = 1
	}
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				for {
					got, err := s.Read(ctx, "machines", []string{"a"})
					if err != nil {
						t.Error(err)
						return
					}
					next, n := archive.Profile{Device: "a"}, 0.0
					if got[0] != nil {
						fields, err := got[0].Decode()
						if err != nil {
							t.Error(err)
							return
						}
						n, next.Version = fields["n"].(float64), got[0].Version
					}
					next.Fields = fmt.Appendf(nil, `{"n":%d}`, int(n)+1)
					if _, err = s.Replace(ctx, "machines", next); err == nil {
						break
					}
					if !errors.Is(err, archive.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	expect(t, read(t, s, "machines", "a"), fmt.Sprintf(`a %d {"n":%d}`, writers*each, writers*each))
}

func testValues(t *testing.T, s archive.Store) {
	const fields = `{"bool":true,"deep":{"list":[{"x":1},"b",null],"time":"2026-11-21T10:32:52Z"},"float":2.5,"int":9007199254740992,"neg":-7,"null":null,"text":"a \"quoted\" <ü> \\","time":"2026-11-21T10:32:52.123456+01:00","tiny":1e-300,"whole":2.0}`
	write(t, s, "machines", profile(t, "a", fields))
	got, err := s.Read(ctx, "machines", []string{"a"})
	if err != nil || got[0] == nil {
		t.Fatal(got, err)
	}
	var want, have any
	if err := json.Unmarshal([]byte(fields), &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got[0].Fields, &have); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	big := profile(t, "big", `{"text":"`+strings.Repeat("x", archive.MaxFields-11)+`"}`)
	write(t, s, "machines", big)
	if got, err = s.Read(ctx, "machines", []string{"big"}); err != nil || got[0] == nil || len(got[0].Fields) != archive.MaxFields {
		t.Errorf("the largest profile: %v", err)
	}
}

func testDevices(t *testing.T, s archive.Store) {
	devices := []string{"a", "A", "a ", "ä", "a.b", "$a", "0", "7", "a'b\"c\\", "%", "_", "*", "机器", strings.Repeat("x", archive.MaxDevice)}
	var all []archive.Profile
	var want []string
	for i, d := range devices {
		all = append(all, profile(t, d, fmt.Sprintf(`{"i":%d}`, i)))
		want = append(want, fmt.Sprintf(`%s 1 {"i":%d}`, d, i))
	}
	write(t, s, "machines", all...)
	expect(t, read(t, s, "machines", devices...), want...)
}

func testDelete(t *testing.T, s archive.Store) {
	write(t, s, "machines", profile(t, "a", `{}`), profile(t, "b", `{}`), profile(t, "c", `{}`))
	write(t, s, "others", profile(t, "a", `{}`))
	if n, err := s.Delete(ctx, "machines", []string{"a", "x", "c"}); n != 2 || err != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
	expect(t, read(t, s, "machines", "a", "b", "c"), "-", "b 1 {}", "-")
	expect(t, read(t, s, "others", "a"), "a 1 {}")
}

func testList(t *testing.T, s archive.Store) {
	var all []archive.Profile
	for _, d := range []string{"m2", "M1", "m1", "m10", "mä", "n", "m%", "m_", "m"} {
		all = append(all, profile(t, d, `{}`))
	}
	write(t, s, "machines", all...)
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"", "", 100, "M1 m m% m1 m10 m2 m_ mä n"},
		{"m", "", 100, "m m% m1 m10 m2 m_ mä"},
		{"m1", "", 100, "m1 m10"},
		{"m%", "", 100, "m%"},
		{"m", "m1", 2, "m10 m2"},
		{"m", "m3", 100, "m_ mä"},
		{"m", "A", 1, "m"},
		{"", "m2", 2, "m_ mä"},
		{"x", "", 100, ""},
		{"m", "n", 100, ""},
	} {
		got, err := s.List(ctx, "machines", c.prefix, c.after, c.limit)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range got {
			names = append(names, p.Device)
		}
		if s := strings.Join(names, " "); s != c.want {
			t.Errorf("prefix %q after %q limit %d: %q, want %q", c.prefix, c.after, c.limit, s, c.want)
		}
	}
}

func testMany(t *testing.T, s archive.Store) {
	const n = 3000
	devices, all := make([]string, n), make([]archive.Profile, n)
	for i := range n {
		devices[i] = fmt.Sprintf("device-%04d", i)
		all[i] = profile(t, devices[i], fmt.Sprintf(`{"i":%d}`, i))
	}
	write(t, s, "machines", all...)
	got, err := s.Read(ctx, "machines", devices)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range got {
		if p == nil || string(p.Fields) != fmt.Sprintf(`{"i":%d}`, i) {
			t.Fatalf("%s: %+v", devices[i], p)
		}
	}
	listed, after := 0, ""
	for {
		page, err := s.List(ctx, "machines", "", after, 700)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		listed, after = listed+len(page), page[len(page)-1].Device
	}
	if listed != n {
		t.Errorf("%d listed, want %d", listed, n)
	}
}

func testRefusals(t *testing.T, s archive.Store) {
	good := profile(t, "a", `{}`)
	for what, c := range map[string]struct {
		archive  string
		profiles []archive.Profile
	}{
		"no archive":        {"", []archive.Profile{good}},
		"a hyphen":          {"a-b", []archive.Profile{good}},
		"no device":         {"machines", []archive.Profile{{Fields: []byte(`{}`)}}},
		"no object":         {"machines", []archive.Profile{{Device: "b", Fields: []byte(`[]`)}}},
		"a dollar":          {"machines", []archive.Profile{{Device: "b", Fields: []byte(`{"$a":1}`)}}},
		"a device twice":    {"machines", []archive.Profile{good, good}},
		"one bad among two": {"machines", []archive.Profile{good, {Device: "b", Fields: []byte(`x`)}}},
	} {
		if err := s.Write(ctx, c.archive, c.profiles); err == nil {
			t.Errorf("%s: written", what)
		}
		if _, err := s.Replace(ctx, c.archive, c.profiles[len(c.profiles)-1]); err == nil && what != "a device twice" {
			t.Errorf("%s: replaced", what)
		}
	}
	if _, err := s.Delete(ctx, "machines", []string{"a"}); err != nil {
		t.Error(err)
	}
	expect(t, read(t, s, "machines", "a", "b"), "-", "-")
}

func testEnded(t *testing.T, s archive.Store) {
	ended, end := context.WithCancel(ctx)
	end()
	if _, err := s.Read(ended, "machines", []string{"a"}); err == nil {
		t.Error("read after the end")
	}
	if err := s.Write(ended, "machines", []archive.Profile{profile(t, "a", `{}`)}); err == nil {
		t.Error("wrote after the end")
	}
}
