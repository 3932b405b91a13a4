package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

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

// of returns the result of a scenario; nil when there is none.
func (a *results) of(name string) *result {
	if a == nil {
		return nil
	}
	i := slices.IndexFunc(a.Scenarios, func(r result) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &a.Scenarios[i]
}

// slower names the scenarios whose CPU per tuple, as a ratio to the reference of the same run, has grown by more than limit percent. A limit of 0 is none.
func (a results) slower(old *results, limit float64) (names []string) {
	for _, now := range a.Scenarios {
		if was := old.of(now.Name); was != nil && limit > 0 && change(was.CPURatio, now.CPURatio) > limit {
			names = append(names, now.Name)
		}
	}
	return names
}

// against says what has changed since old. Ratios are compared, not figures.
func (a results) against(old *results, limit float64, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\ttuples/s to R\twas\t\tCPU to R's\twas\t\truns from\tto\tallocs\twere\tp99 ms\twas\t")
	for _, now := range a.Scenarios {
		was := old.of(now.Name)
		if was == nil {
			fmt.Fprintf(t, "%s\t%.2f\t-\t\t%.2f\t-\t\t%.2f\t%.2f\t%.1f\t-\t%.1f\t-\t\n", now.Name, now.Ratio, now.CPURatio, now.CPURatioLow, now.CPURatioHigh, now.Allocs, now.P99)
			continue
		}
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%+.0f %%\t%.2f\t%.2f\t%+.0f %%\t%.2f\t%.2f\t%.1f\t%.1f\t%.1f\t%.1f\t\n",
			now.Name, now.Ratio, was.Ratio, change(was.Ratio, now.Ratio), now.CPURatio, was.CPURatio, change(was.CPURatio, now.CPURatio),
			now.CPURatioLow, now.CPURatioHigh, now.Allocs, was.Allocs, now.P99, was.P99)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if slower := a.slower(old, limit); len(slower) > 0 {
		return fmt.Errorf("%w: %s, by more than %.0f %%", errSlower, strings.Join(slower, ", "), limit)
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
