package tuple

import (
	"math/bits"
	"math/rand/v2"
	"testing"
)

// TestIDs pins ids: they are stored in databases and computed by other languages.
func TestIDs(t *testing.T) {
	at := Position{OriginOf("machine-health", "readings", "readings", "0", "3"), 42}
	root := RootID(at)
	child := ChildID(root, Emitter{Node: NameOf("clean")}, NameOf(DefaultStream), 0)
	grouped := ChildID(root, Emitter{Node: NameOf("hourly"), By: ByGroup("machine-1")}, NameOf(DefaultStream), 1)
	for name, c := range map[string]struct{ got, want string }{
		"root":    {root.String(), "f2ba9fae33f25470b0ac0a9df8b96dbd"},
		"child":   {child.String(), "47c5476bc783521013aebdacde876e15"},
		"grouped": {grouped.String(), "188c8b98a7489a02b655a98fb62826b1"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", name, c.got, c.want)
		}
	}
}

func TestIDsDiffer(t *testing.T) {
	root := RootID(Position{1, 2})
	e := Emitter{Node: 3}
	seen := map[ID]string{}
	for name, id := range map[string]ID{
		"root":             root,
		"another offset":   RootID(Position{1, 3}),
		"another origin":   RootID(Position{2, 2}),
		"child":            ChildID(root, e, 4, 0),
		"another ordinal":  ChildID(root, e, 4, 1),
		"another stream":   ChildID(root, e, 5, 0),
		"another node":     ChildID(root, Emitter{Node: 4}, 4, 0),
		"by a group":       ChildID(root, Emitter{3, ByGroup("a")}, 4, 0),
		"by another group": ChildID(root, Emitter{3, ByGroup("b")}, 4, 0),
		"by a task":        ChildID(root, Emitter{3, ByTask(0)}, 4, 0),
		"by another task":  ChildID(root, Emitter{3, ByTask(1)}, 4, 0),
	} {
		if other, taken := seen[id]; taken {
			t.Errorf("%s and %s have the same id", name, other)
		}
		seen[id] = name
	}
	ledger := map[uint64]bool{}
	for task := range int32(3) {
		for gen := range uint32(3) {
			for count := range uint32(3) {
				ledger[LedgerID(root, 1, task-1, Attempt{gen, count})] = true
				ledger[LedgerID(root, 2, task-1, Attempt{gen, count})] = true
			}
		}
	}
	if len(ledger) != 54 {
		t.Errorf("%d different ledger ids of 54 deliveries", len(ledger))
	}
	if a, b := OriginOf("ab", "c"), OriginOf("a", "bc"); a == b {
		t.Error("the parts of an origin run together")
	}
	if id, err := ParseID(root.String()); err != nil || id != root {
		t.Errorf("parsed %s, %v", id, err)
	}
}

// TestIDsSpread flips each bit of what ids are made of, alone: about half of the bits of the id change, and each of them as often as not.
func TestIDsSpread(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	word := random.Uint64
	const trials = 2000
	for name, makes := range map[string]struct {
		words int
		id    func(w []uint64) ID
	}{
		"root": {2, func(w []uint64) ID { return RootID(Position{Origin(w[0]), int64(w[1])}) }},
		"child": {7, func(w []uint64) ID {
			return ChildID(idOf(w[0], w[1]), Emitter{Name(w[2]), idOf(w[3], w[4])}, Name(w[5]), uint32(w[6]))
		}},
	} {
		for i := range makes.words {
			for bit := range 64 {
				if name == "child" && i == 6 && bit >= 32 {
					continue // an ordinal has 32
				}
				var changed [128]int
				for range trials {
					w := make([]uint64, makes.words)
					for k := range w {
						w[k] = word()
					}
					a0, b0 := makes.id(w).halves()
					w[i] ^= 1 << bit
					a1, b1 := makes.id(w).halves()
					for k := range 64 {
						changed[k] += int((a0 ^ a1) >> k & 1)
						changed[64+k] += int((b0 ^ b1) >> k & 1)
					}
				}
				for k, n := range changed {
					if n < trials*4/10 || n > trials*6/10 { // nine standard deviations
						t.Fatalf("%s: bit %d of word %d changes bit %d of the id in %d of %d trials", name, bit, i, k, n, trials)
					}
				}
			}
		}
	}
}

// TestSmallNumbersSpread makes ids of what is counted up, as real positions and ordinals are: tasks go by the first 32 bits of an id and by its lowest bit, which
// must be even among few tasks, and the ids of any two must differ in about half their bits.
func TestSmallNumbersSpread(t *testing.T) {
	const n, tasks = 80000, 8
	origin := OriginOf("t", "readings", "readings", "0", "0")
	e := Emitter{Node: NameOf("clean")}
	var last ID
	roots, children := [tasks]int{}, [tasks]int{}
	distance := 0
	for i := range int64(n) {
		root := RootID(Position{origin, i})
		child := ChildID(root, e, NameOf(DefaultStream), uint32(i%3))
		lo, _ := root.halves()
		roots[uint32(lo)%tasks]++
		lo, _ = child.halves()
		children[uint32(lo)%tasks]++
		a, b := root.halves()
		x, y := last.halves()
		distance += bits.OnesCount64(a^x) + bits.OnesCount64(b^y)
		last = root
	}
	for task := range tasks {
		for _, got := range []int{roots[task], children[task]} {
			if got < n/tasks*95/100 || got > n/tasks*105/100 {
				t.Errorf("task %d has %d of %d", task, got, n)
			}
		}
	}
	if mean := float64(distance) / n; mean < 63.5 || mean > 64.5 {
		t.Errorf("neighbours differ in %.2f bits", mean)
	}
}
