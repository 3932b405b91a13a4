package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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
	preloaded               int           // readings in Kafka before a run, of the scenarios that read them

	redis, mongo string // where these are; "": SQLite instead
	pids         []int  // of the servers behind them

	traced bool    // spans are sent to a collector
	sample float64 // of this share of the tuples
}

func newBench() *cobra.Command {
	f := &benchFlags{}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: tuples a second, beside what bare JetStream does",
		Long: `Runs the services in this process and NATS and Kafka in another, with SQLite for state and documents unless --redis and --mongo name servers, and measures how many tuples go all the way through.
Before every run it publishes messages of 256 random bytes to bare JetStream, without ids and 4,096 at a time, on the same server: results are ratios to that
reference, since figures of different machines, or of a busy one, cannot be compared otherwise. What is printed are medians over the runs.

` + listScenarios() + `
CPU is that of all processes together, per tuple that is fully processed; allocations are those of the services.`,
		Example: `  boltmesh bench --quick
  boltmesh bench --scenario transport --scenario device-expr --runs 5 -o json > before.json
  boltmesh bench --compare before.json
  boltmesh bench --scenario hop --scenario local
  boltmesh bench --replicas 1,2,4
  boltmesh bench curves --out docs/curves
  boltmesh bench --scenario transport --runs 1 --profile transport.pprof`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.traced = cmd.Flags().Changed("sample")
			output, _ := cmd.Flags().GetString("output")
			return f.bench(cmd.Context(), output, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := c.Flags()
	fs.StringArrayVar(&f.scenarios, "scenario", nil, "run only this one; repeatable")
	fs.BoolVar(&f.quick, "quick", false, "one short run of each: under a minute, and rough")
	fs.IntVar(&f.runs, "runs", 3, "runs of each scenario")
	fs.StringVar(&f.old, "compare", "", "compare with results of -o json in this file")
	fs.Float64Var(&f.limit, "limit", 0, "with --compare: fail when CPU per tuple, as a ratio to the reference's, has grown by more than so many percent, also when measured twice as often")
	fs.StringVar(&f.profile, "profile", "", "write a CPU profile of the last run's services to this file, and one of the brokers to FILE.brokers")
	fs.Float64Var(&f.sample, "sample", 0, "record the spans of this share of the tuples, 0 to 1, and send them to a collector that throws them away; without it nothing is traced; in memory the spout alone is")
	fs.IntSliceVar(&f.replicas, "replicas", nil, "instead of scenarios: how throughput grows with so many replicas of a bolt, such as 1,2,4; its work is a wait")
	fs.IntSliceVar(&f.pids, "store-pid", nil, "the servers behind --redis and --mongo, when they are on this machine: their CPU counts too; Linux only")
	f.storeFlags(fs)
	c.AddCommand(newBrokers(), newApart(), newCurves())
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
	Stores    string   `json:"stores"` // of the device scenarios
}

func (f *benchFlags) bench(ctx context.Context, output string, stdout, stderr io.Writer) error {
	f.fromEnvironment()
	chosen, err := f.chosen()
	if err != nil {
		return usageError{err}
	}
	old, err := readResults(f.old)
	if err != nil {
		return usageError{fmt.Errorf("--compare: %w", err)}
	}
	f.warm, f.measure, f.compared, f.preloaded = 3*time.Second, 10*time.Second, 3*time.Second, 600_000
	if f.quick {
		f.runs, f.warm, f.measure, f.compared, f.preloaded = 1, time.Second, 2*time.Second, time.Second, 100_000
	}
	if !(f.sample >= 0 && f.sample <= 1) {
		return usageError{fmt.Errorf("--sample: %v is no share: write one such as 0.01", f.sample)}
	}
	if len(f.replicas) > 0 {
		return f.scale(ctx, output, stdout, stderr)
	}
	all := results{Date: time.Now().UTC().Format(time.RFC3339), Version: service.Version(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Load: load(), Runs: f.runs, Stores: f.stored()}
	runs := map[string][]result{}
	if err := f.runAll(ctx, chosen, runs, stderr); err != nil {
		return err
	}
	all.Scenarios = mediansOf(chosen, runs)
	if slower := all.slower(old, f.limit); len(slower) > 0 {
		fmt.Fprintf(stderr, "%s: more than %.0f %%; measured again as often, the medians of all runs count\n", strings.Join(slower, ", "), f.limit)
		again := slices.DeleteFunc(slices.Clone(chosen), func(s scenario) bool { return !slices.Contains(slower, s.name) })
		if err := f.runAll(ctx, again, runs, stderr); err != nil {
			return err
		}
		all.Scenarios = mediansOf(chosen, runs)
	}
	if err := all.print(stdout, output); err != nil || old == nil {
		return err
	}
	return all.against(old, f.limit, stderr)
}

// runAll measures each scenario as often as it is to be, adding to its runs.
func (f *benchFlags) runAll(ctx context.Context, chosen []scenario, runs map[string][]result, stderr io.Writer) error {
	for _, s := range chosen {
		for i := range f.runs {
			r, err := f.try(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Fprintf(stderr, "%s, run %d of %d: %.0f/s, reference %.0f/s, %.2f us CPU, %.2f times the reference's\n", s.name, i+1, f.runs, r.TuplesPerS, r.Reference, r.CPU, r.CPURatio)
			runs[s.name] = append(runs[s.name], r)
		}
	}
	return nil
}

func mediansOf(chosen []scenario, runs map[string][]result) (all []result) {
	for _, s := range chosen {
		all = append(all, medians(runs[s.name]))
	}
	return all
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
	fmt.Fprintln(t, "scenario\ttuples/s\tR/s\tratio\tCPU us\tservices\tbrokers\tto R's\tallocs\tp50 ms\tp99\tp99.9\tRSS MB\tCPU %\t")
	for _, r := range a.Scenarios {
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t%.1f\t\n",
			r.Name, r.TuplesPerS, r.Reference, r.Ratio, r.CPU, r.ServicesCPU, r.BrokersCPU, r.CPURatio, r.Allocs, r.P50, r.P99, r.P999, r.RSS, r.CPUPercent)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range a.Scenarios {
		r.remark(w)
	}
	_, err := fmt.Fprintf(w, "\nmedians of %s, R is bare JetStream; %s; %s, %s, %d CPUs, load %s\n", plural(a.Runs, "run"), a.Stores, a.Version, a.Go, a.CPUs, a.Load)
	return err
}

// remark prints what only some scenarios have.
func (r *result) remark(w io.Writer) {
	if r.StoreReference > 0 {
		fmt.Fprintf(w, "\n%s: bulk writes alone %.0f documents/s, ratio %.2f; stored %.0f documents/s, with statistics and alarms, ratio %.2f",
			r.Name, r.StoreReference, r.StoreRatio, r.Documents, r.DocumentRatio)
	}
	if r.Offered > 0 {
		fmt.Fprintf(w, "\n%s: device-expr came to %.0f/s, offered %.0f/s", r.Name, r.Maximum, r.Offered)
	}
	if r.KafkaP50 > 0 {
		fmt.Fprintf(w, "\n%s: from Kafka on p50 %.1f ms, p99 %.1f ms", r.Name, r.KafkaP50, r.KafkaP99)
		if r.KafkaRatio > 0 {
			fmt.Fprintf(w, ", ratio %.2f", r.KafkaRatio)
		}
	}
	if r.StoresCPU > 0 {
		fmt.Fprintf(w, "\n%s: of its CPU, %.2f us the stores' servers", r.Name, r.StoresCPU)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.RSSByService)) {
		fmt.Fprintf(w, "\n%s: %s %.0f MB", r.Name, kind, r.RSSByService[kind])
	}
	if len(r.RSSByService) > 0 || r.KafkaP50+r.StoreReference > 0 {
		fmt.Fprintln(w)
	}
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}
