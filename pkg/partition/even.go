package partition

import "slices"

// worthwhile is by which part of the mean load of a worker an exchange must lower the greater of two loads.
const worthwhile = 0.05

// Even evens out what the workers have to do: from the division that Assign gives it goes on exchanging tasks between the worker with most load and
// another, or moving one where their numbers allow it, as long as that is worth the silence. loads is the load of each task, in any unit. The numbers of
// tasks differ by one at most afterwards, as before. It returns nil when there are no workers.
func Even(node string, owners, workers []string, loads []float64) []string {
	out := Assign(node, owners, workers)
	if out == nil {
		return nil
	}
	e := &evening{node: node, out: out, loads: loads, load: map[string]float64{}, has: map[string]int{}}
	e.workers = slices.Compact(slices.Sorted(slices.Values(workers)))
	for task, w := range out {
		e.load[w] += loads[task]
		e.has[w]++
		e.gain += loads[task] / float64(len(e.workers)) * worthwhile
	}
	for range 4 * len(out) { // each step lowers the greatest load, or how many have it: this only bounds rounding
		if !e.step() {
			break
		}
	}
	return out
}

type evening struct {
	node    string
	out     []string
	workers []string
	loads   []float64
	load    map[string]float64 // by worker
	has     map[string]int
	gain    float64 // the least that an exchange must gain
}

// step makes the best exchange of the worker with most load.
func (e *evening) step() bool {
	top := slices.MaxFunc(e.workers, func(a, b string) int {
		switch {
		case e.load[a] < e.load[b]:
			return -1
		case e.load[a] > e.load[b]:
			return 1
		}
		return 0
	})
	least := e.load[top] - e.gain // the greater of both loads after the best exchange
	give, take, to := -1, -1, ""
	try := func(t, u int, w string) {
		d := e.loads[t]
		if u >= 0 {
			d -= e.loads[u]
		}
		if after := max(e.load[top]-d, e.load[w]+d); after < least {
			least, give, take, to = after, t, u, w
		}
	}
	for t, owner := range e.out {
		if owner != top {
			continue
		}
		for u, w := range e.out {
			if w != top {
				try(t, u, w)
			}
		}
		for _, w := range e.workers {
			if e.has[w] < e.has[top] {
				try(t, -1, w)
			}
		}
	}
	if give < 0 {
		return false
	}
	e.move(give, to)
	if take >= 0 {
		e.move(take, top)
	}
	return true
}

func (e *evening) move(task int, to string) {
	from := e.out[task]
	e.load[from] -= e.loads[task]
	e.load[to] += e.loads[task]
	e.has[from]--
	e.has[to]++
	e.out[task] = to
}
