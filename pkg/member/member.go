// Package member folds leases into a picture of who is alive and who owns what. Owner loops decide by it which tasks to claim and which to release;
// the CLI shows it. It never talks to anybody: it is given what was seen and when.
package member

import "slices"

// Member is one worker's lease on one node, as it stands in the bucket.
type Member struct {
	Topology string  `json:"topology"`
	Node     string  `json:"node"`
	Kind     string  `json:"kind"`
	Worker   string  `json:"worker"`
	Version  string  `json:"version"`
	Since    int64   `json:"since"`    // ms
	Revision uint32  `json:"revision"` // of the topology that it runs
	Leaving  bool    `json:"leaving,omitempty"`
	Tasks    []int32 `json:"tasks"`
	Owned    []Owned `json:"owned,omitempty"` // of Tasks, where each has one owner: what is known of that

	Partitions int    `json:"partitions,omitempty"` // of a spout: how many there are, whoever reads them
	Marks      []Mark `json:"marks,omitempty"`      // of a spout: how far its partitions are
	Logs       []Log  `json:"logs,omitempty"`       // of a spout: how far the topology's own logs are that it owns
	Oldest     int64  `json:"oldest,omitempty"`     // ms: emission of the oldest open root
	LastError  string `json:"last_error,omitempty"` // and when
	ErrorAt    int64  `json:"error_at,omitempty"`
	In         int64  `json:"in"`
	Out        int64  `json:"out"`
	Failed     int64  `json:"failed"`
	Frames     int64  `json:"frames,omitempty"`   // of In
	Busy       int64  `json:"busy_us,omitempty"`  // microseconds that its loops have spent executing, committing and publishing
	Roots      int64  `json:"roots,omitempty"`    // of a spout: roots that were fully processed since the worker started
	Took       int64  `json:"took_us,omitempty"`  // microseconds that these took together, each from its first emission
	Working    int    `json:"working,omitempty"`  // loops that hold frames
	Capacity   int    `json:"capacity,omitempty"` // loops that run: how many batches it may work on at a time
	Held       int64  `json:"held,omitempty"`     // ms: since when a loop has held its frames, the oldest
	At         int64  `json:"at,omitempty"`       // ms: when this was written
	Procs      int    `json:"procs,omitempty"`    // processors that the worker may use
}

// Owned is a task that a worker owns.
type Owned struct {
	Task  int32  `json:"task"`
	Epoch uint64 `json:"epoch"`             // grows with every owner; 0 while it is being taken
	Since int64  `json:"since"`             // ms
	In    int64  `json:"in"`                // tuples handled since then
	Busy  int64  `json:"busy_us,omitempty"` // as Member.Busy
}

// Mark is one partition's progress in event time.
type Mark struct {
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	Watermark int64  `json:"watermark"` // ms; math.MinInt64 before the first reading
	Floor     int64  `json:"floor"`
	Next      int64  `json:"next"`
	End       int64  `json:"end"`              // of the Kafka log
	Idle      bool   `json:"idle"`             // at the log's end for longer than the grace period
	Pause     uint64 `json:"pause,omitempty"`  // as Log.Pause
	Open      int    `json:"open"`             // roots
	Oldest    int64  `json:"oldest,omitempty"` // ms: emission of the oldest open root
}

// Log is the progress of one of the topology's own logs: ticks, replayed dead letters.
type Log struct {
	Name   string `json:"name"`
	Floor  int64  `json:"floor"` // entries below are fully processed
	Next   int64  `json:"next"`
	Length int64  `json:"length"`
	// Pause is the revision of the topology's key that said to pause: nothing is emitted beyond Next until the key has another one. 0: no pause has been noticed,
	// or something is to be emitted all the same.
	Pause uint64 `json:"pause,omitempty"`
}

// Rests reports whether the log emits nothing, since that revision of the topology's key or a later one, and everything emitted is processed.
func (l Log) Rests(pause uint64) bool { return stopped(l.Pause, pause) && l.Floor == l.Next }

// Key is the key of a worker's lease on a node. Worker names have no dots.
func Key(topology, node, worker string) string { return topology + ".member." + node + "." + worker }

// OwnKey is the key of the lease on a task, or on a log, of a node. Its value is the owner's worker name.
func OwnKey(topology, node, what string) string { return topology + ".own." + node + "." + what }

// DivisionKey is the key of a Division.
func DivisionKey(topology, node string) string { return topology + ".division." + node }

// Division says who is to have each task of a node, because somebody has asked for that. It holds as long as the same workers are there, without a restart
// between; then it is void for ever, and owners keep what they have.
type Division struct {
	Workers map[string]int64 `json:"workers"` // since when each is there, as its lease says
	Tasks   []string         `json:"tasks"`   // the worker of each
}

// Holds reports whether the division is in force.
func (d *Division) Holds(node string, tasks int, alive []Member) bool {
	there := Candidates(node, alive)
	if len(d.Tasks) != tasks || len(there) != len(d.Workers) {
		return false
	}
	for _, m := range alive {
		if since, planned := d.Workers[m.Worker]; m.Node == node && !m.Leaving && (!planned || since != m.Since) {
			return false
		}
	}
	return true
}

// Candidates lists the workers among which a node's tasks are divided: those that are alive and not leaving.
func Candidates(node string, alive []Member) (workers []string) {
	for _, m := range alive {
		if m.Node == node && !m.Leaving {
			workers = append(workers, m.Worker)
		}
	}
	return workers
}

// Watermark returns the topology's watermark: the minimum over the partitions that are not idle, or the maximum over all when every one is. It is
// never below last, and stays at last while a partition of want is reported by nobody.
func Watermark(last int64, alive []Member, want int) int64 {
	var busy, all []int64
	seen := map[Mark]bool{}
	for _, m := range alive {
		for _, k := range m.Marks {
			id := Mark{Topic: k.Topic, Partition: k.Partition}
			if seen[id] {
				continue
			}
			seen[id] = true
			all = append(all, k.Watermark)
			if !k.Idle {
				busy = append(busy, k.Watermark)
			}
		}
	}
	switch {
	case len(all) < want || len(all) == 0:
		return last
	case len(busy) > 0:
		return max(last, slices.Min(busy))
	default:
		return max(last, slices.Max(all))
	}
}
