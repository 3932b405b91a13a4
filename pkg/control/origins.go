package control

import (
	"context"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Origins are the names of a topology's origins.
type Origins map[tuple.Origin]input

// Origins learns what the origins of an applied topology stand for; a partition of a topic that is written as a variable is known when a spout reads it.
func (c *Control) Origins(ctx context.Context, name string) (Origins, error) {
	return c.origins(ctx, name)
}

// Name writes an origin as topic/partition, or as the name of one of the topology's own logs; one that is not known as hexadecimal digits.
func (o Origins) Name(origin tuple.Origin) string {
	in, known := o[origin]
	switch {
	case !known:
		return fmt.Sprintf("%016x", uint64(origin))
	case in.topic:
		return fmt.Sprintf("%s/%d", in.name, in.partition)
	}
	return in.name + "-log"
}
