package jetstream_test

import (
	"bytes"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestLargeLetter: the letter of the largest tuple, which base64 makes larger than the server takes, is stored with the beginning of it.
func TestLargeLetter(t *testing.T) {
	c := connect(t)
	letters, err := c.Letters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := &tuple.Letter{ID: tuple.ID{1}, Topology: "t", Node: "n", Payload: bytes.Repeat([]byte("x"), tuple.MaxPayload), Error: "bad"}
	if err := letters.Put(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	back, _, err := letters.Load(t.Context(), "t", "n", l.ID)
	if err != nil || back.Size != tuple.MaxPayload || len(back.Payload) != 4<<10 || back.Error != "bad" || len(l.Payload) != tuple.MaxPayload {
		t.Errorf("%+v (%v)", back, err)
	}
}
