package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

func newValidate(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE...",
		Short: "Say what is wrong with topology files",
		Long: `Prints every problem as file:line:column: what is wrong, and what to write instead; also of the scripts and expressions that a file uses.
Warnings tell of what is allowed and yet probably not meant. Nothing is connected to. Exits with 1 if there is a problem.`,
		Example: `  boltmesh validate topology.yaml
  boltmesh validate -o json topologies/*.yaml`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error { return c.validate(cmd.OutOrStdout(), files) },
	}
}

// verdict is what validate says of one file.
type verdict struct {
	File     string    `json:"file"`
	Topology string    `json:"topology,omitempty"`
	Nodes    int       `json:"nodes,omitempty"`
	Problems []finding `json:"problems"`
	Warnings []finding `json:"warnings"`
}

type finding struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	What   string `json:"what"`
	Hint   string `json:"hint,omitempty"`
	text   string
}

func (c *cli) validate(out io.Writer, files []string) error {
	var verdicts []verdict
	failed := false
	for _, f := range files {
		v, err := examine(f)
		if err != nil {
			return err
		}
		failed = failed || len(v.Problems) > 0
		verdicts = append(verdicts, v)
	}
	err := c.print(out, verdicts, func(t *tabwriter.Writer) {
		for _, v := range verdicts {
			for _, p := range v.Problems {
				fmt.Fprintln(t, p.text)
			}
			for _, w := range v.Warnings {
				fmt.Fprintln(t, "warning: "+w.text)
			}
			if len(v.Problems) == 0 {
				fmt.Fprintf(t, "%s: topology %s is valid, %s\n", v.File, v.Topology, plural(v.Nodes, "node"))
			}
		}
	})
	if err == nil && failed {
		return errSaid
	}
	return err
}

func examine(file string) (verdict, error) {
	v := verdict{File: file, Problems: []finding{}, Warnings: []finding{}}
	t, err := readTopology(file)
	var problems topology.Problems
	switch {
	case errors.As(err, &problems):
		v.Problems = findings(problems)
		return v, nil
	case err != nil:
		return v, err
	}
	plan, err := t.Plan()
	if err != nil {
		return v, fmt.Errorf("%s: %w", file, err)
	}
	v.Topology, v.Nodes, v.Warnings = t.Name, len(plan.Nodes), findings(t.Warnings)
	return v, nil
}

func findings(ps topology.Problems) []finding {
	out := make([]finding, 0, len(ps))
	for _, p := range ps {
		out = append(out, finding{p.Place.File, p.Place.Line, p.Place.Column, p.What, p.Hint, p.String()})
	}
	return out
}
