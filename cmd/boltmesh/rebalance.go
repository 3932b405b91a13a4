package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

func newRebalance(c *cli) *cobra.Command {
	var o control.RebalanceOptions
	var tasks int
	cmd := &cobra.Command{
		Use:   "rebalance TOPOLOGY [NODE]",
		Short: "Even out the load of the workers by moving tasks between them, or give a node another number of tasks",
		Long: `Workers divide the tasks of each node evenly by number, by themselves, whenever one joins or leaves; nobody has to rebalance for that. But tasks
differ: one may hold a busy device. This measures for a while how many tuples each task handles, and moves tasks between the live workers, or exchanges
them, until the loads are as even as few moves make them. No worker then has more than one task more than another. An exchange that would lower the
greater of two loads by less than a twentieth of the mean is not made.

Readings go on meanwhile: an owner finishes its batch and hands the task over, and the order of readings per key is kept. What has moved stays there
until workers join or leave.

With --tasks the node NODE gets another number of tasks, 1 to 16, so that it can use more workers, or fewer. Keys then belong to other tasks, and their state
moves with them: emission pauses, everything that is under way is processed, a worker of the node copies its state, the revision is switched, emission
resumes. What that waits for is told while it lasts. What is not at rest after --timeout is named, and the topology goes on as it was.

It can be interrupted at any point. By Ctrl-C it is taken back, up to the switch of the revision. Killed, it leaves the topology paused, before the switch with
the former number of tasks and after it with the new one: the same command again completes it, boltmesh resume lets it go on as it is. Until the switch
nobody reads the copy, and what an interrupted one has left is cleared by the next.

Write the number into the file too: the next apply of a file that says otherwise moves the state back.`,
		Example: `  boltmesh rebalance machine-health --dry-run
  boltmesh rebalance machine-health hourly --window 30s
  boltmesh rebalance machine-health hourly --tasks 12`,
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) > 1 {
				o.Node = names[1]
			}
			o.Timeout = c.timeout
			if cmd.Flags().Changed("tasks") {
				switch {
				case o.Node == "":
					return usageError{errors.New("--tasks: name the node, boltmesh rebalance TOPOLOGY NODE --tasks N")}
				case o.DryRun || cmd.Flags().Changed("window"):
					return usageError{errors.New("--tasks goes with neither --dry-run nor --window: it measures nothing")}
				case tasks < 1 || tasks > topology.MaxTasks:
					return usageError{fmt.Errorf("--tasks: %d is not between 1 and %d", tasks, topology.MaxTasks)}
				}
				return c.divide(cmd, names[0], o.Node, tasks)
			}
			if o.Window <= 0 {
				return usageError{fmt.Errorf("--window: %s is no time to measure", o.Window)}
			}
			return c.connect(cmd.Context(), func(k *control.Control) error {
				all, err := k.Rebalance(cmd.Context(), names[0], o)
				if err != nil {
					return err
				}
				if err := c.print(cmd.OutOrStdout(), all, func(t *tabwriter.Writer) { balances(t, all, o.DryRun) }); err != nil {
					return err
				}
				if n := late(all); n > 0 {
					return fmt.Errorf("%s had not moved after %s: see `boltmesh ps %s`", plural(n, "task"), c.timeout, names[0])
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&tasks, "tasks", 0, "give the node so many tasks, and move its state with its keys")
	cmd.Flags().DurationVar(&o.Window, "window", control.DefaultWindow, "how long to measure")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would move")
	return cmd
}

// divide gives a node another number of tasks and says what that took.
func (c *cli) divide(cmd *cobra.Command, name, node string, tasks int) error {
	return c.connect(cmd.Context(), func(k *control.Control) error {
		r, err := k.Divide(cmd.Context(), name, node, tasks, control.ApplyOptions{
			Timeout: c.timeout, Patience: min(c.timeout, nobodyWait), Tell: teller(cmd.ErrOrStderr(), time.Now),
		})
		if err != nil {
			return fmt.Errorf("give %s of %s %d tasks: %w", node, name, tasks, err)
		}
		if err := c.print(cmd.OutOrStdout(), r, func(t *tabwriter.Writer) { describe(t, &r) }); err != nil {
			return err
		}
		if n := len(r.Silent); n > 0 {
			return fmt.Errorf("changed, but %s after %s: see `boltmesh ps`", plural(n, "worker")+" did not report it", c.timeout)
		}
		return nil
	})
}

// Long waits are told of: the first time after firstWord, then whenever it is something else, and at least every stillWaiting.
const (
	firstWord    = 2 * time.Second
	nextWord     = time.Second
	stillWaiting = 10 * time.Second
)

// teller returns a function that writes what a command waits for, when it has waited for a while.
func teller(w io.Writer, now func() time.Time) func(what string) {
	began, told, last := now(), time.Time{}, ""
	return func(what string) {
		since := now().Sub(told)
		if now().Sub(began) < firstWord || since < nextWord || what == last && since < stillWaiting {
			return
		}
		told, last = now(), what
		fmt.Fprintf(w, "after %s waiting: %s\n", now().Sub(began).Round(time.Second), what)
	}
}

// balances writes what has moved, and what each worker has before and after.
func balances(t *tabwriter.Writer, all []control.Balance, dry bool) {
	row(t, "NODE", "WORKER", "TASKS", "TUPLES/S", "THEN", "TUPLES/S")
	for _, b := range all {
		for i, w := range b.Before {
			row(t, b.Node, w.Worker, w.Tasks, fmt.Sprintf("%.0f", w.Load), b.After[i].Tasks, fmt.Sprintf("%.0f", b.After[i].Load))
		}
	}
	_ = t.Flush() // what follows are sentences
	moves, verb := 0, "moved"
	if dry {
		verb = "would move"
	}
	for _, b := range all {
		for _, m := range b.Moves {
			moves++
			fmt.Fprintf(t, "task %d of %s %s from %s to %s, %.0f tuples/s\n", m.Task, b.Node, verb, m.From, m.To, m.Load)
		}
	}
	if moves == 0 {
		fmt.Fprintln(t, "nothing to move")
	}
}

func late(all []control.Balance) (n int) {
	for _, b := range all {
		for _, m := range b.Moves {
			if m.Late {
				n++
			}
		}
	}
	return n
}
