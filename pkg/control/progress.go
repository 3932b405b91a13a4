package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
)

// Progress is how far a topology is.
type Progress struct {
	Topology   string            `json:"topology"`
	Partitions []member.Mark     `json:"partitions"` // of every spout, by topic and number; as their leases told last, so up to a second old
	Oldest     int64             `json:"oldest"`     // ms: when the oldest root that is still open was emitted; 0 when none is
	Queued     map[string]uint64 `json:"queued"`     // frames in each node's input, those being handled included
}

// Progress asks how far a topology is.
func (c *Control) Progress(ctx context.Context, name string) (Progress, error) {
	seen, err := c.members(ctx, name)
	if err != nil {
		return Progress{}, err
	}
	p := Progress{Topology: name, Partitions: []member.Mark{}}
	for _, l := range seen {
		p.Partitions = append(p.Partitions, l.Marks...)
		if l.Oldest > 0 && (p.Oldest == 0 || l.Oldest < p.Oldest) {
			p.Oldest = l.Oldest
		}
	}
	slices.SortFunc(p.Partitions, func(a, b member.Mark) int {
		if a.Topic != b.Topic {
			return strings.Compare(a.Topic, b.Topic)
		}
		return a.Partition - b.Partition
	})
	p.Queued, err = c.queued(ctx, name)
	return p, err
}

// queued returns the frames in every input.
func (c *Control) queued(ctx context.Context, name string) (map[string]uint64, error) {
	queues, err := c.conn.Queues(ctx, name)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for node, q := range queues {
		out[node] = q.Sum()
	}
	return out, nil
}

// Behind says what is still to be processed of everything before the given end offsets ("<topic>/<partition>"), and of what is in the inputs; "" when
// nothing is.
func (p *Progress) Behind(ends map[string]int64) string {
	var out []string
	for at, end := range ends {
		floor, known := int64(0), false
		for _, m := range p.Partitions {
			if fmt.Sprintf("%s/%d", m.Topic, m.Partition) == at {
				floor, known = max(floor, m.Floor), true // two owners for a moment: both floors are true
			}
		}
		switch {
		case end == 0:
		case !known:
			out = append(out, fmt.Sprintf("no spout reads %s", at))
		case floor < end:
			out = append(out, fmt.Sprintf("%s is processed up to %d of %d", at, floor, end))
		}
	}
	slices.Sort(out)
	if what := crowd(p.Queued); what != "" {
		out = append(out, what)
	}
	return strings.Join(out, ", ")
}

// crowd names the inputs that are not empty.
func crowd(queued map[string]uint64) string {
	var out []string
	for node, n := range queued {
		if n > 0 {
			out = append(out, fmt.Sprintf("%d frames wait for %s", n, node))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// AwaitIdle waits until every record before the given end offsets has been processed and nothing is in the inputs. Each look is passed to see, which may
// be nil. When ctx ends first the error says what was missing.
func (c *Control) AwaitIdle(ctx context.Context, name string, ends map[string]int64, see func(Progress)) error {
	for what := ""; ; {
		p, err := c.Progress(ctx, name)
		if err != nil {
			if what != "" {
				err = fmt.Errorf("%w: %s", err, what)
			}
			return err
		}
		if see != nil {
			see(p)
		}
		if what = p.Behind(ends); what == "" {
			return nil
		}
		if err := wait(ctx, poll); err != nil {
			return fmt.Errorf("%w: %s", err, what)
		}
	}
}

// Flush makes every open window of a topology emit, level by level, and returns when what they emitted is processed. It waits for the owner of the tick
// log as long as ctx lasts.
func (c *Control) Flush(ctx context.Context, name string) error {
	a, err := c.Get(ctx, name)
	if err != nil {
		return err
	}
	plan, err := a.Plan()
	if err != nil {
		return err
	}
	ticking := false
	for _, n := range plan.Nodes {
		ticking = ticking || n.Ticks
	}
	if !ticking {
		return nil // no node keeps anything back
	}
	for patience := 30 * time.Second; ; patience *= 2 { // an owner that dies does not answer: its successor is asked again
		answer, err := c.ask(ctx, name, patience)
		if err == nil && answer == "flushed" {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("the owner of the tick log answered %q", answer)
		}
		if e := wait(ctx, poll); e != nil {
			return fmt.Errorf("flush %s: %w (last: %w): does a spout run, and is the topology not paused?", name, e, err)
		}
	}
}

// ask sends one request, again while nobody listens.
func (c *Control) ask(ctx context.Context, name string, patience time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		answer, err := c.conn.Request(ctx, FlushSubject(name), nil)
		if err == nil {
			return string(answer), nil
		}
		if wait(ctx, poll) != nil {
			return "", err
		}
	}
}
