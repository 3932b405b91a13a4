package jetstream

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestOneOfTwoConnectionsIsBack: what is told when one of two returns says that the other has not.
func TestOneOfTwoConnectionsIsBack(t *testing.T) {
	var told []Change
	all := &links{changed: func(c Change) { told = append(told, c) }}
	a, b := &link{links: all}, &link{links: all}
	gone := errors.New("gone")
	a.down(gone)
	b.down(gone)
	a.down(gone) // once more, before it was back
	a.up(&nats.Conn{})
	a.up(&nats.Conn{})
	b.up(&nats.Conn{})
	for i, others := range []int{0, 1, 1, 1, 1, 0} {
		if c := told[i]; c.Others != others || (c.Err != nil) != (i < 3) {
			t.Errorf("change %d: %+v, want %d others", i, c, others)
		}
	}
}
