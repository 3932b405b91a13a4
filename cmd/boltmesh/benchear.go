package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// alarmNode is the node of the device job whose tuples are timed.
const alarmNode = "hot"

// ear notes how old alarm tuples are when they are out: it overhears the frames that the alarm publishes to the output, so the mesh that is timed is the
// device job and no more. A bolt to which the alarm's tuples also went would be a stream more, with acknowledgements and deltas of its own.
type ear struct {
	conn  *jetstream.Conn
	heard *jetstream.Ear
	stop  context.CancelFunc
	done  chan error
	ages  histogram
	out   map[alarm]time.Time
}

// alarm is an alarm tuple, of which a device has one for a reading.
type alarm struct {
	device string
	due    int64 // of its reading, ms since 1970
}

// listen overhears a topology's alarms until close. An alarm's event time is the moment at which its reading was due; those of readings that were due before
// from do not count.
func listen(ctx context.Context, nats string, plan *topology.Plan, from time.Time) (*ear, error) {
	name := plan.Topology.Name
	conn, err := jetstream.Connect(ctx, jetstream.Options{URL: nats})
	if err != nil {
		return nil, err
	}
	heard, err := conn.Overhear(ctx, jetstream.Frames(name, topology.KindOutput))
	if err != nil {
		conn.Close()
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	e := &ear{conn: conn, heard: heard, stop: stop, done: make(chan error, 1), out: map[alarm]time.Time{}}
	go func() {
		var f tuple.Frame
		for {
			m, err := heard.Next(ctx)
			if err != nil {
				e.done <- nil // told to stop
				return
			}
			now := time.Now()
			if err := f.Decode(m.Data); err != nil {
				e.done <- fmt.Errorf("overhear an alarm: %w", err)
				return
			}
			if f.Source != alarmNode {
				continue
			}
			for i := range f.Tuples {
				t := &f.Tuples[i]
				if due := time.UnixMilli(t.Time); !due.Before(from) {
					e.ages.add(now.Sub(due))
					e.out[alarm{strings.Clone(t.Key), t.Time}] = now
				}
			}
		}
	}()
	return e, nil
}

// close stops listening and returns how old the alarms were. An error says that not every one was heard, so that those cannot stand for all.
func (e *ear) close() (*histogram, error) {
	e.stop()
	err := <-e.done
	if n := e.heard.Missed(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d frames with alarms passed unheard", n))
	}
	e.heard.Close()
	e.conn.Close()
	return &e.ages, err
}
