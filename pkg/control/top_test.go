package control

import (
	"math"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

const topRooms = `
topology: rooms
spout: {id: readings, kafka: {brokers: "b:1", topics: [in]}, key: device}
bolts:
  - {id: clean, kind: convert, from: readings, save: readings}
  - {id: totals, kind: stat, from: clean, window: lifetime, aggregates: {n: count}, tasks: 4}
`

func TestRates(t *testing.T) {
	top, problems := topology.Parse("rooms.yaml", []byte(topRooms), topology.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	plan, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.UnixMilli(1_700_000_000_000)
	look := func(after time.Duration, queued uint64, alive ...member.Member) *Glance {
		at := begin.Add(after)
		return &Glance{at: at, sights: []topologySight{{
			Named: Named{Name: "rooms", Applied: Applied{Revision: 2}}, plan: plan, sight: sight{at: at, alive: alive, queued: map[string]uint64{"clean": 0, "totals": queued}},
		}}}
	}
	at := func(after time.Duration) int64 { return begin.Add(after).UnixMilli() }
	mark := func(p int, floor, next, end int64) member.Mark {
		return member.Mark{Topic: "in", Partition: p, Floor: floor, Next: next, End: end, Watermark: 5000}
	}
	before := look(0, 6,
		member.Member{Node: "readings", Kind: "spout", Worker: "s", At: at(-500 * time.Millisecond), Marks: []member.Mark{mark(0, 100, 150, 200), mark(1, 50, 50, 50)}, Roots: 5, Took: 5000},
		member.Member{Node: "clean", Worker: "c", At: at(-500 * time.Millisecond), In: 100, Out: 100, Frames: 10, Busy: 1e6},
		member.Member{Node: "totals", Worker: "t", At: at(-500 * time.Millisecond), In: 10, Frames: 1, Busy: 0, Owned: []member.Owned{{Task: 1, Epoch: 3, In: 10}}},
	)
	now := look(2*time.Second, 14,
		member.Member{
			Node: "readings", Kind: "spout", Worker: "s", At: at(1500 * time.Millisecond), Roots: 9, Took: 5000 + 4*250_000, Oldest: at(-time.Second), Failed: 3,
			Marks: []member.Mark{mark(0, 300, 390, 400), mark(1, 50, 50, 50), mark(2, 0, 0, 10_000)},
		},
		member.Member{Node: "clean", Worker: "c", At: at(1500 * time.Millisecond), In: 500, Out: 300, Frames: 20, Busy: 3e6},
		member.Member{Node: "clean", Worker: "new", Since: at(time.Second), At: at(1500 * time.Millisecond), In: 50, Out: 50, Frames: 5, LastError: "oops", ErrorAt: 7},
		member.Member{Node: "clean", Worker: "gone", Leaving: true, In: 1e6},
		member.Member{Node: "totals", Worker: "t", At: at(1500 * time.Millisecond), In: 210, Frames: 11, Busy: 2e6, Failed: 1, Owned: []member.Owned{{Task: 1, Epoch: 3, In: 210, Busy: 2e6}}},
	)
	r := now.Since(before)[0]
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-6*math.Max(1, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	near("records", r.Records, 100)                      // 200 more in partition 0, in 2 s; what partition 2 had before, nobody says
	near("processed", r.Processed, 100)                  // its floor
	near("latency", r.Latency, 250)                      // 4 roots
	near("taken", r.Nodes[0].Out, 120)                   // 240 more
	near("lag", float64(r.Lag), 100+10_000)              // of all that are read
	near("clean in", r.Nodes[1].In, 200+100)             // the new one in half a second
	near("clean out", r.Nodes[1].Out, 100+100)           //
	near("totals in", r.Nodes[2].In, 100)                //
	near("totals busy", r.Nodes[2].Busy, 0.25)           // one second a second, of four loops
	near("totals capacity", r.Nodes[2].Capacity, 400)    //
	near("totals latency", r.Nodes[2].Latency, 2000)     // ten frames wait in the mean, five a second leave
	near("totals failed", float64(r.Nodes[2].Failed), 1) //
	if h := r.Nodes[2].Hottest; h == nil || h.Task != 1 || math.Abs(h.Busy-1) > 1e-6 {
		t.Errorf("hottest %+v", h)
	}
	if r.Oldest != at(-time.Second) || r.Workers != 5 || r.Sources != 3 || r.Nodes[1].Workers != 2 || len(r.Troubles) != 1 || r.Troubles[0].Worker != "new" || r.State != "running" || r.Watermark != 5000 {
		t.Errorf("%+v", r)
	}
	// Between equal looks nothing moves, and nothing is divided by nothing.
	if r := now.Since(now)[0]; r.Records != 0 || r.Nodes[1].Out != 0 || math.IsNaN(r.Nodes[2].Latency) {
		t.Errorf("%+v", r)
	}
	if r := now.Since(&Glance{at: begin})[0]; r.Processed != 0 || r.Nodes[1].In <= 0 { // it was not there before
		t.Errorf("%+v", r)
	}
	torn := &Glance{sights: []topologySight{{Named: Named{Name: "torn"}}}}
	if r := torn.Since(now); r[0].State != "unreadable" {
		t.Errorf("%+v", r)
	}
}
