package control

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestSecondLook has somebody come after the first look: the second one, at the closed topology, finds it, and the topology is opened again until it rests, too. What is
// left of the pause in the end is what somebody had asked for.
func TestSecondLook(t *testing.T) {
	s, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := jetstream.Connect(t.Context(), jetstream.Options{URL: s.NATSURL()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	parsed, problems := topology.Parse("rooms.yaml", []byte(`topology: rooms
spout: {id: readings, kafka: {brokers: "localhost:9092", topics: [rooms]}, key: device}
bolts: [{id: clean, kind: convert, from: readings, save: readings}]
`), topology.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(t.Context(), parsed.Document, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, held := range []bool{false, true} {
		t.Run(fmt.Sprintf("held %v", held), func(t *testing.T) {
			if held {
				if _, err := c.Pause(t.Context(), "rooms"); err != nil {
					t.Fatal(err)
				}
			}
			a, last, err := c.load(t.Context(), "rooms")
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.hold(t.Context(), "rooms", "this", a, last)
			if err != nil {
				t.Fatal(err)
			}
			var looks []string
			finds := []string{"it emits", "", "one has come", "one emits", "", ""}
			err = p.settle(t.Context(), waiting{timeout: 10 * time.Second}, func(ctx context.Context) (string, error) {
				a, err := c.Get(ctx, "rooms")
				if err != nil {
					return "", err
				}
				what := finds[len(looks)]
				looks = append(looks, fmt.Sprintf("paused %v, closed %v: %s", a.Paused, a.Closed, what))
				return what, nil
			})
			want := []string{
				"paused true, closed false: it emits", "paused true, closed false: ", "paused true, closed true: one has come",
				"paused true, closed false: one emits", "paused true, closed false: ", "paused true, closed true: ",
			}
			if err != nil || !slices.Equal(looks, want) {
				t.Errorf("%v; it looked at\n%q, want\n%q", err, looks, want)
			}
			if err := p.end(t.Context()); err != nil {
				t.Error(err)
			}
			if a, err := c.Get(t.Context(), "rooms"); err != nil || a.Paused != held || a.Closed || a.Change != "" {
				t.Errorf("left behind: %+v, %v", a, err)
			}
		})
	}
}
