package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/observe"
	"github.com/boltmesh/boltmesh/pkg/tap"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// tracing is one run of `boltmesh trace`.
type tracing struct {
	tapping
	jaeger string
	device string
	last   bool
	wait   time.Duration
	since  time.Duration

	conn  *jetstream.Conn
	k     *control.Control
	alive control.Workers
	told  told
	id    tuple.ID
	at    *tuple.Position
}

// told is what is known of a tuple.
type told struct {
	Topology string           `json:"topology"`
	Tuple    string           `json:"tuple,omitempty"`    // asked for, or found for the device
	Position string           `json:"position,omitempty"` // of the reading that it came of: topic/partition@offset
	State    control.State    `json:"state"`              // of that position
	Source   string           `json:"source"`             // jaeger, tap (frames that passed or wait), or none
	Journey  *observe.Journey `json:"journey,omitempty"`
	Holders  []trace.Holder   `json:"holders,omitempty"` // loops that work on it now, when it is under way
	Letters  []control.Letter `json:"letters,omitempty"` // dead letters of the reading
	Notes    []string         `json:"notes,omitempty"`
}

func newTrace(c *cli) *cobra.Command {
	t := &tracing{tapping: tapping{cli: c}}
	cmd := &cobra.Command{
		Use:   "trace TOPOLOGY TUPLE | trace TOPOLOGY --device DEVICE --last",
		Short: "Show the way of one tuple: each hop with its time, worker, attempts and outcome",
		Long: `Shows the tree of a reading: where its tuple and those that came of it went, when, who handled them and what became of each. TUPLE is the id of any tuple
of the tree, as tap, dlq and stored documents have it, or the reading's place, TOPIC/PARTITION@OFFSET.

With a Jaeger (--jaeger), which has what --sample-ratio of the spouts lets through, the tree is the trace's. Where there is none, or no such trace, the
tree is made of the frames that pass for --wait, or that wait in inputs, and of what is reported to the ledger: that shows what is under way. Of what is
processed only its place, and its dead letters, are then still known. --device without a Jaeger waits for the next reading of the device.`,
		Example: `  boltmesh trace machine-health 5f0c2a1be34d92417f0c6d8a52b19e03 --jaeger http://127.0.0.1:16686
  boltmesh trace machine-health readings/0@1234
  boltmesh trace machine-health --device machine-1 --last -o json | jq '.journey.hops[].below[] | {node, worker, took_us}'`,
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := t.read(given); err != nil {
				return usageError{err}
			}
			return c.dial(cmd.Context(), func(conn *jetstream.Conn) error {
				t.conn = conn
				if err := t.find(cmd.Context()); err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), t.told, func(w *tabwriter.Writer) { t.told.draw(w) })
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&t.device, "device", "", "instead of a tuple: the latest reading of this device")
	fs.BoolVar(&t.last, "last", false, "with --device: the latest one, which is what --device means anyhow")
	fs.StringVar(&t.jaeger, "jaeger", "", "where Jaeger's page and its HTTP API are (default $BOLTMESH_JAEGER)")
	fs.DurationVar(&t.since, "since", time.Hour, "how far back traces of a device, or of a tuple that is no reading's, are looked for")
	fs.DurationVar(&t.wait, "wait", 10*time.Second, "without a trace: how long to listen for what is looked for, and until it is processed")
	return cmd
}

// read takes the arguments apart.
func (t *tracing) read(given []string) (err error) {
	t.topology, t.told.Topology = given[0], given[0]
	t.jaeger = cmp.Or(t.jaeger, os.Getenv("BOLTMESH_JAEGER"))
	switch {
	case (len(given) == 2) == (t.device != ""):
		return errors.New("say which: a tuple, or --device DEVICE --last")
	case t.last && t.device == "":
		return errors.New("--last is of a --device")
	case t.wait <= 0 || t.since <= 0:
		return errors.New("--wait and --since are times above 0")
	case t.device != "":
		return nil
	}
	t.told.Tuple = strings.ToLower(given[1])
	if strings.Contains(given[1], "@") {
		t.told.Tuple, t.told.Position = "", given[1]
		_, _, err = t.place()
		return err
	}
	if t.id, err = tuple.ParseID(t.told.Tuple); err != nil {
		return fmt.Errorf("%q: %w; a reading's place is written TOPIC/PARTITION@OFFSET", given[1], err)
	}
	return nil
}

// place takes apart where a reading is said to be.
func (t *tracing) place() (log string, offset int64, err error) {
	i := strings.LastIndexByte(t.told.Position, '@')
	offset, err = strconv.ParseInt(t.told.Position[i+1:], 10, 64)
	if err != nil || offset < 0 || i == 0 {
		return "", 0, fmt.Errorf("%q is no place of a reading: write TOPIC/PARTITION@OFFSET", t.told.Position)
	}
	return t.told.Position[:i], offset, nil
}

// find learns what there is to know.
func (t *tracing) find(ctx context.Context) error {
	plan, origins, err := t.lookUp(ctx, t.conn)
	if err != nil {
		return err
	}
	if t.k, err = control.New(ctx, t.conn); err != nil {
		return err
	}
	if t.alive, err = t.k.Members(ctx, t.topology); err != nil {
		return err
	}
	if t.told.Position != "" {
		log, offset, err := t.place()
		if err != nil {
			return err
		}
		at, known := origins.Position(log, offset)
		if !known {
			return fmt.Errorf("%s reads nothing that is called %s", t.topology, log)
		}
		t.placed(origins, at)
	}
	if t.jaeger != "" {
		if err := t.askJaeger(ctx, origins); err != nil {
			return err
		}
	}
	if t.told.Journey == nil {
		if at, found := origins.Locate(t.alive, t.id); t.at == nil && found && !t.id.IsZero() {
			t.placed(origins, at)
		}
		if err := t.listen(ctx, func(q tap.Quarry) (*tap.Following, error) { return tap.Follow(ctx, t.conn, plan, q) }, origins); err != nil {
			return err
		}
	}
	return t.judge(ctx, origins)
}

