package service

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// discovered is what this worker answers to NATS' service discovery: a service of its kind whose id is the worker's name, with an endpoint for each node.
func (w *Worker) discovered(started time.Time) jetstream.Service {
	s := jetstream.Service{Name: "boltmesh-" + w.Kind, ID: w.Name, Version: semantic(w.Version), Started: started}
	topologies := map[string]bool{}
	working, capacity := 0, 0
	for _, h := range w.hosts() {
		m := h.lease.view()
		topologies[m.Topology] = true
		m.Working, m.Capacity, m.Held = h.work()
		working, capacity = working+m.Working, capacity+m.Capacity
		subject := jetstream.Subject(m.Topology, m.Node, tuple.Shared)
		if !h.node.Shared {
			subject = strings.TrimSuffix(subject, "any") + "*"
		}
		s.Endpoints = append(s.Endpoints, jetstream.Endpoint{
			Name: m.Topology + "-" + m.Node, Subject: subject, Requests: m.In, Errors: m.Failed, LastError: m.LastError,
			Busy: time.Duration(m.Busy) * time.Microsecond,
			Metadata: map[string]string{
				"topology": m.Topology, "node": m.Node, "revision": strconv.Itoa(int(m.Revision)), "tasks": tasksText(m.Tasks),
				"working": strconv.Itoa(m.Working), "capacity": strconv.Itoa(m.Capacity),
			},
		})
	}
	s.Metadata = map[string]string{
		"kind": w.Kind, "build": w.Version, "topologies": strings.Join(slices.Sorted(maps.Keys(topologies)), ","),
		"working": strconv.Itoa(working), "capacity": strconv.Itoa(capacity),
	}
	return s
}

// hosts lists the nodes that this worker runs now, in order. It does not wait for changes of topologies that are under way.
func (w *Worker) hosts() (out []*host) {
	w.present.Range(func(h, _ any) bool {
		out = append(out, h.(*host))
		return true
	})
	slices.SortFunc(out, func(a, b *host) int {
		return cmp.Or(strings.Compare(a.plan.Topology.Name, b.plan.Topology.Name), strings.Compare(a.node.ID, b.node.ID))
	})
	return out
}

func tasksText(tasks []int32) string {
	if slices.Contains(tasks, tuple.Shared) {
		return "any"
	}
	text := make([]string, len(tasks))
	for i, t := range tasks {
		text[i] = strconv.Itoa(int(t))
	}
	return strings.Join(text, ",")
}

// view returns what the lease says, but for what changes with each Step of a task.
func (m *membership) view() member.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.self
	v.Tasks, v.Owned, v.Marks, v.Logs = slices.Clone(v.Tasks), nil, nil, nil
	return v
}

// work says how many loops of this node hold frames, of how many there are, and since when the one that has held its own for longest, in ms; 0 when none does.
func (h *host) work() (working, capacity int, held int64) {
	h.working.Range(func(l, _ any) bool {
		capacity++
		if on := l.(*bolt.Loop).Held(); on != nil {
			working++
			if at := on.Since.UnixMilli(); held == 0 || at < held {
				held = at
			}
		}
		return true
	})
	return working, capacity, held
}

// showWork keeps what the lease says of the current work up to date until ctx ends: a loop that is held up tells nothing by itself.
func (h *host) showWork(ctx context.Context) {
	for ctx.Err() == nil {
		working, capacity, held := h.work()
		h.lease.update(func(m *member.Member) { m.Working, m.Capacity, m.Held = working, capacity, held })
		sleep(ctx, h.renewal()/2)
	}
}

var (
	semver    = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)
	notInMeta = regexp.MustCompile(`[^0-9A-Za-z-]+`)
)

// semantic makes a semantic version, which discovery insists on, of whatever the binary was built from.
func semantic(version string) string {
	if v := strings.TrimPrefix(version, "v"); semver.MatchString(v) {
		return v
	}
	if build := strings.Trim(notInMeta.ReplaceAllString(version, "-"), "-"); build != "" {
		return fmt.Sprint("0.0.0+", build)
	}
	return "0.0.0"
}
