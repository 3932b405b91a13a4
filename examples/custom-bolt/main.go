// Custom-bolt is a service of one's own: it keeps an odometer for each vehicle and says when an inspection is due. Run it as the built-in services are
// run, as often as you like (--help); topology.yaml names it by its kind. It never counts a ride twice, whatever crashes.
package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

type odometer struct {
	Km    float64 `json:"km"`
	Rides int     `json:"rides"`
}

func main() { service.Main("odometer", build) }

func build(_ context.Context, n service.Node) (bolt.Bolt, error) {
	every, _ := n.Bolt.Config["inspect_every_km"].(float64)
	if every <= 0 {
		return nil, errors.New("config: inspect_every_km must be a number greater than 0")
	}
	return &bolt.Keyed[odometer]{GroupBy: n.Group, Update: func(_ context.Context, t *tuple.Tuple, o *odometer, c *bolt.Collector) error {
		var ride struct{ Km float64 }
		if err := json.Unmarshal(t.Payload, &ride); err != nil || ride.Km <= 0 {
			return bolt.Reject(errors.New("a ride needs km, a number greater than 0"))
		}
		before := o.Km
		o.Km, o.Rides = o.Km+ride.Km, o.Rides+1
		if due := int(o.Km / every); due > int(before/every) {
			return errors.Join(c.EmitJSON(t, "due", map[string]any{"km": due * int(every)}), c.EmitJSON(t, "", o))
		}
		return c.EmitJSON(t, "", o)
	}}, nil
}
