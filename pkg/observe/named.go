package observe

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Gauge registers a number that is read at each scrape, for instance a queue's depth. The name begins with boltmesh_; labels may be nil, and all
// registrations of one name need the same label names. A later registration under the same name and labels takes the earlier one's place. read must
// be fast and safe for concurrent use; NaN leaves the number out. Call remove when what it measures is gone. It panics on an invalid name.
func (o *Observer) Gauge(name, help string, labels map[string]string, read func() float64) (remove func()) {
	return o.named.add(name, help, prometheus.GaugeValue, labels, read)
}

// Counter is like Gauge, for a number that only grows, for instance a cache's hits; its name ends in _total.
func (o *Observer) Counter(name, help string, labels map[string]string, read func() float64) (remove func()) {
	return o.named.add(name, help, prometheus.CounterValue, labels, read)
}

// wordLetters are the letters of metric names: fewer than Prometheus allows, all that other metrics use.
const wordLetters = "abcdefghijklmnopqrstuvwxyz0123456789_"

// named holds the numbers that others own.
type named struct {
	mu     sync.Mutex
	series map[string]*series
	help   map[string]string // the first one given, since a scrape must not see two
}

type series struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	values []string
	read   func() float64
}

func newNamed(registry *prometheus.Registry) *named {
	n := &named{series: map[string]*series{}, help: map[string]string{}}
	registry.MustRegister(n)
	return n
}

func (n *named) add(name, help string, kind prometheus.ValueType, labels map[string]string, read func() float64) func() {
	if !strings.HasPrefix(name, "boltmesh_") || strings.Trim(name, wordLetters) != "" {
		panic("observe: metric " + name + ": write boltmesh_ and lower-case letters, digits or _")
	}
	keys := slices.Sorted(maps.Keys(labels))
	values := make([]string, len(keys))
	for i, k := range keys {
		values[i] = labels[k]
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if first, known := n.help[name]; known {
		help = first
	}
	s := &series{desc: prometheus.NewDesc(name, help, keys, nil), kind: kind, values: values, read: read}
	if _, err := prometheus.NewConstMetric(s.desc, kind, 0, values...); err != nil {
		panic("observe: " + err.Error())
	}
	n.help[name] = help
	id := name + "\x00" + strings.Join(keys, "\x00") + "\x00" + strings.Join(values, "\x00")
	n.series[id] = s
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.series[id] == s {
			delete(n.series, id)
		}
	}
}

// Describe says nothing in advance: series come and go.
func (n *named) Describe(chan<- *prometheus.Desc) {}

// Collect reads every number, outside the lock so that a reader may register or remove.
func (n *named) Collect(out chan<- prometheus.Metric) {
	n.mu.Lock()
	all := slices.Collect(maps.Values(n.series))
	n.mu.Unlock()
	for _, s := range all {
		if v := s.read(); v == v {
			out <- prometheus.MustNewConstMetric(s.desc, s.kind, v, s.values...)
		}
	}
}
