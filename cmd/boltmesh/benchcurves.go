package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/service"
)

// curve is a scenario with one of its measures varied, all others as the scenario has them.
type curve struct {
	name     string // of its file, too
	axis     string // what is varied, with its unit
	scenario string // whose other measures it has
	xs       []int
	at       func(x int) scenario
}

// What has to be processed before a point is measured: all that a spout's four partitions have under way at most, in tuples and in bytes. Before that,
// work is done for tuples that are not complete yet, and would be charged to the few that are.
const (
	settledTuples = 80_000
	settledBytes  = 256 << 20
)

// curves lists them in the order in which they are measured.
func curves() []curve {
	opaque := func(s scenario) scenario {
		s.generate, s.topology = true, cmp.Or(s.topology, transport(4))
		s.seen = min(settledTuples, settledBytes/cmp.Or(s.payload, referenceBytes))
		return s
	}
	return []curve{
		{"devices", "devices", "device-expr", []int{100, 1000, 10_000, 100_000, 1_000_000}, func(x int) scenario {
			return scenario{topology: deviceSpout + exprBolts, preload: true, from: readings{devices: x}, seen: max(x, settledTuples)}
		}},
		{"fields", "fields of a reading", "device-expr", []int{4, 12, 30, 100}, func(x int) scenario {
			return scenario{topology: leanJob(x), preload: true, from: readings{fields: x}, seen: settledTuples}
		}},
		{"depth", "hops from the spout to the last bolt", "transport", []int{1, 2, 4, 8}, func(x int) scenario { return opaque(scenario{topology: transport(x)}) }},
		{"fanout", "tuples that the last bolt but one makes of each", "transport", []int{1, 2, 4, 8, 16}, func(x int) scenario { return opaque(scenario{copies: x}) }},
		{"payload", "bytes of a tuple's payload", "transport", []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10}, func(x int) scenario { return opaque(scenario{payload: x}) }},
		{"workers", "workers that share the bolts", "transport", []int{1, 2, 3, 4}, func(x int) scenario { return opaque(scenario{workers: x}) }},
	}
}

// curveResult is a curve measured, with where and when: each may be of another day.
type curveResult struct {
	Name     string  `json:"name"`
	Axis     string  `json:"axis"`
	Scenario string  `json:"scenario"`
	Points   []point `json:"points"`
	Date     string  `json:"date"`
	Version  string  `json:"version"`
	Go       string  `json:"go"`
	CPUs     int     `json:"cpus"`
	Load     string  `json:"load"`
	Runs     int     `json:"runs"`
	Quick    bool    `json:"quick,omitempty"`
	Stores   string  `json:"stores"`
}

// point is one of a curve, X of what is varied.
type point struct {
	X int `json:"x"`
	result
}

// curvesFile is what --out holds beside the pictures.
type curvesFile struct {
	Curves []curveResult `json:"curves"`
}

type curvesFlags struct {
	benchFlags
	only []string
	out  string
	draw bool
}

func newCurves() *cobra.Command {
	f := &curvesFlags{}
	c := &cobra.Command{
		Use:   "curves",
		Short: "Measure how cost grows with devices, fields, depth, fan-out, payload and workers",
		Long: `Measures tuples a second and CPU per tuple while one measure of a scenario is varied and all others stay, each point right after the bare JetStream
reference, and writes curves.json, table.md and a picture (SVG) for each curve. All points of a curve are measured once before any is measured again.`,
		Example: `  boltmesh bench curves --out docs/curves
  boltmesh bench curves --quick --curve depth --out /tmp/curves
  boltmesh bench curves --draw`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.curves(cmd.Context(), cmd.ErrOrStderr()) },
	}
	fs := c.Flags()
	fs.StringArrayVar(&f.only, "curve", nil, "measure only this one, and leave the others as they are in --out; repeatable")
	fs.StringVar(&f.out, "out", "docs/curves", "directory to write to")
	fs.BoolVar(&f.draw, "draw", false, "measure nothing: draw again what is in --out")
	fs.BoolVar(&f.quick, "quick", false, "one run of two seconds a point: about five minutes, rough, and without the points of 100,000 devices and more")
	fs.IntVar(&f.runs, "runs", 3, "runs of each point, of which medians are taken")
	f.storeFlags(fs)
	return c
}

