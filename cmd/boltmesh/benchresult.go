package main

import (
	"math"
	"slices"
	"time"
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
	CPUPercent   float64 `json:"cpu_percent"` // of one core, all services together
	Replayed     int64   `json:"replayed"`    // roots that were overdue
}

// since is the difference between two moments.
func (to moment) since(from moment) (r result) {
	d := to.at.Sub(from.at)
	services, brokers := to.engine.CPU-from.engine.CPU, to.brokers.CPU-from.brokers.CPU
	r.RSS = float64(to.engine.RSS) / (1 << 20)
	r.CPUPercent = 100 * services.Seconds() / d.Seconds()
	n := float64(to.done - from.done)
	if n == 0 {
		return r
	}
	r.TuplesPerS = n / d.Seconds()
	r.ServicesCPU, r.BrokersCPU = micros(services)/n, micros(brokers)/n
	r.CPU = r.ServicesCPU + r.BrokersCPU
	r.Allocs = float64(to.mallocs-from.mallocs) / n
	return r
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
	if m.p50 > 0 {
		r.Ratio = r.P50 / r.ReferenceP50
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
		slices.Sort(xs)
		m := (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
		*of(&out) = math.Round(m*1000) / 1000
	}
	for _, of := range []func(*result) *float64{
		func(r *result) *float64 { return &r.TuplesPerS }, func(r *result) *float64 { return &r.Reference },
		func(r *result) *float64 { return &r.Ratio }, func(r *result) *float64 { return &r.CPU }, func(r *result) *float64 { return &r.Allocs },
		func(r *result) *float64 { return &r.P50 }, func(r *result) *float64 { return &r.P99 }, func(r *result) *float64 { return &r.P999 },
		func(r *result) *float64 { return &r.RSS }, func(r *result) *float64 { return &r.ServicesCPU },
		func(r *result) *float64 { return &r.BrokersCPU }, func(r *result) *float64 { return &r.ReferenceCPU },
		func(r *result) *float64 { return &r.CPURatio }, func(r *result) *float64 { return &r.ReferenceP50 },
		func(r *result) *float64 { return &r.CPUPercent },
	} {
		median(of)
	}
	for _, r := range runs {
		out.Replayed += r.Replayed
	}
	return out
}
