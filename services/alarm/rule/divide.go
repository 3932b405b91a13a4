package rule

import (
	"strings"

	"github.com/boltmesh/boltmesh/pkg/bolt"
)

var _ bolt.Divisible = (*Bolt)(nil)

// GroupOf implements bolt.Divisible.
func (b *Bolt) GroupOf(key string) (group string, ok bool) {
	return strings.CutPrefix(key, stateKey+b.id+"-")
}
