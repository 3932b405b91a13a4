package figures

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
)

// AirReading is a row of the data of the example air-quality; a field that is absent is nil.
type AirReading struct {
	Device string   `json:"device"`
	TS     int64    `json:"ts"`
	PM25   *float64 `json:"pm25,omitempty"`
	NO2    *float64 `json:"no2,omitempty"`
}

// Station is a line of its archive.
type Station struct {
	Device, Site string
	Active       bool
	Gain, Offset float64
	Limit        *float64 `json:"pm25_limit"`
	Limits       struct{ NO2 float64 }
}

// AirTruth is what must come of the data, found without anything of boltmesh: one reading after the other, in plain loops.
type AirTruth struct {
	Stored, Left int
	hourly       map[string]string    // station and hour -> n, mean, high
	sites        map[string]string    // site and hour -> n, mean, high, stations
	ranked       map[string][]float64 // site and hour -> values in order
	totals       map[string]string
	Events       []string
}

// TruthOfAir computes it from the readings in the order of their arrival, and the stations by device.
func TruthOfAir(data []AirReading, stations map[string]Station) AirTruth {
	t := AirTruth{hourly: map[string]string{}, sites: map[string]string{}, ranked: map[string][]float64{}, totals: map[string]string{}}
	pm, no2, all := map[string][]float64{}, map[string][]float64{}, map[string]int{}
	hours, there := map[string][]float64{}, map[string]map[string]bool{}
	streak, dust, nitrogen := map[string]int{}, map[string]bool{}, map[string]bool{}
	tell := func(alarm, event string, r AirReading) {
		t.Events = append(t.Events, fmt.Sprint(alarm, " ", r.Device, " ", event, " ", r.TS))
	}
	for _, r := range data {
		s, known := stations[r.Device]
		if !known || !s.Active {
			t.Left++
			continue
		}
		t.Stored++
		all[r.Device]++
		if r.NO2 != nil {
			no2[r.Device] = append(no2[r.Device], *r.NO2)
			if over := *r.NO2 > s.Limits.NO2; s.Limits.NO2 > 0 && over != nitrogen[r.Device] {
				nitrogen[r.Device] = over
				tell("nitrogen", map[bool]string{true: "raise", false: "clear"}[over], r)
			}
		}
		if r.PM25 == nil {
			continue
		}
		v := *r.PM25*s.Gain + s.Offset
		pm[r.Device] = append(pm[r.Device], v)
		hour := fmt.Sprint(r.Device, " ", r.TS/3600_000*3600_000)
		hours[hour] = append(hours[hour], v)
		hour = fmt.Sprint(s.Site, " ", r.TS/3600_000*3600_000)
		t.ranked[hour] = append(t.ranked[hour], v)
		if there[hour] == nil {
			there[hour] = map[string]bool{}
		}
		there[hour][r.Device] = true
		switch {
		case s.Limit == nil:
		case dust[r.Device]:
			if v < *s.Limit*0.8 {
				dust[r.Device] = false
				tell("dust", "clear", r)
			}
		case v > *s.Limit:
			if streak[r.Device]++; streak[r.Device] == 3 {
				dust[r.Device], streak[r.Device] = true, 0
				tell("dust", "raise", r)
			}
		default:
			streak[r.Device] = 0
		}
	}
	for hour, vs := range hours {
		t.hourly[hour] = fmt.Sprintf("%d %.9f %.9f", len(vs), mean(vs), slices.Max(vs))
	}
	for hour, vs := range t.ranked {
		slices.Sort(vs)
		t.sites[hour] = fmt.Sprintf("%d %.9f %.9f %d", len(vs), mean(vs), slices.Max(vs), len(there[hour]))
	}
	for d, n := range all {
		t.totals[d] = fmt.Sprintf("%d %d %.9f %.9f", n, len(pm[d]), mean(pm[d]), mean(no2[d]))
	}
	slices.Sort(t.Events)
	return t
}

