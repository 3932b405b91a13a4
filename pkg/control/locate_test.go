package control

import (
	"testing"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

func TestLocate(t *testing.T) {
	partition := func(p string) tuple.Origin { return tuple.OriginOf("rooms", "readings", "in", "", p) }
	tick := tuple.OriginOf("rooms", tickLog)
	o := Origins{partition("0"): {"in", true, 0}, partition("1"): {"in", true, 1}, tick: {name: tickLog}}
	alive := Workers{
		{
			Node: "readings", Worker: "a", Logs: []member.Log{{Name: tickLog, Floor: 7, Next: 9, Length: 9}},
			Marks: []member.Mark{{Topic: "in", Partition: 0, Floor: 10, Next: 15, End: 20}, {Topic: "in", Partition: 1, Floor: 3_000_000, Next: 3_000_000, End: 3_000_000}},
		},
		{Node: "totals", Worker: "b", Owned: []member.Owned{{Task: 3, Epoch: 1}}},
		{Node: "totals", Worker: "c"},
	}
	for _, c := range []struct {
		at    tuple.Position
		found bool
		name  string
		state State
	}{
		{tuple.Position{Origin: partition("0"), Offset: 4}, true, "in/0", Processed},
		{tuple.Position{Origin: partition("0"), Offset: 10}, true, "in/0", UnderWay},
		{tuple.Position{Origin: partition("0"), Offset: 19}, true, "in/0", Ahead},
		{tuple.Position{Origin: partition("0"), Offset: 20}, false, "in/0", Ahead}, // not in Kafka
		{tuple.Position{Origin: partition("1"), Offset: 2_999_999}, true, "in/1", Processed},
		{tuple.Position{Origin: partition("1"), Offset: 5}, false, "in/1", Processed}, // too long ago to be searched for
		{tuple.Position{Origin: tick, Offset: 8}, true, "tick-log", UnderWay},
		{tuple.Position{Origin: 7, Offset: 8}, false, "0000000000000007", Unknown},
	} {
		at, found := o.Locate(alive, tuple.RootID(c.at))
		if found != c.found || found && at != c.at {
			t.Errorf("%+v: found at %+v, %v", c.at, at, found)
		}
		if s := o.State(alive, c.at); s != c.state {
			t.Errorf("%+v: %s, want %s", c.at, s, c.state)
		}
		if n := o.Name(c.at.Origin); n != c.name {
			t.Errorf("%+v: %s, want %s", c.at, n, c.name)
		}
		if back, known := o.Position(c.name, c.at.Offset); known != (c.at.Origin != 7) || known && back != c.at {
			t.Errorf("%s@%d is %+v, %v", c.name, c.at.Offset, back, known)
		}
	}
	for at, want := range map[[2]string]string{{"totals", "3"}: "b", {"totals", "4"}: "b or c", {"totals", "any"}: "b or c", {"readings", "in/1"}: "a", {"none", "1"}: ""} {
		if got := alive.Of(at[0], at[1]); got != want {
			t.Errorf("%v: %q, want %q", at, got, want)
		}
	}
}
