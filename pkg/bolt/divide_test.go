package bolt

import (
	"testing"

	"pgregory.net/rapid"
)

// owner is a bolt whose keys are its groups behind a sign.
type owner struct{ Divisible }

func (owner) GroupOf(key string) (string, bool) {
	if len(key) == 0 || key[0] != '=' {
		return "", false
	}
	return key[1:], true
}

// TestGroupsOfKeys: whatever bytes groups hold, a counter's key tells the group of this node, and no other key is taken for a counter's.
func TestGroupsOfKeys(t *testing.T) {
	group := rapid.StringOf(rapid.RuneFrom([]rune{'a', '-', '\x1f', '1', '3', 'n'}))
	of := Groups(owner{})
	rapid.Check(t, func(r *rapid.T) {
		node := rapid.StringMatching(`[a-z][a-z0-9-]{0,5}`).Draw(r, "node")
		emitting, receiving := group.Draw(r, "emitting"), group.Draw(r, "receiving")
		if g, ok := of(gateKey(node, emitting, receiving)); !ok || g != receiving {
			r.Errorf("gate of %q: %q, %t", receiving, g, ok)
		}
		if g, ok := of(numberKey(node, emitting, receiving)); !ok || g != emitting {
			r.Errorf("number of %q: %q, %t", emitting, g, ok)
		}
		if g, ok := of("=" + emitting); !ok || g != emitting {
			r.Errorf("own key of %q: %q, %t", emitting, g, ok)
		}
	})
	for _, key := range []string{"", "n-", "gate-a", "n-a\x1fb", "n-a\x1f-1\x1fb", "n-a\x1f3\x1fb", "value-a"} {
		if g, ok := of(key); ok {
			t.Errorf("%q belongs to %q", key, g)
		}
	}
}