func mean(vs []float64) float64 {
	sum := 0.0
	for _, v := range vs {
		sum += v
	}
	return sum / float64(max(1, len(vs)))
}

// AirStored are the documents that the example has stored, whatever has read them.
type AirStored struct {
	Hours  []AirHour
	Sites  []AirSite
	Totals []AirTotal
	Events []AirEvent
}

// AirHour is a document of the collection hourly.
type AirHour struct {
	Device     string
	Window     struct{ Start int64 }
	N          int
	Mean, High float64
}

// AirSite is a document of site_hours, whose statistic has two stages.
type AirSite struct {
	Group           string
	Window          struct{ Start int64 }
	N, Stations     int
	Mean, High, P90 float64
}

// AirTotal is a document of totals.
type AirTotal struct {
	Device         string
	Readings, PM25 int
	Mean, NO2      float64
}

// AirEvent is a document of alarms.
type AirEvent struct {
	Alarm, Device, Event string
	TS                   int64
}

// Differences tells where the documents are not the truth.
func (t *AirTruth) Differences(s AirStored) (wrong []string) {
	hourly := map[string]string{}
	for _, d := range s.Hours {
		hourly[fmt.Sprint(d.Device, " ", d.Window.Start)] = fmt.Sprintf("%d %.9f %.9f", d.N, d.Mean, d.High)
	}
	wrong = differ(wrong, "hourly", len(s.Hours), hourly, t.hourly)
	sites := map[string]string{}
	for _, d := range s.Sites {
		hour := fmt.Sprint(d.Group, " ", d.Window.Start)
		sites[hour] = fmt.Sprintf("%d %.9f %.9f %d", d.N, d.Mean, d.High, d.Stations)
		if vs := t.ranked[hour]; len(vs) > 0 {
			if p90 := vs[int(0.9*float64(len(vs)-1))]; math.Abs(d.P90-p90) > 0.01*math.Abs(p90)+1e-9 {
				wrong = append(wrong, fmt.Sprintf("the 0.9 quantile of %s: %v, want %v within 1 %%", hour, d.P90, p90))
			}
		}
	}
	wrong = differ(wrong, "site_hours", len(s.Sites), sites, t.sites)
	last := map[string]AirTotal{}
	for _, d := range s.Totals { // each flush outputs those again that have changed
		if d.Readings >= last[d.Device].Readings {
			last[d.Device] = d
		}
	}
	totals := map[string]string{}
	for _, d := range last {
		totals[d.Device] = fmt.Sprintf("%d %d %.9f %.9f", d.Readings, d.PM25, d.Mean, d.NO2)
	}
	wrong = differ(wrong, "totals", len(totals), totals, t.totals)
	var events []string
	for _, e := range s.Events {
		events = append(events, fmt.Sprint(e.Alarm, " ", e.Device, " ", e.Event, " ", e.TS))
	}
	slices.Sort(events)
	if !slices.Equal(events, t.Events) {
		wrong = append(wrong, fmt.Sprintf("%d events, want %d:\n%q\nwant\n%q", len(events), len(t.Events), events, t.Events))
	}
	return wrong
}

func differ(wrong []string, what string, documents int, got, want map[string]string) []string {
	for k, v := range want {
		if got[k] != v {
			wrong = append(wrong, fmt.Sprintf("%s of %s: %q, want %q", what, k, got[k], v))
		}
	}
	if documents != len(want) {
		wrong = append(wrong, fmt.Sprintf("%s: %d documents, want %d", what, documents, len(want)))
	}
	return wrong
}

// Lines reads a file of JSON lines.
func Lines[T any](file string) (out []T, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var v T
		if err := json.Unmarshal(in.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, v)
	}
	return out, in.Err()
}

// Stations reads the example's archive.
func Stations(file string) (map[string]Station, error) {
	all, err := Lines[Station](file)
	out := map[string]Station{}
	for _, s := range all {
		out[s.Device] = s
	}
	return out, err
}
