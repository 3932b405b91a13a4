package ack

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// The cases here are those of Apache Storm's topology integration tests, with a tree's bolts played by hand.

// tree plays the bolts of one ledger: it hands out ledger ids for deliveries and sends one delta for each step.
type tree struct {
	*Ledger
	id, frame uint64
	now       int64
	completed []int64 // roots, in order of completion
}

func newTree(o Options) *tree { return &tree{Ledger: New(1, 0, o)} }

// delivery is one tuple under way, with the root it belongs to.
type delivery struct {
	root int64
	id   uint64
}

func (t *tree) deliver(root int64) delivery {
	t.id++
	return delivery{root, tuple.LedgerID(tuple.ID{byte(t.id), byte(t.id >> 8)}, 7, 0, t.Attempt())}
}

// feed opens a root with one delivery.
func (t *tree) feed(root int64) delivery {
	d := t.deliver(root)
	t.note(t.Track(root, root+1, t.Attempt(), d.id, t.now))
	return d
}

// handle reports that in was handled and out emitted for it, in one whole delta per root.
func (t *tree) handle(in delivery, out ...delivery) {
	x := in.id
	for _, d := range out {
		x ^= d.id
	}
	t.frame++
	t.note(t.Apply(tuple.Delta{Frame: tuple.ID{1, byte(t.frame), byte(t.frame >> 8)}, First: in.root, Attempt: t.Attempt(), XOR: x}, t.now))
}

func (t *tree) note(d Done, ok bool) {
	if ok {
		t.completed = append(t.completed, d.First)
	}
}

// take returns the roots completed since the last call.
func (t *tree) take() []int64 {
	c := t.completed
	t.completed = nil
	return c
}

func (t *tree) want(test *testing.T, what string, roots ...int64) {
	test.Helper()
	if got := t.take(); !slices.Equal(got, roots) {
		test.Errorf("%s: completed %v, want %v", what, got, roots)
	}
}

// TestA3Timeout: a bolt that handles every other tuple; the one between has not failed at 9 s and has after 10 s.
func TestA3Timeout(t *testing.T) {
	tr := newTree(Options{Timeout: 10_000})
	one, _, three := tr.feed(0), tr.feed(1), tr.feed(2)
	tr.handle(one)
	tr.handle(three)
	tr.want(t, "the handled ones", 0, 2)
	if due := tr.Tick(9_000); len(due) != 0 {
		t.Errorf("failed at 9 s: %v", due)
	}
	if due := tr.Tick(10_001); len(due) != 1 || due[0].First != 1 {
		t.Errorf("after 10 s: %v", due)
	}
	if tr.Floor() != 1 {
		t.Errorf("floor %d: the third waits behind the second", tr.Floor())
	}
}

// TestA4Extend: an extended tuple survives twice the timeout, its sibling does not; then it completes and never fails.
func TestA4Extend(t *testing.T) {
	tr := newTree(Options{Timeout: 10_000})
	kept, _ := tr.feed(0), tr.feed(1)
	failed := map[int64]bool{}
	for tr.now = 0; tr.now <= 20_000; tr.now += 1000 {
		tr.Apply(tuple.Delta{First: 0, Attempt: tr.Attempt()}, tr.now) // a zero frame with a zero sum
		for _, d := range tr.Tick(tr.now) {
			failed[d.First] = true
		}
	}
	if failed[0] || !failed[1] {
		t.Errorf("failed: %v", failed)
	}
	tr.handle(kept)
	tr.want(t, "the extended one", 0)
	for _, d := range tr.Tick(1_000_000) {
		if d.First == 0 {
			t.Error("it failed after it was complete")
		}
	}
}

// TestA6BranchAndJoin: inputs 1, 2 and 3 are fanned out 2, 4 and 1 into a bolt that waits for 3 and then emits 2 for all three. An output for several inputs counts for
// the trees of all of them.
func TestA6BranchAndJoin(t *testing.T) {
	tr := newTree(Options{})
	root := int64(0)
	var waiting []delivery
	feed := func(fan int) (outs [][2]delivery) {
		in := tr.feed(root)
		root++
		branch := make([]delivery, fan)
		for i := range branch {
			branch[i] = tr.deliver(in.root)
		}
		tr.handle(in, branch...)
		for _, b := range branch {
			if waiting = append(waiting, b); len(waiting) < 3 {
				continue
			}
			for _, w := range waiting { // each anchor gets deliveries of its own
				o := [2]delivery{tr.deliver(w.root), tr.deliver(w.root)}
				tr.handle(w, o[0], o[1])
				outs = append(outs, o)
			}
			waiting = nil
		}
		return outs
	}
	finish := func(outs [][2]delivery) {
		for _, o := range outs {
			tr.handle(o[0])
			tr.handle(o[1])
		}
	}
	finish(feed(2))
	tr.want(t, "input 1")
	finish(feed(4))
	tr.want(t, "input 2", 0, 1)
	finish(feed(2))
	tr.want(t, "input 1 again")
	finish(feed(2))
	tr.want(t, "input 1 once more", 2)
	finish(feed(1))
	tr.want(t, "input 3")
	finish(feed(4))
	tr.want(t, "input 2 again", 3, 4, 5)
}

