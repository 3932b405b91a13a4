package tuple

import "testing"

// TestIDs pins ids: they are stored in databases and computed by other languages.
func TestIDs(t *testing.T) {
	at := Position{OriginOf("machine-health", "readings", "readings", "0", "3"), 42}
	root := RootID(at)
	child := ChildID(root, Emitter{Node: NameOf("clean")}, NameOf(DefaultStream), 0)
	grouped := ChildID(root, Emitter{Node: NameOf("hourly"), By: ByGroup("machine-1")}, NameOf(DefaultStream), 1)
	for name, c := range map[string]struct{ got, want string }{
		"root":    {root.String(), "da8c5e18b2686091dc9bd220b3fd668e"},
		"child":   {child.String(), "eb994f056100b00060a0ba82d83e2163"},
		"grouped": {grouped.String(), "da648e43df6e6298d39fbb544cc02d7b"},
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