// placed notes where the reading is.
func (t *tracing) placed(origins control.Origins, at tuple.Position) {
	t.at = &at
	t.told.Position = fmt.Sprint(origins.Name(at.Origin), "@", at.Offset)
	if t.told.Tuple == "" {
		t.id = tuple.RootID(at)
		t.told.Tuple = t.id.String()
	}
}

// askJaeger looks for the trace. That there is none is no error.
func (t *tracing) askJaeger(ctx context.Context, origins control.Origins) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	j := observe.Jaeger{URL: t.jaeger}
	look := observe.Look{Topology: t.topology, Device: t.device, Tuple: t.told.Tuple, Since: time.Now().Add(-t.since)}
	journey, err := (*observe.Journey)(nil), observe.ErrNoTrace
	if t.told.Tuple != "" { // a reading's trace is called as its tuple, unless its producer has named it
		journey, err = j.Trace(ctx, t.told.Tuple)
	}
	if errors.Is(err, observe.ErrNoTrace) {
		journey, err = j.Latest(ctx, look)
	}
	switch {
	case errors.Is(err, observe.ErrNoTrace):
		t.told.Notes = append(t.told.Notes, "Jaeger has no trace of it: it was not sampled, is too new or too old")
		return nil
	case err != nil:
		return err
	}
	t.told.Source, t.told.Journey = "jaeger", journey
	for _, h := range journey.Hops { // a producer's trace may have many readings
		if h.Topic == "" || t.told.Tuple != "" && !h.Has(t.told.Tuple) || t.device != "" && h.Device != t.device {
			continue
		}
		if t.told.Tuple == "" {
			t.told.Tuple = h.Tuple
		}
		if at, known := origins.Position(fmt.Sprint(h.Topic, "/", h.Task), h.Offset); known && t.at == nil {
			t.placed(origins, at)
		}
	}
	return nil
}

// listen follows the tree as far as it passes from now on, or waits in inputs.
func (t *tracing) listen(ctx context.Context, follow func(tap.Quarry) (*tap.Following, error), origins control.Origins) error {
	t.told.Source = "none"
	if t.at != nil && origins.State(t.alive, *t.at) == control.Processed {
		return nil // it passes no more
	}
	f, err := follow(tap.Quarry{ID: t.id, At: t.at, Device: t.device})
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	if t.device == "" {
		if err := f.Look(ctx, t.conn); err != nil && ctx.Err() == nil {
			return err
		}
	}
	complete := f.Wait(ctx)
	root, at, seen := f.Root()
	if n := f.Missed(); n > 0 {
		t.told.Notes = append(t.told.Notes, fmt.Sprintf("%s passed unread: parts may be missing", plural(int(n), "message")))
	}
	if !seen {
		t.told.Notes = append(t.told.Notes, fmt.Sprintf("nothing of it has passed for %s, nor waits in an input", t.wait))
		return nil
	}
	t.placed(origins, at)
	t.told.Source, t.told.Journey = "tap", f.Journey()
	t.told.Journey.Each(func(h *observe.Hop) bool {
		if h.Task == "" { // a spout's, whose task is the partition
			h.Task = origins.Name(at.Origin)
		}
		h.Worker = t.alive.Of(h.Node, h.Task)
		return true
	})
	if t.told.Journey.Trace != "" && t.jaeger != "" {
		t.told.Journey.Link = strings.TrimSuffix(t.jaeger, "/") + "/trace/" + t.told.Journey.Trace
	}
	if t.told.State = control.UnderWay; complete { // sooner than a lease tells
		t.told.State = control.Processed
		return nil
	}
	t.told.Notes = append(t.told.Notes, fmt.Sprintf("not all of it has been reported within %s", t.wait))
	t.told.Holders, err = t.k.Holders(context.WithoutCancel(ctx), t.topology, root)
	return err
}

// judge says how far the reading is, and adds what became a dead letter.
func (t *tracing) judge(ctx context.Context, origins control.Origins) (err error) {
	if t.alive, err = t.k.Members(ctx, t.topology); err != nil {
		return err
	}
	if t.told.State == "" {
		t.told.State = control.Unknown
		if t.at != nil {
			t.told.State = origins.State(t.alive, *t.at)
		}
	}
	letters, err := t.k.Letters(ctx, t.topology, control.LetterFilter{})
	if err != nil {
		return err
	}
	for _, l := range letters {
		if l.ID == t.id && !t.id.IsZero() || t.at != nil && l.Origin == t.at.Origin && l.Offset == t.at.Offset {
			t.told.Letters = append(t.told.Letters, l)
		}
	}
	if t.told.Journey != nil {
		t.told.Journey.Each(func(h *observe.Hop) bool {
			for _, l := range t.told.Letters {
				if h.Node == l.Node && h.Tuple == l.ID.String() && h.Outcome == tap.Handled {
					h.Outcome, h.Error = string(trace.DeadLettered), l.Error
				}
			}
			return true
		})
	}
	return nil
}
