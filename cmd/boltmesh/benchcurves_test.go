package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCurvesAreValid(t *testing.T) {
	for _, c := range curves() {
		for i, x := range c.xs {
			if i > 0 && x <= c.xs[i-1] {
				t.Errorf("%s: %d after %d", c.name, x, c.xs[i-1])
			}
			top, err := parseBench(c.at(x).topology)
			if err != nil {
				t.Errorf("%s, %d: %v", c.name, x, err)
				continue
			}
			if _, err := top.Plan(); err != nil {
				t.Errorf("%s, %d: %v", c.name, x, err)
			}
			if hops := len(top.Bolts); c.name == "depth" && hops != x {
				t.Errorf("depth %d: %d hops", x, hops)
			}
		}
	}
}

// fixed is two curves that nobody measured: one grows slowly, one by powers of ten.
func fixed() *curvesFile {
	f := &curvesFile{}
	for _, c := range []curve{
		{name: "workers", axis: "workers that share the bolts", scenario: "transport", xs: []int{1, 2, 3, 4}},
		{name: "payload", axis: "bytes of a tuple's payload", scenario: "transport", xs: []int{64, 1024, 65536}},
	} {
		r := curveResult{Name: c.name, Axis: c.axis, Scenario: c.scenario, Date: "2026-01-02T03:04:05Z", Version: "v1.2.3", Go: "go1.26", CPUs: 2, Load: "0.10 0.20 0.30", Runs: 3}
		for i, x := range c.xs {
			grown := 1 + float64(x-c.xs[0])/40
			r.Points = append(r.Points, point{x, result{
				TuplesPerS: 123_456 / grown, Ratio: 1.2 / grown, CPU: 8 * grown, ServicesCPU: 5 * grown, BrokersCPU: 3 * grown, CPURatio: 0.9 * grown, Allocs: float64(5 + i),
			}})
		}
		f.put(r)
	}
	return f
}

func TestCurvesAreDrawn(t *testing.T) {
	dir := t.TempDir()
	if err := fixed().write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"table.md", "payload.svg", "workers.svg"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", "curves", name)
		if *update {
			if err := errors.Join(os.MkdirAll(filepath.Dir(golden), 0o755), os.WriteFile(golden, got, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not as in testdata/curves; -update writes it anew", name)
		}
		if strings.HasSuffix(name, ".svg") {
			wellFormed(t, got)
		}
	}
	again, err := readCurves(filepath.Join(dir, "curves.json"))
	if err != nil || len(again.Curves) != 2 || !bytes.Equal(again.table(), fixed().table()) {
		t.Errorf("what was written is not what is read: %v, %+v", err, again)
	}
}

func wellFormed(t *testing.T, svg []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		switch _, err := d.Token(); {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			t.Fatal(err)
		}
	}
	// Values that cannot be drawn would be seen here: NaN and Inf are words to XML.
}

func TestOnePointIsDrawn(t *testing.T) {
	for _, c := range []curveResult{{Name: "none"}, {Name: "one", Points: []point{{X: 5}}}} {
		if svg := string(c.svg()); strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s: %s", c.Name, svg)
		}
	}
}

func TestScalesHoldTheirValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(0, 1e9), 1, 10).Draw(t, "values")
		for i := range values {
			values[i] = round(values[i]) // as medians are
		}
		s := scaleOf(values, 200, 40)
		for _, v := range values {
			if p := s.at(v); math.IsNaN(p) || p < 40-1e-6 || p > 200+1e-6 {
				t.Fatalf("%v is at %v: %+v", v, p, s)
			}
		}
		if n := len(s.ticks); n < 2 || n > 12 {
			t.Fatalf("%d ticks: %+v", n, s)
		}
	})
}

func TestPutKeepsTheOrder(t *testing.T) {
	var f curvesFile
	for _, name := range []string{"workers", "devices", "payload", "devices"} {
		f.put(curveResult{Name: name, Runs: len(f.Curves)})
	}
	var names []string
	for _, c := range f.Curves {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "devices payload workers" || f.Curves[0].Runs != 3 {
		t.Errorf("%s, %+v", got, f.Curves[0])
	}
}

func TestRounded(t *testing.T) {
	for x, want := range map[float64]string{0: "0.00", 0.01234: "0.012", 0.1234: "0.12", 1.5: "1.50", 12.34: "12.3", 123.4: "123", 1234: "1,230", 63174.5: "63,200", 1e6: "1,000,000"} {
		if got := rounded(x); got != want {
			t.Errorf("%v: %s, not %s", x, got, want)
		}
	}
}

func TestCurvesUsage(t *testing.T) {
	for _, args := range [][]string{{"bench", "curves", "--curve", "nothing"}, {"bench", "curves", "--runs", "0"}, {"bench", "curves", "more"}} {
		var out, said bytes.Buffer
		if code := run(args, nil, &out, &said); code != exitUsage || said.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, said.String())
		}
	}
}