func (f *curvesFlags) curves(ctx context.Context, stderr io.Writer) error {
	f.fromEnvironment()
	chosen, err := f.chosen()
	if err != nil {
		return usageError{err}
	}
	file, err := readCurves(filepath.Join(f.out, "curves.json"))
	if err != nil {
		return err
	}
	f.warm, f.measure, f.compared, f.preloaded = 2*time.Second, 5*time.Second, 2*time.Second, 300_000
	if f.quick {
		f.runs, f.warm, f.measure, f.compared, f.preloaded = 1, time.Second, 2*time.Second, time.Second, 60_000
	}
	for _, c := range chosen {
		r, err := f.measureCurve(ctx, c, stderr)
		if err != nil {
			return err
		}
		file.put(r)
		if err := file.write(f.out); err != nil { // what is measured is kept, whatever becomes of the next curve
			return err
		}
	}
	return file.write(f.out)
}

func (f *curvesFlags) chosen() ([]curve, error) {
	all := curves()
	for _, name := range f.only {
		if !slices.ContainsFunc(all, func(c curve) bool { return c.name == name }) {
			return nil, fmt.Errorf("--curve: there is no %q: choose from devices, fields, depth, fanout, payload, workers", name)
		}
	}
	switch {
	case f.runs < 1:
		return nil, fmt.Errorf("--runs: %d is no number of runs", f.runs)
	case f.draw:
		return nil, nil
	case len(f.only) == 0:
		return all, nil
	}
	return slices.DeleteFunc(all, func(c curve) bool { return !slices.Contains(f.only, c.name) }), nil
}

// measureCurve measures every point as often as it is to be, in turn, so that what else the machine does meets all of them.
func (f *curvesFlags) measureCurve(ctx context.Context, c curve, stderr io.Writer) (curveResult, error) {
	out := curveResult{
		Name: c.name, Axis: c.axis, Scenario: c.scenario, Date: time.Now().UTC().Format(time.RFC3339), Version: service.Version(), Go: runtime.Version(),
		CPUs: runtime.NumCPU(), Load: load(), Runs: f.runs, Quick: f.quick, Stores: f.stored(),
	}
	var points []scenario
	for _, x := range c.xs {
		s := c.at(x)
		s.name = fmt.Sprintf("%s-%d", c.name, x)
		if f.quick {
			if s.from.devices > f.preloaded/2 {
				continue // not all of them would be seen
			}
			if s.preload {
				s.seen = max(settledTuples/8, s.from.devices)
			}
		}
		points, out.Points = append(points, s), append(out.Points, point{X: x})
	}
	runs := map[string][]result{}
	for range f.runs {
		once := f.benchFlags
		once.runs = 1
		if err := once.runAll(ctx, points, runs, stderr); err != nil {
			return out, err
		}
	}
	for i, s := range points {
		out.Points[i].result = medians(runs[s.name])
	}
	return out, nil
}

// readCurves reads what was measured before; a file that is not there holds nothing.
func readCurves(name string) (f curvesFile, err error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return f, fmt.Errorf("read the curves measured before: %w", err)
	}
	return f, nil
}

// put replaces a curve or adds it, in the order of curves.
func (f *curvesFile) put(r curveResult) {
	f.Curves = append(slices.DeleteFunc(f.Curves, func(c curveResult) bool { return c.Name == r.Name }), r)
	at := func(name string) int {
		return slices.IndexFunc(curves(), func(c curve) bool { return c.name == name })
	}
	slices.SortFunc(f.Curves, func(a, b curveResult) int { return at(a.Name) - at(b.Name) })
}

// write writes the figures, the table and the pictures.
func (f *curvesFile) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{"curves.json": append(b, '\n'), "table.md": f.table()}
	for _, c := range f.Curves {
		files[c.Name+".svg"] = c.svg()
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
