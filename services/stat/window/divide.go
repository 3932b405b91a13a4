package window

import (
	"strings"

	"github.com/boltmesh/boltmesh/pkg/bolt"
)

var _ bolt.Divisible = (*Bolt)(nil)

// GroupOf implements bolt.Divisible.
func (b *Bolt) GroupOf(key string) (group string, ok bool) {
	for _, prefix := range [...]string{stateKey, timeKey, keptKey} {
		if group, ok := strings.CutPrefix(key, prefix+b.id+"-"); ok {
			return group, true
		}
	}
	return "", false
}
