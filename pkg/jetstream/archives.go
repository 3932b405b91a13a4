package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const archiveSubject = "bmarch."

// maxChanged is how many devices one message names: at their longest they are a quarter of what the server takes.
const maxChanged = 1000

// ArchiveChanged tells every worker that profiles of devices have changed, all of every archive if none are named. Call it after they have been
// stored. It returns once the server has the word; whoever is not connected then hears nothing, and forgets all it knows when it is again.
func (c *Conn) ArchiveChanged(ctx context.Context, archive string, devices []string) error {
	for first := true; first || len(devices) > 0; first = false {
		some := devices[:min(len(devices), maxChanged)]
		devices = devices[len(some):]
		data, err := json.Marshal(some)
		if err != nil {
			return fmt.Errorf("tell of archive %s: %w", archive, err)
		}
		if err := c.nc.Publish(archiveSubject+archive, data); err != nil {
			return fmt.Errorf("tell of archive %s: %w", archive, err)
		}
	}
	if err := c.flush(ctx); err != nil {
		return fmt.Errorf("tell of archive %s: %w", archive, err)
	}
	return nil
}

// WatchArchives calls changed for every change that is told of, and without devices for whatever may have been missed: after the connection was lost,
// or when messages came faster than they could be read. It is watching when it returns, until stop is called; a call may still be under way then.
func (c *Conn) WatchArchives(ctx context.Context, changed func(archive string, devices []string)) (stop func(), err error) {
	dropped := 0
	sub, err := c.nc.Subscribe(archiveSubject+"*", func(m *nats.Msg) {
		var devices []string
		if json.Unmarshal(m.Data, &devices) != nil {
			devices = nil // whatever it was to say
		}
		changed(strings.TrimPrefix(m.Subject, archiveSubject), devices)
		if n, err := m.Sub.Dropped(); err == nil && n != dropped {
			dropped = n
			changed("", nil)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("watch archives: %w", err)
	}
	connected := c.nc.StatusChanged(nats.CONNECTED)
	var watching sync.WaitGroup
	watching.Go(func() {
		for range connected {
			changed("", nil)
			_ = c.nc.FlushTimeout(10 * time.Second) // the server then has the subscription again; if it is lost anew, we are told again
			changed("", nil)                        // what was read in between
		}
	})
	stop = func() {
		c.nc.RemoveStatusListener(connected)
		_ = sub.Unsubscribe()
		watching.Wait()
	}
	if err := c.flush(ctx); err != nil {
		stop()
		return nil, fmt.Errorf("watch archives: %w", err)
	}
	return stop, nil
}

// flush returns once the server has read everything so far.
func (c *Conn) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.nc.FlushWithContext(ctx)
}
