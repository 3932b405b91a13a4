package meshtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// counterexample is a rule of the protocol, broken around the engine.
type counterexample struct {
	name   string // as in PROTOCOL section 3
	how    string
	within int // seeds
	from   int // where rare ones have been found: the first seed
	// set changes a seed's plant: what makes the rule matter, with the rule in place. breaks breaks it.
	set    func(p *plant)
	breaks func(p *plant)
}

var counterexamples = []counterexample{
	{"C1", "tuple ids are named by the root's first offset and their place in it", 100, 0, calm, func(p *plant) { p.options.broken.batchIDs = true }},
	{"C2", "copies for all tasks share a ledger id, two tasks", 100, 0, func(p *plant) { p.tasks = 2 }, func(p *plant) { p.options.broken.oneLedgerForAll = true }},
	{"C2b", "deliveries to stat and out share a ledger id", 100, 0, func(p *plant) { p.wide = false }, func(p *plant) { p.options.broken.oneLedgerPerTuple = true }},
	{"C3", "documents named by position and node alone, as outputs of groups without the group in their ids would be", 100, 0, nil, func(p *plant) {
		p.outName = func(t *tuple.Tuple, source string) string { return fmt.Sprint(source, t.Position(), t.Root.Origin) }
	}},
	{"C4", "a new tick owner goes on at the log's end", 300, 0, nil, func(p *plant) { p.options.broken.jumpingTicks = true }},
	{"C5", "frames behind a refused one are published before it", 100, 0, func(p *plant) { inOrder(p); p.pad = 40_000 }, func(p *plant) { p.options.broken.pipelined = true }},
	{"C6", "the old owner of a task goes on pulling", 500, 0, inOrder, func(p *plant) { p.options.broken.zombiePulls = true }},
	{"C7", "no n on edges between stateful nodes", 300, 0, lossy, func(p *plant) { p.ungated = true }},
	{"C8", "12 open roots instead of a span of 12", 500, 0, nil, func(p *plant) { p.options.broken.openRoots = 12 }},
	{"C10", "a frame's id is that of its first tuple", 100, 0, nil, func(p *plant) { p.options.broken.firstTupleMsgID = true }},
	{"C11", "only the latest attempt counts, its timeout shorter than the way through", 100, 0, func(p *plant) { p.options.Timeout = 2 }, func(p *plant) { p.options.broken.latestAttemptOnly = true }},
	{"C12", "nothing is reported for tuples below the floor", 500, 0, nil, func(p *plant) { p.options.broken.dropWithoutDelta = true }},
	{"C13", "the store takes commits of any epoch", 500, 0, nil, func(p *plant) { p.options.broken.noFence = true }},
	{"C13b", "the fence is raised by the first commit", 500, 0, nil, func(p *plant) { p.options.broken.lateFence = true }},
	{"C14", "the store returns no recorded outputs", 300, 0, nil, func(p *plant) { p.options.broken.noOutputs = true }},
	{"C14b", "recorded outputs are emitted under their first attempt", 300, 0, nil, func(p *plant) { p.options.broken.staleOutputs = true }},
	{"C15", "what is below the floor is forgotten, but a new owner learns of floors from frames only", 2000, 0, unsteady, func(p *plant) { p.options.broken.noFloors = true }},
	{"C16", "a commit without an answer counts as done", 100, 0, nil, func(p *plant) { p.options.broken.unknownIsSuccess = true }},
	{"C17", "readings go to any task of stat", 100, 0, nil, func(p *plant) {
		task := rand.New(rand.NewPCG(p.options.Seed, 17))
		p.statKey = func(*tuple.Tuple) (string, bool) { return fmt.Sprint(task.IntN(100)), true }
	}},
	{"C18", "the archive that stat's edge groups by changes between attempts", 300, 0, func(p *plant) { p.archive = func() int { return 0 } }, func(p *plant) {
		calls := 0
		p.archive = func() int { calls++; return calls / 40 }
	}},
	{"C19", "the edge's filter drops a tuple that has got its n", 100, 0, nil, func(p *plant) { p.options.broken.filterBehindN = true }},
	{"C20", "ticks are appended at the owner's own counter", 300, 0, nil, func(p *plant) { p.options.broken.ownCounter = true }},
	{"C21", "flush levels do not wait for each other", 100, 0, nil, func(p *plant) { p.options.broken.impatientFlush = true }},
	{"C22", "slices record no outputs", 300, 0, func(p *plant) { p.options.Slice, p.tasks = 1, 1 }, func(p *plant) { p.options.broken.slicesWithoutOutputs = true }},
	{"C23", "the revision is switched when all open roots are complete", 1000, 0, changing, func(p *plant) { p.options.broken.openRoots23 = true }},
	{"C24", "a dead letter is stored after its delta and acknowledgement", 1000, 0, nil, func(p *plant) { p.options.broken.lateLetters = true }},
	{"C24b", "a replayed letter is marked after it was appended", 1000, 0, changing, func(p *plant) { p.options.broken.appendThenMark = true }},
	{"C24c", "ids are not looked up among the dead letters", 1000, 650, changing, func(p *plant) { p.options.broken.noLookUp = true }},
	{"C25", "who comes to own a partition or a log emits before its lease tells of it", 1000, 600, restless, func(p *plant) { p.options.broken.unannounced = true }},
	{"C25b", "the revision is switched after one look at the leases", 1000, 4400, restless, func(p *plant) { p.options.broken.looksOnce = true }},
	{"C26", "what a lease says of an earlier pause counts", 1000, 3200, restless, func(p *plant) { p.options.broken.anyPause = true }},
	{"C29", "who copies state into other tasks does not ask whether somebody else was asked to meanwhile", 1000, 0, dividing, func(p *plant) { p.options.broken.movesLate = true }},
	{"C29b", "who copies does not look whether something beyond the floors was applied", 1000, 450, dividing, func(p *plant) { p.options.broken.movesUnrest = true }},
	{"C29c", "what was applied is left behind there, and no floor comes in its place", 100, 0, lagging, func(p *plant) { p.options.broken.movesNoFloors = true }},
}

