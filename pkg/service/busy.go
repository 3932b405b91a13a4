package service

import (
	"slices"

	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/trace"
)

// worked notes what a Step has taken, from which advice on replicas and tasks is computed.
func worked(m *member.Member, s *trace.Stepped) {
	busy := (s.Execute + s.Commit + s.Publish).Microseconds()
	m.Frames += int64(s.Frames)
	m.Busy += busy
	if i := slices.IndexFunc(m.Owned, func(o member.Owned) bool { return o.Task == s.Where.Task }); i >= 0 {
		m.Owned[i].Busy += busy
	}
}

// completed passes on what the loop of a partition reports, and notes how long its roots took.
func (h *host) completed(e trace.Event) {
	if c, ok := e.(trace.Completed); ok {
		h.lease.update(func(m *member.Member) {
			m.Roots++
			m.Took += c.Latency.Microseconds()
		})
	}
	h.Sink.Emit(e)
}
