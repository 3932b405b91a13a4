package casefile

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Report is what came of one file.
type Report struct {
	File     string   `json:"file"`
	Topology string   `json:"topology"` // file
	Results  []Result `json:"cases"`

	file *File
}

// Check runs the cases of a file, on the topology that it names or that it is named after. only selects cases by name; nil: all. Variables of the
// environment count as they do when a topology is applied. The error says that a file cannot be read or understood.
func Check(ctx context.Context, path string, builds map[string]service.Build, only *regexp.Regexp) (*Report, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := Parse(path, source)
	if err != nil {
		return nil, err
	}
	r := &Report{File: path, Topology: strings.TrimSuffix(path, Suffix) + ".yaml", file: f}
	if f.Topology != "" {
		r.Topology = filepath.Join(filepath.Dir(path), f.Topology)
	}
	t, err := load(r.Topology)
	if err != nil {
		return nil, fmt.Errorf("%s: its topology: %w", path, err)
	}
	r.Results, err = f.Run(ctx, Options{Topology: t, Builds: builds, Only: only})
	return r, err
}

// load parses a topology; scripts are found beside it.
func load(path string) (*topology.Topology, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, problems := topology.Parse(path, source, topology.Options{
		Vars: os.LookupEnv,
		Script: func(name string) (string, error) {
			b, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
			return string(b), err
		},
		Checker: script.Check{},
	})
	return t, problems.Err()
}

// Failed returns how many cases failed.
func (r *Report) Failed() (n int) {
	for _, c := range r.Results {
		if len(c.Failures) > 0 {
			n++
		}
	}
	return n
}

// Update writes what came into the file: see File.Update.
func (r *Report) Update() error {
	text, err := r.file.Update()
	if err != nil {
		return err
	}
	return os.WriteFile(r.File, text, 0o600) // it exists: its mode stays
}

// Write says what failed, each with its place, and of the others their names if verbose.
func (r *Report) Write(w io.Writer, verbose bool) {
	for _, c := range r.Results {
		switch {
		case len(c.Failures) > 0:
			fmt.Fprintf(w, "FAIL  %s:%d: %s\n", r.File, c.Line, c.Name)
		case verbose:
			fmt.Fprintf(w, "ok    %s:%d: %s (%.1f ms)\n", r.File, c.Line, c.Name, c.Elapsed.Seconds()*1000)
		}
		for _, f := range c.Failures {
			f.write(w, r.File)
		}
	}
}

// most bounds how many values that were not expected are shown.
const most = 5

func (f *Failure) write(w io.Writer, file string) {
	fmt.Fprintf(w, "  %s:%d:%d: %s\n", file, f.Line, f.Column, f.What)
	line := func(what, text string) { fmt.Fprintf(w, "      %-9s %s\n", what, text) }
	if f.Expected != "" {
		line("expected:", f.Expected)
	}
	if f.Nearest != "" {
		line("nearest:", f.Nearest)
	} else if f.Expected != "" && len(f.Came) == 0 && len(f.Differs) == 0 {
		line("nearest:", "nothing came")
	}
	for i, d := range f.Differs {
		line(map[bool]string{true: "differs:"}[i == 0], d)
	}
	for i, c := range f.Came {
		if i == most {
			line("", fmt.Sprintf("and %d more", len(f.Came)-most))
			break
		}
		line(map[bool]string{true: "came:"}[i == 0], c)
	}
}
