// Foreman-a is worker A of the foreman: it appends its name to a message, hands that to every B, and answers with what they have answered.
// `boltmesh call foreman` asks it; any number of it share the questions. It keeps nothing: a question that its crash leaves behind goes to another one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

type message struct {
	Msg string `json:"msg"`
}

func main() { service.Main("foreman-a", build) }

func build(_ context.Context, n service.Node) (bolt.Bolt, error) {
	workers, _ := n.Bolt.Config["workers"].(string)
	if workers == "" {
		return nil, errors.New("config: workers must be the topology of the Bs")
	}
	return bolt.Func(func(ctx context.Context, t *tuple.Tuple, c *bolt.Collector) error {
		var m message
		if err := json.Unmarshal(t.Payload, &m); err != nil || m.Msg == "" {
			return bolt.Reject(errors.New(`a question is {"msg": "hello"}`))
		}
		a, err := n.Call(ctx, t, workers, message{m.Msg + ",from StreamWorkerA"})
		if err != nil {
			return err
		}
		all := map[string]message{} // encoded in the order of names
		for _, r := range a.Replies {
			var said struct {
				Worker string
				message
			}
			if err := json.Unmarshal(r.Payload, &said); err != nil {
				return bolt.Reject(fmt.Errorf("the answer of %s: %w", r.Node, err))
			}
			all[said.Worker] = said.message
		}
		return c.EmitJSON(t, "reply", all)
	}), nil
}
