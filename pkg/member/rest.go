package member

import "fmt"

// Rests is Log.Rests of a partition.
func (k Mark) Rests(pause uint64) bool { return stopped(k.Pause, pause) && k.Floor == k.Next }

// stopped reports whether what is said of a pause was said of the one that is asked for: a lease may be as old as its renewals are apart, and tell of an earlier one.
func stopped(said, pause uint64) bool { return said > 0 && said >= pause }

// Unrest says what keeps a topology from being at rest which was told to pause by a revision of its key: partitions and logs that emit or have something under
// way, and, of the given number of partitions and of the named logs, those that nobody reads or owns: what the last reader of one had emitted, nobody can say.
func Unrest(alive []Member, partitions int, logs []string, pause uint64) (missing []string) {
	read, owned := map[string]bool{}, map[string]bool{}
	for _, m := range alive {
		for _, k := range m.Marks {
			at := fmt.Sprint(k.Topic, "/", k.Partition)
			read[at] = true
			missing = add(missing, k.Rests(pause), stopped(k.Pause, pause), m.Worker, at, k.Next, k.Floor)
		}
		for _, l := range m.Logs {
			owned[l.Name] = true
			missing = add(missing, l.Rests(pause), stopped(l.Pause, pause), m.Worker, "the "+l.Name+" log", l.Next, l.Floor)
		}
	}
	if n := partitions - len(read); n > 0 {
		missing = append(missing, fmt.Sprintf("no spout reads %d of %d partitions", n, partitions))
	}
	for _, l := range logs {
		if !owned[l] {
			missing = append(missing, fmt.Sprintf("no spout owns the %s log", l))
		}
	}
	return missing
}

func add(missing []string, rests, stopped bool, worker, what string, next, floor int64) []string {
	switch {
	case rests:
		return missing
	case !stopped:
		return append(missing, fmt.Sprintf("worker %s has not stopped emitting %s", worker, what))
	default:
		return append(missing, fmt.Sprintf("%s was emitted up to %d and is processed up to %d", what, next, floor))
	}
}
