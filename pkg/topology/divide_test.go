package topology

import (
	"strings"
	"testing"
)

// TestWithTasks changes the number where it stands, or adds it, in block and flow style; comments and variables stay.
func TestWithTasks(t *testing.T) {
	const head = "topology: t\nspout: {id: in, kafka: {topics: [a]}}\nbolts:\n"
	for _, c := range []struct{ name, bolt, want string }{
		{"added to a block", "  # one\n  - id: x\n    kind: stat\n    from: in\n    every: 1m\n    aggregates: {n: count()}\n", "  - tasks: 12\n    id: x\n    kind: stat\n"},
		{"changed in a block", "  - kind: stat\n    tasks: 4 # few\n    id: x\n    from: in\n    every: 1m\n    aggregates: {n: count()}\n", "    tasks: 12 # few\n"},
		{"added in flow", "  - {id: x, kind: stat, from: in, every: 1m, aggregates: {n: count()}}\n", "  - {tasks: 12, id: x, kind"},
		{"changed in flow", "  - {id: x, kind: stat, tasks: 3, from: in, every: 1m, aggregates: {n: count()}}\n", "tasks: 12, from"},
		{"a variable", "  - id: x\n    tasks: ${TASKS:3}\n    kind: stat\n    from: in\n    every: 1m\n    aggregates: {n: count()}\n", "tasks: 12\n    kind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Document{Name: "t.yaml", Source: head + c.bolt}
			got, err := d.WithTasks("x", 12)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(got.Source, c.want) {
				t.Errorf("it became\n%s", got.Source)
			}
			if _, err := d.WithTasks("y", 12); err == nil {
				t.Error("an unknown bolt passes")
			}
			if _, err := d.WithTasks("x", 99); err == nil {
				t.Error("99 tasks pass")
			}
		})
	}
}
