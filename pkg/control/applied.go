// Package control answers operators: it applies, lists, pauses and deletes topologies, and says who runs what and how far everything is. The CLI and
// `boltmesh dev` call it; services read the topologies that it writes. It never touches a tuple.
package control

import (
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Applied is a topology as it stands in the bucket: what every service plans from.
type Applied struct {
	Revision uint32 `json:"revision"`
	Paused   bool   `json:"paused"` // spouts emit nothing new
	// Rested: the pause began with nothing under way, so nothing above the floors has left a trace downstream; a spout that starts emits nothing.
	Rested bool `json:"rested,omitempty"`
	// Closed: everything was found at rest, and is looked at once more before the change is made. Whoever comes to own a partition or a log now waits.
	Closed bool `json:"closed,omitempty"`
	// Change names the change that has paused the topology and will resume it; "" when somebody has, or it is not paused. One that was interrupted leaves its
	// name behind: the next change ends the pause as if it were its own.
	Change    string            `json:"change,omitempty"`
	AppliedAt int64             `json:"applied_at"` // ms
	Topology  topology.Document `json:"topology"`
	Nodes     []Node            `json:"nodes,omitempty"` // the plan of Topology, for services in other languages; those in Go plan by themselves
}

// held reports whether somebody has paused the topology, to whom it is left to resume it.
func (a *Applied) held() bool { return a.Paused && a.Change == "" }

// Plan parses and plans the topology, exactly as it was validated when it was applied.
func (a *Applied) Plan() (*topology.Plan, error) {
	t, problems := a.Topology.Parse(nil)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return t.Plan()
}

// FlushSubject is where the owner of a topology's tick log takes requests to flush; it answers "flushed" when every open window has been emitted and
// processed, level by level.
func FlushSubject(topology string) string { return "bmctl." + topology + ".flush" }

// ReplaySubject is where the owner of a topology's replay log takes requests to replay dead letters: a ReplayRequest, answered by a ReplayAnswer.
func ReplaySubject(topology string) string { return "bmctl." + topology + ".replay" }