// TestA7AckBranching: two identities side by side into a bolt that waits for 4.
func TestA7AckBranching(t *testing.T) {
	tr := newTree(Options{})
	var waiting []delivery
	feed := func(root int64) {
		a, b := tr.deliver(root), tr.deliver(root)
		tr.note(tr.Track(root, root+1, tr.Attempt(), a.id^b.id, tr.now))
		for _, in := range []delivery{a, b} {
			out := tr.deliver(root)
			tr.handle(in, out)
			waiting = append(waiting, out)
		}
		if len(waiting) == 4 {
			for _, w := range waiting {
				tr.handle(w)
			}
			waiting = nil
		}
	}
	feed(0)
	tr.want(t, "first feed")
	feed(1)
	tr.want(t, "second feed", 0, 1)
}

// TestA8AnchoredTwice: an output anchored twice to its input completes it once.
func TestA8AnchoredTwice(t *testing.T) {
	tr := newTree(Options{})
	feed := func(root int64) {
		in := tr.feed(root)
		a, b := tr.deliver(root), tr.deliver(root)
		tr.handle(in, a, b)
		tr.handle(a)
		tr.handle(b)
	}
	feed(0)
	tr.want(t, "one feed", 0)
	for root := range int64(3) {
		feed(root + 1)
	}
	tr.want(t, "three feeds", 1, 2, 3)
}

// TestA10UnknownDeltas: what the ledger does not know is ignored, and a delta that comes twice changes nothing.
func TestA10UnknownDeltas(t *testing.T) {
	tr := newTree(Options{})
	early := tr.deliver(0)
	tr.handle(early) // nothing has been tracked
	tr.want(t, "before its root is tracked")
	in := tr.feed(0)
	out := tr.deliver(0)
	d := tuple.Delta{Frame: frame(9), First: 0, Attempt: tr.Attempt(), XOR: in.id ^ out.id}
	for range 3 {
		tr.note(tr.Apply(d, 0))
	}
	tr.want(t, "a delta three times")
	tr.handle(out)
	tr.want(t, "the end", 0)
	tr.note(tr.Apply(d, 0))
	tr.want(t, "a slow double completion")
}

// TestB2DoubleCompletionAndGaps (storm-kafka-client's tests): the floor stops at the first gap, and a slow second completion of a root is harmless.
func TestB2DoubleCompletionAndGaps(t *testing.T) {
	tr := newTree(Options{Timeout: 10})
	var in []delivery
	for root := range int64(5) {
		in = append(in, tr.feed(root))
	}
	for _, i := range []int{4, 1, 3} {
		tr.handle(in[i])
	}
	if tr.Floor() != 0 {
		t.Errorf("floor %d behind a gap at 0", tr.Floor())
	}
	again := tr.Tick(10)
	if len(again) != 2 || again[0].First != 0 || again[1].First != 2 {
		t.Fatalf("replayed out of order: %v", again)
	}
	for _, d := range again {
		tr.Track(d.First, d.Next, d.Attempt, 0xFEED, 10)
	}
	tr.handle(in[0]) // the first attempt comes in after all
	if tr.Floor() != 2 {
		t.Errorf("floor %d, want 2", tr.Floor())
	}
	tr.Apply(tuple.Delta{Frame: frame(1), First: 0, Attempt: again[0].Attempt, XOR: 0xFEED}, 11)
	tr.Apply(tuple.Delta{Frame: frame(1), First: 2, Attempt: again[1].Attempt, XOR: 0xFEED}, 11)
	if tr.Floor() != 5 {
		t.Errorf("floor %d, want 5", tr.Floor())
	}
	if n, _ := tr.Open(); n != 0 {
		t.Errorf("%d roots open", n)
	}
}

var update = flag.Bool("update", false, "write the golden files")

// TestDescribe draws a ledger with everything that one can be in.
func TestDescribe(t *testing.T) {
	tr := newTree(Options{Timeout: 1000, Span: 100})
	var b strings.Builder
	show := func(what string) { b.WriteString("# " + what + "\n" + tr.Describe()) }
	show("nothing yet")
	one, two := tr.feed(0), tr.feed(1)
	tr.feed(2)
	show("three roots")
	tr.handle(two)
	show("the second is complete and waits for the first")
	tr.now = 1000
	for _, d := range tr.Tick(tr.now) {
		tr.note(tr.Track(d.First, d.Next, d.Attempt, 0xA0+uint64(d.First), tr.now))
	}
	child := tr.deliver(0)
	tr.handle(one, child)
	show("the others are overdue; the first attempt of the first has emitted a child")
	tr.handle(child)
	show("the first is complete")
	const file = "testdata/describe.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
