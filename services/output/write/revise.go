package write

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

var errRevision = errors.New("figures that can be corrected have a group, a window with start and end, and a version")

// revision returns what the document of a window is called, whichever version of its figures the tuple brings, and that version. The id is a hash of
// topology, node, group and window.
func (b *Bolt) revision(node string) (id string, version int64, err error) {
	if err := b.doc.Err(); err != nil {
		return "", 0, err
	}
	group, named := b.doc.Text("group")
	number, counted := b.doc.Number("version")
	start, bounded := b.doc.Number("window.start")
	end, closed := b.doc.Number("window.end")
	if !named || !counted || !bounded || !closed || number < 1 || number != float64(int64(number)) {
		return "", 0, errRevision
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d %d", b.Topology, node, group, int64(start), int64(end)))
	return hex.EncodeToString(sum[:16]), int64(number), nil
}
