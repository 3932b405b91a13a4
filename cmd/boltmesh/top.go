package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/boltmesh/boltmesh/pkg/control"
)

// topPeriod is how often leases are written, so that looking more often shows nothing new; topMemory is over how many looks rates are taken.
const (
	topPeriod = time.Second
	topMemory = 4
)

func newTop(c *cli) *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "top [TOPOLOGY]",
		Short: "Show live what the nodes of a topology do: rates, latency, lag, failures",
		Long: `Shows one topology, or all, and looks again every second; q quits, the arrow keys scroll. Rates are of the last three seconds. Workers say themselves, in
their leases, what they have done: nothing needs to be configured. Where the output is no terminal, or with --once or -o json, it is shown once.

The head: records that CAME into Kafka and were fully PROCESSED, a second; LAG, records that are not yet, and how long they will take; LATENCY, the mean
time from a reading's emission until everything that came of it is processed; OLDEST, for how long the oldest one under way has been; FLOOR, records below
which everything is processed.

The nodes: tuples IN and OUT a second (of the spout: records that came, and that it took); LATENCY of a frame there, waiting included; QUEUED, frames in its
input; BUSY, the part of its capacity that is used: at 100% its loops do nothing but work; FAILED, tuples that became dead letters since its workers
started. BUSY is coloured when the node's busiest task works 70% of the time, or 95%; a wide terminal shows that task. NO_COLOR=1 turns colours off.`,
		Example: `  boltmesh top
  boltmesh top machine-health
  boltmesh top machine-health --once -o json | jq '.[].nodes[] | select(.busy > 0.7) | .node'`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			name := ""
			if len(names) > 0 {
				name = names[0]
			}
			return c.connect(cmd.Context(), func(k *control.Control) error {
				if name != "" {
					if _, err := planned(cmd.Context(), k, name); err != nil {
						return err
					}
				}
				in, out, live := terminals(cmd.InOrStdin(), cmd.OutOrStdout())
				if once || c.output == "json" || !live {
					return c.topOnce(cmd.Context(), k, name, cmd.OutOrStdout())
				}
				return topLive(cmd.Context(), k, name, in, out)
			})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "show it once, measured over a second")
	return cmd
}

// terminals returns the two as files if both are terminals.
func terminals(in io.Reader, out io.Writer) (from, to *os.File, both bool) {
	from, isFile := in.(*os.File)
	to, areFiles := out.(*os.File)
	both = isFile && areFiles && term.IsTerminal(int(from.Fd())) && term.IsTerminal(int(to.Fd()))
	return from, to, both
}

// topOnce measures over a little more than a second, so that every worker has written its lease meanwhile.
func (c *cli) topOnce(ctx context.Context, k *control.Control, name string, w io.Writer) error {
	before, err := k.Glance(ctx, name)
	if err != nil {
		return err
	}
	select {
	case <-time.After(topPeriod * 3 / 2):
	case <-ctx.Done():
		return ctx.Err()
	}
	now, err := k.Glance(ctx, name)
	if err != nil {
		return err
	}
	rates := now.Since(before)
	return c.print(w, rates, func(*tabwriter.Writer) {
		for _, l := range (topView{}).lines(rates, time.Now()) {
			fmt.Fprintln(w, l)
		}
	})
}

// looked is what a look has shown.
type looked struct {
	rates []control.Rates
	err   error
}

// look looks once a period until ctx ends, on a goroutine of its own: a server that does not answer must not keep the keys from working.
func look(ctx context.Context, k *control.Control, name string, show chan<- looked) {
	var memory []*control.Glance
	tick := time.NewTicker(topPeriod)
	defer tick.Stop()
	for {
		patience, cancel := context.WithTimeout(ctx, 10*time.Second)
		g, err := k.Glance(patience, name)
		cancel()
		l := looked{err: err}
		if err == nil {
			if memory = append(memory, g); len(memory) > topMemory {
				memory = memory[1:]
			}
			l.rates = g.Since(memory[0])
		}
		select {
		case show <- l:
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// topLive shows what is looked at until somebody quits.
func topLive(ctx context.Context, k *control.Control, name string, in, out *os.File) (err error) {
	s, err := openScreen(in, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	show := make(chan looked)
	go look(ctx, k, name, show)
	resized := time.NewTicker(topPeriod / 5)
	defer resized.Stop()
	p := page{said: "looking", colour: os.Getenv("NO_COLOR") == ""}
	for {
		if err := s.draw(&p); err != nil {
			return err
		}
		select {
		case l := <-show:
			p.take(l)
		case key, more := <-s.keys:
			if !more || !p.press(key) {
				return nil
			}
		case <-resized.C:
		case <-ctx.Done():
			return nil
		}
	}
}
