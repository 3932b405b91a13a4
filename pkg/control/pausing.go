package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
)

// pausing is a topology's entry as a change has written it, which has to be at rest before the change is made.
type pausing struct {
	*Control
	name, change string // see Applied.Change
	entry        Applied
	last         uint64 // the entry's revision
	begun        uint64 // that with which the pause began
}

// waiting says how a topology is waited for.
type waiting struct {
	timeout time.Duration
	tell    func(string) // what is missing, at every look; may be nil
}

// hold writes the topology's entry as paused by a change, so that no other change that is under way can be made any more, nor that change clean up after it:
// both ask whether the entry is the one that they have written. A pause that somebody has asked for stays theirs.
func (c *Control) hold(ctx context.Context, name, change string, a *Applied, last uint64) (*pausing, error) {
	p := &pausing{Control: c, name: name, change: change, entry: *a, last: last}
	if !a.held() {
		p.entry.Paused, p.entry.Change = true, change
	}
	err := p.close(ctx, false)
	p.begun = p.last
	return p, err
}

// close writes whether those who come to own a partition or a log have to wait.
func (p *pausing) close(ctx context.Context, closed bool) error {
	entry := p.entry
	entry.Closed = closed
	last, err := p.store(ctx, p.name, &entry, p.last)
	if err != nil {
		return meanwhile(p.name, err)
	}
	p.entry, p.last = entry, last
	return nil
}

// meanwhile says what to do when somebody else has written the entry.
func meanwhile(name string, err error) error {
	if errors.Is(err, jetstream.ErrExists) {
		return fmt.Errorf("%w, or it was paused or resumed: apply it again when you have seen what was applied meanwhile (boltmesh get %s)", err, name)
	}
	return err
}

// settle waits until look finds nothing missing, closes the topology and looks once more: somebody may have come to own a partition or a log between, whose lease
// the first look did not see, and may be emitting what its predecessor had emitted. Such a one tells of itself before it emits, and then asks whether it
// is closed: so one of the two sees the other. Where the second look finds something the topology is opened again, and waited for.
func (p *pausing) settle(ctx context.Context, w waiting, look func(context.Context) (missing string, err error)) error {
	return p.until(ctx, w.timeout, func() (string, error) {
		what, err := look(ctx)
		if err == nil && what == "" && !p.entry.Closed {
			if err = p.close(ctx, true); err == nil {
				what, err = look(ctx)
			}
		}
		if err == nil && what != "" && p.entry.Closed {
			err = p.close(ctx, false)
		}
		if err == nil && what != "" && w.tell != nil {
			w.tell(what)
		}
		return what, err
	})
}

// end lets the topology go on; a pause that somebody has asked for stays, but open.
func (p *pausing) end(ctx context.Context) error {
	if !p.entry.held() {
		return p.release(ctx, p.name, p.change)
	}
	if !p.entry.Closed {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
	defer cancel()
	if err := p.close(ctx, false); !errors.Is(err, jetstream.ErrExists) { // else it is somebody else's
		return err
	}
	return nil
}

// release ends the pause of a change, if it still is that one's.
func (c *Control) release(ctx context.Context, name, change string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
	defer cancel()
	for {
		a, last, err := c.load(ctx, name)
		if err == nil {
			if a.Change != change || change == "" {
				return nil
			}
			a.Paused, a.Rested, a.Closed, a.Change = false, false, false, ""
			_, err = c.store(ctx, name, a, last)
		}
		if err == nil || !errors.Is(err, jetstream.ErrExists) && !jetstream.Passing(err) {
			return err
		}
		if wait(ctx, poll) != nil {
			return fmt.Errorf("it stays paused, boltmesh resume %s: %w", name, err)
		}
	}
}

// releaseWait bounds how long the end of a pause is tried, also after the command was interrupted.
const releaseWait = 15 * time.Second

// quiesce pauses a topology for a change and waits until every root is complete, every floor is where emission stopped, and every input is empty. A warning says
// when that is not certain. When that takes too long, or ctx ends, the pause is taken back.
func (c *Control) quiesce(ctx context.Context, name, change string, a *Applied, last uint64, w waiting) (p *pausing, warning string, err error) {
	plan, err := a.Plan()
	if err != nil {
		return nil, "", fmt.Errorf("revision %d: %w", a.Revision, err)
	}
	if p, err = c.hold(ctx, name, change, a, last); err != nil {
		return nil, "", errors.Join(err, c.release(ctx, name, change))
	}
	r := &rest{Control: c, plan: plan, logs: logsOf(plan), pause: p.begun, until: time.Now().Add(w.timeout / 2)}
	err = p.settle(ctx, w, r.missing)
	if err == nil && !r.spouts {
		r.warning = "no spout runs: " + unsure
	}
	if err == nil {
		return p, r.warning, nil
	}
	if e := p.end(ctx); e != nil {
		return nil, "", errors.Join(fmt.Errorf("%s could not be brought to rest, nothing was changed: %w", name, err), e)
	}
	return nil, "", fmt.Errorf("%s could not be brought to rest, nothing was changed, and it goes on as it was: %w", name, err)
}
