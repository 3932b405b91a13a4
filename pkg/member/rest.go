package member

import "fmt"

// Rests reports whether the partition emits nothing and everything emitted is processed.
func (k Mark) Rests() bool { return k.Paused && k.Floor == k.Next }

// Unrest says what keeps a topology that was told to pause from being at rest: partitions and logs that emit or have something under way, and, of the
// given number of partitions and of the named logs, those that nobody reads or owns: what the last reader of one had emitted, nobody can say.
func Unrest(alive []Member, partitions int, logs []string) (missing []string) {
	read, owned := map[string]bool{}, map[string]bool{}
	for _, m := range alive {
		for _, k := range m.Marks {
			at := fmt.Sprint(k.Topic, "/", k.Partition)
			read[at] = true
			missing = add(missing, k.Rests(), k.Paused, m.Worker, at, k.Next, k.Floor)
		}
		for _, l := range m.Logs {
			owned[l.Name] = true
			missing = add(missing, l.Rests(), l.Paused, m.Worker, "the "+l.Name+" log", l.Next, l.Floor)
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

func add(missing []string, rests, paused bool, worker, what string, next, floor int64) []string {
	switch {
	case rests:
		return missing
	case !paused:
		return append(missing, fmt.Sprintf("worker %s has not stopped emitting %s", worker, what))
	default:
		return append(missing, fmt.Sprintf("%s was emitted up to %d and is processed up to %d", what, next, floor))
	}
}
