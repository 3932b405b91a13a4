package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/service"
)

// benchFlags are what `boltmesh bench` is told.
type benchFlags struct {
	scenarios []string
	quick     bool
	runs      int
	old       string
	limit     float64
	profile   string
	replicas  []int

	warm, measure, compared time.Duration // per run: warm-up, measurement, reference
	readings                int           // in Kafka before a run, of the scenarios that read them
}

func newBench() *cobra.Command {
	f := &benchFlags{}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: tuples a second, beside what bare JetStream does",
		Long: `Runs the services in this process and NATS and Kafka in another, with SQLite for state and documents, and measures how many tuples go all the way through.
Before every run it publishes messages of 256 bytes to bare JetStream, without ids and 4,096 at a time, on the same server: results are ratios to that
reference, since figures of different machines, or of a busy one, cannot be compared otherwise. What is printed are medians over the runs.

` + listScenarios() + `
CPU is that of all processes together, per tuple that is fully processed; allocations are those of the services.`,
		Example: `  boltmesh bench --quick
  boltmesh bench --scenario transport --scenario device-expr --runs 5 -o json > before.json
  boltmesh bench --compare before.json
  boltmesh bench --scenario hop --scenario local
  boltmesh bench --replicas 1,2,4
  boltmesh bench --scenario transport --runs 1 --profile transport.pprof`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			output, _ := cmd.Flags().GetString("output")
			return f.bench(cmd.Context(), output, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := c.Flags()
	fs.StringArrayVar(&f.scenarios, "scenario", nil, "run only this one; repeatable")
	fs.BoolVar(&f.quick, "quick", false, "one short run of each: under a minute, and rough")
	fs.IntVar(&f.runs, "runs", 3, "runs of each scenario")
	fs.StringVar(&f.old, "compare", "", "compare with results of -o json in this file")
	fs.Float64Var(&f.limit, "limit", 0, "with --compare: fail when CPU per tuple, as a ratio to the reference's, has grown by more than so many percent")
	fs.StringVar(&f.profile, "profile", "", "write a CPU profile of the last run's services to this file, and one of the brokers to FILE.brokers")
	fs.IntSliceVar(&f.replicas, "replicas", nil, "instead of scenarios: how throughput grows with so many replicas of a bolt, such as 1,2,4; its work is a wait")
	c.AddCommand(newBrokers())
	return c
}

func listScenarios() string {
	var b strings.Builder
	for _, s := range scenarios() {
		fmt.Fprintf(&b, "  %-12s %s\n", s.name, s.what)
	}
	return b.String()
}

// results is what `boltmesh bench -o json` prints.
type results struct {
	Scenarios []result `json:"scenarios"`
	Date      string   `json:"date"`
	Version   string   `json:"version"`
	Go        string   `json:"go"`
	CPUs      int      `json:"cpus"`
	Load      string   `json:"load"` // averages over 1, 5 and 15 minutes before the first run; "" where the system does not tell
	Runs      int      `json:"runs"`
}

func (f *benchFlags) bench(ctx context.Context, output string, stdout, stderr io.Writer) error {
	chosen, err := f.chosen()
	if err != nil {
		return usageError{err}
	}
	old, err := readResults(f.old)
	if err != nil {
		return usageError{fmt.Errorf("--compare: %w", err)}
	}
	f.warm, f.measure, f.compared, f.readings = 3*time.Second, 10*time.Second, 3*time.Second, 600_000
	if f.quick {
		f.runs, f.warm, f.measure, f.compared, f.readings = 1, time.Second, 2*time.Second, time.Second, 100_000
	}
	if len(f.replicas) > 0 {
		return f.scale(ctx, output, stdout, stderr)
	}
	all := results{Date: time.Now().UTC().Format(time.RFC3339), Version: service.Version(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Load: load(), Runs: f.runs}
	for _, s := range chosen {
		var runs []result
		for i := range f.runs {
			r, err := f.try(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Fprintf(stderr, "%s, run %d of %d: %.0f/s, reference %.0f/s, %.2f us CPU\n", s.name, i+1, f.runs, r.TuplesPerS, r.Reference, r.CPU)
			runs = append(runs, r)
		}
		all.Scenarios = append(all.Scenarios, medians(runs))
	}
	if err := all.print(stdout, output); err != nil {
		return err
	}
	if old == nil {
		return nil
	}
	return all.against(old, f.limit, stderr)
}

func (f *benchFlags) chosen() ([]scenario, error) {
	all := scenarios()
	if f.runs < 1 {
		return nil, fmt.Errorf("--runs: %d is no number of runs", f.runs)
	}
	if len(f.scenarios) == 0 {
		return all, nil
	}
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	for _, name := range f.scenarios {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("--scenario: there is no %q: choose from %s", name, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s scenario) bool { return !slices.Contains(f.scenarios, s.name) }), nil
}

func (a results) print(w io.Writer, format string) error {
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(a)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\ttuples/s\tR/s\tratio\tCPU us\tservices\tbrokers\tallocs\tp50 ms\tp99\tp99.9\tRSS MB\tCPU %\t")
	for _, r := range a.Scenarios {
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t%.1f\t\n",
			r.Name, r.TuplesPerS, r.Reference, r.Ratio, r.CPU, r.ServicesCPU, r.BrokersCPU, r.Allocs, r.P50, r.P99, r.P999, r.RSS, r.CPUPercent)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nmedians of %d runs, R is bare JetStream, %s, %s, %d CPUs, load %s\n", a.Runs, a.Version, a.Go, a.CPUs, a.Load)
	return err
}

func readResults(file string) (*results, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	old := &results{}
	return old, json.Unmarshal(b, old)
}

// errSlower is the answer when --limit was passed.
var errSlower = errors.New("it costs more CPU than before")

// against says what has changed since old. Ratios are compared, not figures.
func (a results) against(old *results, limit float64, w io.Writer) error {
	var slower []string
	for _, now := range a.Scenarios {
		i := slices.IndexFunc(old.Scenarios, func(r result) bool { return r.Name == now.Name })
		if i < 0 {
			fmt.Fprintf(w, "%s: not measured before\n", now.Name)
			continue
		}
		was := old.Scenarios[i]
		grown := change(was.CPURatio, now.CPURatio)
		fmt.Fprintf(w, "%s: ratio %.2f, was %.2f (%+.0f %%); CPU per tuple in the reference's %.2f, was %.2f (%+.0f %%); allocations %.1f, were %.1f\n",
			now.Name, now.Ratio, was.Ratio, change(was.Ratio, now.Ratio), now.CPURatio, was.CPURatio, grown, now.Allocs, was.Allocs)
		if limit > 0 && grown > limit {
			slower = append(slower, fmt.Sprintf("%s by %.0f %%", now.Name, grown))
		}
	}
	if len(slower) > 0 {
		return fmt.Errorf("%w: %s", errSlower, strings.Join(slower, ", "))
	}
	return nil
}

// change is in percent.
func change(was, now float64) float64 {
	if was == 0 {
		return 0
	}
	return 100 * (now/was - 1)
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}
