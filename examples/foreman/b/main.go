// Foreman-b is worker B of the foreman: it appends its name to a message and answers. The topology of the Bs has a task for each of them;
// whoever owns the task is that B. ../python/b.py does the same in Python. It keeps nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func main() { service.Main("foreman-b", build) }

func build(_ context.Context, n service.Node) (bolt.Bolt, error) {
	name := n.Worker // where workers compete
	if n.Task != tuple.Shared {
		name = fmt.Sprintf("B%d", n.Task+1)
	}
	text, _ := n.Bolt.Config["takes"].(string)
	takes, err := time.ParseDuration(text) // how long a message is worked on
	if text != "" && err != nil {
		return nil, fmt.Errorf("config: takes: %w", err)
	}
	return bolt.Func(func(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
		var m struct{ Msg string }
		if err := json.Unmarshal(t.Payload, &m); err != nil || m.Msg == "" {
			return bolt.Reject(errors.New(`a question is {"msg": "hello"}`))
		}
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return ctx.Err()
		}
		return c.EmitJSON(t, "reply", map[string]string{"worker": name, "msg": m.Msg + ",from StreamWorkerB"})
	}), nil
}
