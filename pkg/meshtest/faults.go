package meshtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Kind is one kind of fault.
type Kind int

// The faults. The first group happens to processes and brokers between two steps, the others to one call.
const (
	Crash        Kind = iota // a process dies where it stands, and another takes over
	Zombie                   // another takes over, and the old one goes on
	StreamLoss               // a stream forgets what it holds
	ForgetWindow             // the broker forgets its duplicate windows
	ClockJump                // every clock jumps ahead
	Redelivery               // a stream delivers again what is pending
	Foreign                  // a frame comes again under another revision of the topology

	LostAck       // an acknowledgement of a delivery gets lost
	LostPubAck    // the broker's answer to a publish gets lost
	Refuse        // the broker refuses a frame
	LostDelta     // a delta message gets lost
	TwiceDelta    // a delta message comes twice
	UnknownCommit // the state store gives no answer to a write
	NoRead        // the state store gives no answer to a read
	NoLetter      // the dead letters cannot be reached
	Skew          // a process starts with a clock that is wrong

	kinds
)

const firstCallFault = LostAck

var kindNames = [kinds]string{
	"crash", "zombie", "stream-loss", "forget-window", "clock-jump", "redelivery", "foreign", "lost-ack", "lost-puback", "refuse",
	"lost-delta", "twice-delta", "unknown-commit", "no-read", "no-letter", "skew",
}

func (k Kind) String() string { return kindNames[k] }

// Faults are how rare each fault is: one in n opportunities; 0 means never. The opportunities of the first group are steps, of the others calls.
type Faults [kinds]int

// Usual are rates that make about a dozen faults a run.
func Usual() Faults {
	return Faults{
		Crash: 900, Zombie: 1200, ForgetWindow: 3000, ClockJump: 4000, Redelivery: 1500, Foreign: 3000,
		LostAck: 60, LostPubAck: 60, Refuse: 40, LostDelta: 60, TwiceDelta: 40, UnknownCommit: 60, NoRead: 300, NoLetter: 3, Skew: 10,
	}
}

// Window says which of the faults that a seed draws happen. The zero value lets all happen. A failure is shortened by narrowing it.
type Window struct {
	From, To int // of the faults' ordinals; To 0 means no end
	Without  []Kind
	Salt     uint64 // another schedule of the same seed's run
}

func (x Window) lets(k Kind, ordinal int) bool {
	return ordinal >= x.From && (x.To == 0 || ordinal < x.To) && !slices.Contains(x.Without, k)
}

// String is the window as the flags of a replay.
func (x Window) String() string {
	var b strings.Builder
	if x.From > 0 || x.To > 0 {
		fmt.Fprintf(&b, " -faults %d:%d", x.From, x.To)
	}
	if len(x.Without) > 0 {
		names := make([]string, len(x.Without))
		for i, k := range x.Without {
			names[i] = k.String()
		}
		fmt.Fprintf(&b, " -without %s", strings.Join(names, ","))
	}
	if x.Salt > 0 {
		fmt.Fprintf(&b, " -salt %d", x.Salt)
	}
	return b.String()
}

// ParseWindow reads what String wrote: the values of -faults, -without and -salt.
func ParseWindow(faults, without string, salt uint64) (x Window, err error) {
	x.Salt = salt
	if faults != "" {
		if _, err := fmt.Sscanf(faults, "%d:%d", &x.From, &x.To); err != nil {
			return x, fmt.Errorf("faults %q: from:to is wanted: %w", faults, err)
		}
	}
	for name := range strings.SplitSeq(without, ",") {
		if name == "" {
			continue
		}
		k := slices.Index(kindNames[:], name)
		if k < 0 {
			return x, fmt.Errorf("there is no fault %q: they are %v", name, kindNames)
		}
		x.Without = append(x.Without, Kind(k))
	}
	return x, nil
}

// chance draws whether a fault of a call happens now.
func (w *world) chance(k Kind) bool {
	n := w.faults[k]
	return w.faulty && n > 0 && w.rng.IntN(n) == 0 && w.hit(k)
}

// hit counts a fault and says whether the window lets it happen.
func (w *world) hit(k Kind) bool {
	w.hits++
	return w.window.lets(k, w.hits-1)
}

// draw draws one of the faults that happen between steps, if any, with one random number.
func (w *world) draw() (Kind, bool) {
	if !w.faulty {
		return 0, false
	}
	x := w.rng.Float64()
	for k := range firstCallFault {
		if n := w.faults[k]; n > 0 {
			if x -= 1 / float64(n); x < 0 {
				return k, w.hit(k)
			}
		}
	}
	return 0, false
}

// fault injects at most one of the faults that happen between steps.
func (m *mesh) fault() {
	k, now := m.draw()
	if !now {
		return
	}
	switch k {
	case Crash:
		m.replace(true)
	case Zombie:
		m.replace(false)
	case ForgetWindow:
		for _, to := range m.addresses {
			clear(m.streams[to].window)
		}
		m.note("the broker forgets its duplicate windows")
	case ClockJump:
		m.now += int64(m.rng.IntN(20_000))
		m.note("the clock jumps")
	case StreamLoss, Redelivery, Foreign:
		if len(m.addresses) > 0 {
			m.disturb(k, m.addresses[m.rng.IntN(len(m.addresses))])
		}
	}
}

// disturb injects a fault of one stream.
func (m *mesh) disturb(k Kind, to address) {
	s := m.streams[to]
	switch k {
	case StreamLoss:
		m.note("stream %v loses %d frames", to, len(s.messages))
		s.messages = nil
	case Redelivery:
		for _, x := range s.messages {
			x.delivered = false
		}
		m.note("%v delivers again what is pending", to)
	case Foreign:
		if len(s.messages) == 0 {
			return
		}
		var f tuple.Frame
		if f.Decode(s.messages[m.rng.IntN(len(s.messages))].data) != nil {
			return
		}
		f.Revision += 1000
		data, err := f.Append(nil)
		if err != nil {
			m.fail("encode a frame again: %w", err)
			return
		}
		s.put(data)
		m.note("a frame of revision %d on %v", f.Revision, to)
	}
}

// replace starts a new owner of something; the old one dies, or goes on as a zombie.
func (m *mesh) replace(dies bool) {
	end := func(a *actor) {
		if dies && a != nil && !a.over {
			a.kill()
		}
	}
	if m.replayer != nil && m.rng.IntN(len(m.parts)+2+len(m.Nodes)) == 0 {
		end(m.replayer.actor)
		m.replay()
		return
	}
	if m.commander != nil && m.rng.IntN(len(m.parts)+2+len(m.Nodes)) == 0 {
		end(m.commander.actor)
		m.obey()
		return
	}
	if m.calling != nil && m.rng.IntN(3) == 0 {
		if dies {
			m.calling.current().kill()
		}
		m.calling.take()
		return
	}
	switch n := m.rng.IntN(len(m.parts) + 1 + len(m.Nodes)); {
	case n < len(m.parts):
		end(m.parts[n].actor)
		m.assign(m.parts[n])
	case n == len(m.parts):
		end(m.ticker.actor)
		m.tick()
	default:
		node := m.Nodes[n-len(m.parts)-1]
		if node.Shared {
			worker := m.rng.IntN(2)
			end(m.owners[address{node.ID, int32(worker)}])
			m.work(node, worker)
			return
		}
		task := int32(m.rng.IntN(m.tasksIn(node.ID, m.applied.revision)))
		end(m.owners[address{node.ID, task}])
		m.own(node, task)
	}
}
