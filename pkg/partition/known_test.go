package partition

import "testing"

// TestKnownTasks holds Task to values that were computed elsewhere (FNV-1a in Python): a key's task is the same in every language, in every process and
// after every restart. docs/wire.md has the same table.
func TestKnownTasks(t *testing.T) {
	for _, c := range []struct {
		key            string
		eight, sixteen int32
	}{
		{"", 5, 5},                // 2166136261
		{"a", 4, 12},              // 3826002220
		{"foobar", 0, 8},          // 3214735720
		{"device", 3, 3},          // 3497031411
		{"device-0001", 5, 13},    // 3009277101
		{"machine-000123", 5, 13}, // 957232461
		{"Zürich", 0, 0},          // 3607133984
		{"東京", 7, 15},             // 1759422319
		{"d\x1fs", 5, 5},          // 3677298005: two fields
	} {
		if a, b := Task(c.key, 8), Task(c.key, 16); a != c.eight || b != c.sixteen {
			t.Errorf("%q is in task %d of 8 and %d of 16, want %d and %d", c.key, a, b, c.eight, c.sixteen)
		}
		if Task(c.key, 1) != 0 {
			t.Errorf("%q is not in the only task", c.key)
		}
	}
}
