package archive

import (
	"context"
	"fmt"
	"iter"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Reader gives the bolt of one loop the profiles of the devices it meets, batch by batch. It is not safe for concurrent use. A nil Reader knows no
// device and rejects none.
type Reader struct {
	Cache   *Cache
	Archive string
	Reject  bool        // a reading of an unknown device is rejected; otherwise its archive is nil
	Where   trace.Where // of the events
	Sink    trace.Sink

	batch map[string]map[string]any // what the batch at hand was given, however small the cache is
	epoch uint64                    // of the cache, when batch was filled
}

// Prepare loads what a batch will ask for, in one round trip. An error is an outage.
func (r *Reader) Prepare(ctx context.Context, batch iter.Seq[*tuple.Tuple]) error {
	if r == nil {
		return nil
	}
	var devices []string
	last := ""
	for t := range batch {
		if t.Key != "" && t.Key != last {
			last = t.Key
			devices = append(devices, t.Key)
		}
	}
	r.epoch = r.Cache.epoch.Load() // before the load: a change during it makes what was loaded old
	fields, err := r.Cache.Load(ctx, r.Archive, devices)
	r.batch = fields
	r.Sink.Emit(r.Cache.report(r.Where))
	if err != nil {
		return bolt.Unavailable(fmt.Errorf("read archive %s: %w", r.Archive, err))
	}
	return nil
}

// Of returns the profile of a device, which must not be changed; nil for an unknown one, or a rejection if the topology says so. Errors are classified
// for the engine. What has changed since Prepare is seen.
func (r *Reader) Of(ctx context.Context, device string) (map[string]any, error) {
	if r == nil || device == "" {
		return nil, nil
	}
	if now := r.Cache.epoch.Load(); now != r.epoch {
		clear(r.batch)
		r.epoch = now
	}
	fields, ok := r.batch[device]
	if !ok {
		loaded, err := r.Cache.Load(ctx, r.Archive, []string{device})
		if err != nil {
			return nil, bolt.Unavailable(fmt.Errorf("read archive %s: %w", r.Archive, err))
		}
		if fields = loaded[device]; r.batch == nil {
			r.batch = loaded
		} else {
			r.batch[device] = fields
		}
	}
	if fields == nil && r.Reject {
		return nil, bolt.Reject(fmt.Errorf("the device %q is not in the archive %s: add it with boltmesh archives set or import, then replay", device, r.Archive))
	}
	return fields, nil
}
