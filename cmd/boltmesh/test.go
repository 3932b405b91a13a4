package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/rehearse/casefile"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/services"
)

func newTest(c *cli) *cobra.Command {
	var only string
	var update, verbose bool
	cmd := &cobra.Command{
		Use:   "test [PATH...]",
		Short: "Run the unit tests of topologies",
		Long: `Runs files of cases that stand beside topologies: topology.test.yaml tests topology.yaml. A case says what is given (readings, device profiles, state,
time that passes) and what is expected (tuples, documents, alarms, state, errors). It runs on the real engine in memory, in milliseconds; nothing is
connected to. A PATH is such a file, a topology beside one, or a directory to search; without any, this one. docs/testing.md describes the files.

Exits with 1 when a case failed, with 2 when a file cannot be understood.`,
		Example: `  boltmesh test
  boltmesh test examples/machine-health --run 'three in a row' -v
  boltmesh test --update topology.test.yaml    # writes what came into the file; read the difference`,
		RunE: func(cmd *cobra.Command, paths []string) error {
			pattern, err := regexp.Compile(only)
			if err != nil {
				return usageError{fmt.Errorf("--run: %w", err)}
			}
			files, err := caseFiles(paths)
			if err != nil {
				return usageError{err}
			}
			t := tests{cli: c, out: cmd.OutOrStdout(), only: pattern, update: update, verbose: verbose}
			return t.run(cmd.Context(), files)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&only, "run", "", "run only cases whose names match this regular expression")
	fs.BoolVar(&update, "update", false, "write what came into the files, in the place of what was expected")
	fs.BoolVarP(&verbose, "verbose", "v", false, "name the cases that pass too, with the time that they took")
	return cmd
}

// caseFiles finds the files of cases that paths stand for.
func caseFiles(paths []string) (files []string, err error) {
	if len(paths) == 0 {
		paths = []string{"."}
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return nil, err
		case !info.IsDir() && strings.HasSuffix(path, casefile.Suffix):
			files = append(files, path)
		case !info.IsDir():
			beside := strings.TrimSuffix(path, filepath.Ext(path)) + casefile.Suffix
			if _, err := os.Stat(beside); err != nil {
				return nil, fmt.Errorf("%s has no tests: write some in %s", path, beside)
			}
			files = append(files, beside)
		default:
			found, err := casesBelow(path)
			if err != nil {
				return nil, err
			}
			if len(found) == 0 {
				return nil, fmt.Errorf("no file below %s ends in %s", path, casefile.Suffix)
			}
			files = append(files, found...)
		}
	}
	return files, nil
}

func casesBelow(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, casefile.Suffix):
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

// builtin builds the bolts of boltmesh's own services.
func builtin() map[string]service.Build {
	return map[string]service.Build{
		topology.KindConvert: services.Convert, topology.KindStat: services.Stat, topology.KindAlarm: services.Alarm, topology.KindOutput: services.Output,
	}
}

// tests are one run of `boltmesh test`.
type tests struct {
	*cli
	out             io.Writer
	only            *regexp.Regexp
	update, verbose bool
}

func (t *tests) run(ctx context.Context, files []string) error {
	reports := []*casefile.Report{}
	passed, failed := 0, 0
	for _, file := range files {
		r, err := casefile.Check(ctx, file, builtin(), t.only)
		if err != nil {
			return usageError{err}
		}
		reports = append(reports, r)
		failed += r.Failed()
		passed += len(r.Results) - r.Failed()
		if t.update && r.Failed() > 0 {
			if err := r.Update(); err != nil {
				return usageError{err}
			}
		}
	}
	err := t.print(t.out, reports, func(*tabwriter.Writer) { t.tell(reports, passed, failed) })
	switch {
	case err != nil:
		return err
	case passed+failed == 0:
		return usageError{errors.New("no case has such a name")}
	case failed > 0 && !t.update:
		return errSaid
	}
	return nil
}

func (t *tests) tell(reports []*casefile.Report, passed, failed int) {
	var wrong []string
	for _, r := range reports {
		if r.Failed() > 0 {
			wrong = append(wrong, r.File)
		}
		if !t.update || t.verbose {
			r.Write(t.out, t.verbose)
		}
	}
	switch {
	case failed == 0:
		fmt.Fprintf(t.out, "%s passed in %s\n", plural(passed, "case"), plural(len(reports), "file"))
	case t.update:
		fmt.Fprintf(t.out, "wrote what came into %s: read the difference, and run it again\n", strings.Join(wrong, ", "))
	default:
		fmt.Fprintf(t.out, "\n%d failed, %d passed. If what came is right, write it into the file:\n  boltmesh test --update %s\n", failed, passed, strings.Join(wrong, " "))
	}
}
