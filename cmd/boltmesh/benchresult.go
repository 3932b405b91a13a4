package main

import (
	"math"
	"slices"
	"time"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// result is what a scenario came to: of one run, or the medians of several. Tuples are readings that were processed to the end.
type result struct {
	Name       string  `json:"name"`
	TuplesPerS float64 `json:"tuples_per_s"`
	Reference  float64 `json:"reference_per_s"`
	Ratio      float64 `json:"ratio"` // tuples/s to the reference's messages/s; of latency: p50 to that of a bare chain
	CPU        float64 `json:"cpu_us_per_tuple"`
	Allocs     float64 `json:"allocs_per_tuple"`
	P50        float64 `json:"p50_ms"` // from emission to the end of the tree; of latency: from when a reading is due to its alarm
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p99_9_ms"`
	RSS        float64 `json:"rss_mb"` // of the services

	ServicesCPU  float64 `json:"services_cpu_us_per_tuple"`
	BrokersCPU   float64 `json:"brokers_cpu_us_per_tuple"`
	ReferenceCPU float64 `json:"reference_cpu_us"` // per message, of publisher and server
	CPURatio     float64 `json:"cpu_ratio"`        // CPU per tuple to that per message
	ReferenceP50 float64 `json:"reference_p50_ms,omitempty"`
	FlushMS      float64 `json:"flush_ms,omitempty"` // median of the disk: a commit waits for one
	CPUPercent   float64 `json:"cpu_percent"`        // of one core, all services together
	Replayed     int64   `json:"replayed"`           // roots that were overdue

	CPURatioLow    float64            `json:"cpu_ratio_low"` // of the runs: how far they are apart
	CPURatioHigh   float64            `json:"cpu_ratio_high"`
	StoresCPU      float64            `json:"stores_cpu_us_per_tuple,omitempty"` // of --store-pid
	StoreReference float64            `json:"store_reference_per_s,omitempty"`   // bulk writes of the same documents
	StoreRatio     float64            `json:"store_ratio,omitempty"`             // tuples/s to that
	Documents      float64            `json:"documents_per_s,omitempty"`         // stored: readings, statistics and alarms
	DocumentRatio  float64            `json:"document_ratio,omitempty"`          // these to the bulk writes
	Maximum        float64            `json:"maximum_per_s,omitempty"`           // of half: what device-expr had just come to
	Offered        float64            `json:"offered_per_s,omitempty"`
	KafkaP50       float64            `json:"from_kafka_p50_ms,omitempty"` // from when the reading has come to Kafka to its alarm
	KafkaP99       float64            `json:"from_kafka_p99_ms,omitempty"`
	KafkaRatio     float64            `json:"from_kafka_ratio,omitempty"`  // p50 to that of a bare chain
	RSSByService   map[string]float64 `json:"rss_mb_by_service,omitempty"` // where each is a process of its own; rss_mb is the greatest then
}

// since is the difference between two moments.
func (to moment) since(from moment) (r result) {
	d := to.at.Sub(from.at)
	services, brokers := to.engine.CPU-from.engine.CPU, to.brokers.CPU-from.brokers.CPU
	r.memory(to)
	for kind := range to.others {
		services += to.others[kind].CPU - from.others[kind].CPU
	}
	r.CPUPercent = 100 * services.Seconds() / d.Seconds()
	n := float64(to.done - from.done)
	if n == 0 {
		return r
	}
	r.TuplesPerS = n / d.Seconds()
	r.ServicesCPU, r.BrokersCPU = micros(services)/n, micros(brokers)/n
	r.StoresCPU = micros(to.stores-from.stores) / n
	r.CPU = r.ServicesCPU + r.BrokersCPU + r.StoresCPU
	r.Allocs = float64(to.mallocs-from.mallocs) / n
	r.Documents = float64(to.stored-from.stored) / d.Seconds()
	return r
}

// memory is that of the process with all services, or of the largest of several.
func (r *result) memory(m moment) {
	r.RSS = float64(m.engine.RSS) / (1 << 20)
	if len(m.others) == 0 {
		return
	}
	r.RSSByService = map[string]float64{topology.KindSpout: math.Round(r.RSS)}
	for kind, u := range m.others {
		mb := float64(u.RSS) / (1 << 20)
		r.RSSByService[kind] = math.Round(mb)
		r.RSS = max(r.RSS, mb)
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (r *result) latencies(h *histogram) {
	if h != nil {
		r.P50, r.P99, r.P999 = ms(h.quantile(0.5)), ms(h.quantile(0.99)), ms(h.quantile(0.999))
	}
}

// relate sets the ratios to what the reference has just done.
func (r *result) relate(m measured) {
	r.Reference, r.ReferenceCPU, r.ReferenceP50 = m.perSecond, micros(m.cpu), ms(m.p50)
	r.Ratio, r.CPURatio = r.TuplesPerS/r.Reference, r.CPU/r.ReferenceCPU
	r.CPURatioLow, r.CPURatioHigh = r.CPURatio, r.CPURatio
	r.FlushMS = ms(m.flush)
	if m.stored > 0 {
		r.StoreReference, r.StoreRatio, r.DocumentRatio = m.stored, r.TuplesPerS/m.stored, r.Documents/m.stored
	}
	if m.p50 > 0 {
		r.Ratio, r.KafkaRatio = r.P50/r.ReferenceP50, r.KafkaP50/r.ReferenceP50
	}
}

// medians takes each figure's own median, the ratios' too: those are of figures that were measured one after the other.
func medians(runs []result) result {
	out := result{Name: runs[0].Name}
	median := func(of func(*result) *float64) {
		var xs []float64
		for i := range runs {
			xs = append(xs, *of(&runs[i]))
		}
		*of(&out) = middle(xs)
	}
	for _, of := range []func(*result) *float64{
		func(r *result) *float64 { return &r.TuplesPerS }, func(r *result) *float64 { return &r.Reference },
		func(r *result) *float64 { return &r.Ratio }, func(r *result) *float64 { return &r.CPU }, func(r *result) *float64 { return &r.Allocs },
		func(r *result) *float64 { return &r.P50 }, func(r *result) *float64 { return &r.P99 }, func(r *result) *float64 { return &r.P999 },
		func(r *result) *float64 { return &r.RSS }, func(r *result) *float64 { return &r.ServicesCPU },
		func(r *result) *float64 { return &r.BrokersCPU }, func(r *result) *float64 { return &r.ReferenceCPU },
		func(r *result) *float64 { return &r.CPURatio }, func(r *result) *float64 { return &r.ReferenceP50 },
		func(r *result) *float64 { return &r.CPUPercent }, func(r *result) *float64 { return &r.StoresCPU },
		func(r *result) *float64 { return &r.StoreReference }, func(r *result) *float64 { return &r.StoreRatio },
		func(r *result) *float64 { return &r.Documents }, func(r *result) *float64 { return &r.DocumentRatio },
		func(r *result) *float64 { return &r.Maximum }, func(r *result) *float64 { return &r.FlushMS }, func(r *result) *float64 { return &r.Offered },
		func(r *result) *float64 { return &r.KafkaP50 }, func(r *result) *float64 { return &r.KafkaP99 }, func(r *result) *float64 { return &r.KafkaRatio },
	} {
		median(of)
	}
	for _, r := range runs {
		out.Replayed += r.Replayed
	}
	out.CPURatioLow, out.CPURatioHigh = math.Inf(1), math.Inf(-1)
	byKind := map[string][]float64{}
	for _, r := range runs {
		out.CPURatioLow, out.CPURatioHigh = min(out.CPURatioLow, r.CPURatio), max(out.CPURatioHigh, r.CPURatio)
		for kind, mb := range r.RSSByService {
			byKind[kind] = append(byKind[kind], mb)
		}
	}
	out.CPURatioLow, out.CPURatioHigh = round(out.CPURatioLow), round(out.CPURatioHigh)
	for kind, mbs := range byKind {
		if out.RSSByService == nil {
			out.RSSByService = map[string]float64{}
		}
		out.RSSByService[kind] = middle(mbs)
	}
	return out
}

// middle is the median.
func middle(xs []float64) float64 {
	slices.Sort(xs)
	return round((xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2)
}

func round(x float64) float64 { return math.Round(x*1000) / 1000 }