func lossy(p *plant) { p.lossy, p.options.Faults[StreamLoss] = true, 1000 }

func changing(p *plant) { p.changes = true }

// hasty changes while everything is replaced often.
func hasty(p *plant) {
	p.changes = true
	p.options.Faults[Crash], p.options.Faults[Zombie] = 400, 800
}

// restless has everything replaced often while one change follows another.
func restless(p *plant) {
	hasty(p)
	p.options.Changes, p.divides = 6, false
}

// dividing changes numbers of tasks while everything is replaced often.
func dividing(p *plant) {
	restless(p)
	p.divides = true
}

// lagging is that while floors become durable late.
func lagging(p *plant) {
	dividing(p)
	p.options.Begins = true
}

// unsteady has spouts and tasks replaced often.
func unsteady(p *plant) { p.options.Faults[Crash] = 150 }

func inOrder(p *plant) { p.lossy, p.shuffle, p.options.Faults[StreamLoss] = false, false, 0 }

// calm leaves only what C1 needs, and no poison: a batcher has no dead letters.
func calm(p *plant) { p.clean = true }

// TestCounterexamples breaks each rule in turn: some seed must fail, and the same seeds must not fail with the rule in place.
func TestCounterexamples(t *testing.T) {
	for _, c := range counterexamples {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(c.from); seed < uint64(c.from+c.within); seed++ {
				p := newPlant(seed)
				p.options.Patience = 60_000
				if c.set != nil {
					c.set(p)
				}
				whole := *p
				c.breaks(p)
				patient := *p
				patient.options.Patience = 0
				r, err := p.run()
				if errors.Is(err, errStuck) {
					r, err = patient.run() // slow is not wrong
				}
				if err == nil {
					continue
				}
				whole.options.Patience = 0
				if _, wrong := whole.run(); wrong != nil {
					t.Fatalf("seed %d fails with the rule in place too: %v", seed, wrong)
				}
				line, _, _ := strings.Cut(err.Error(), "\n")
				t.Logf("%s: %s: seed %d, %d faults: %s", c.name, c.how, seed, r.Hits, line)
				return
			}
			t.Errorf("%s: %s: no violation in %d seeds", c.name, c.how, c.within)
		})
	}
}
